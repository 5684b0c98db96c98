"""Batch scoring: the log says what the model says, row by row, and a window is there once."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.data.dataset import read_frame
from airflow_mlops.core.errors import EmptyDataError, IntegrityError, MissingColumnError, SpecError, UnsupportedError
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.monitoring import history
from airflow_mlops.core.predictions import layout
from airflow_mlops.core.predictions.batch import batch_predict
from airflow_mlops.core.serving.capture import Capture, Recorder
from airflow_mlops.core.serving.measure import Figures
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import client
from airflow_mlops.core.vocabulary import DatasetRef
from evaluating import FEATURES, make_rows

ROLES = {"key": "id", "time": "day", "group": "airport", "target": "late"}
JANUARY = {"start": "2013-01-01", "end": "2013-02-01"}


def rows_of(context: StepContext, result: dict[str, Any]) -> pd.DataFrame:
    return read_frame(context.store, DatasetRef.from_dict(result))


def fitted(kind: str, frame: pd.DataFrame) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    features = frame[FEATURES]
    if kind == "binary":
        return HistGradientBoostingClassifier(max_iter=20, max_depth=3).fit(features, frame["late"])
    if kind == "text":
        return HistGradientBoostingClassifier(max_iter=20).fit(features, frame["late"].map({0: "no", 1: "yes"}))
    if kind == "three classes":
        return HistGradientBoostingClassifier(max_iter=10).fit(features, frame["airport"])
    return HistGradientBoostingRegressor(max_iter=20).fit(features, frame["distance"] * 3)


@pytest.mark.parametrize("kind", ["binary", "text", "three classes", "regression"])
def test_the_log_says_what_the_model_says(
    context: StepContext, save: Any, log_model: Any, frame: pd.DataFrame, kind: str
) -> None:
    model = fitted(kind, frame)
    ref = log_model(model=model)
    result = batch_predict(context, model=ref.to_dict(), dataset=save(frame), roles=ROLES, batch_rows=100)
    rows = rows_of(context, result)
    assert rows["prediction"].tolist() == model.predict(frame[FEATURES]).tolist()
    assert rows["id"].tolist() == frame["id"].tolist()
    assert rows["prediction_key"].tolist() == [str(one) for one in frame["id"]]
    assert rows["prediction_time"].tolist() == [one.tz_localize("UTC") for one in frame["day"]]
    assert rows["airport"].tolist() == frame["airport"].tolist()
    assert set(rows["prediction_digest"]) == {ref.digest}
    assert "late" not in rows
    assert "distance" not in rows
    if kind == "regression":
        assert "prediction_probability" not in rows
        assert result["figures"]["mean_prediction"] == pytest.approx(rows["prediction"].mean())
        return
    expected = model.predict_proba(frame[FEATURES])
    if kind == "three classes":
        np.testing.assert_array_equal(rows["prediction_probability"], expected.max(axis=1))
        for place, label in enumerate(model.classes_):
            np.testing.assert_array_equal(rows[f"prediction_probability_{label}"], expected[:, place])
    else:
        np.testing.assert_array_equal(rows["prediction_probability"], expected[:, 1])
        share = (rows["prediction"] == model.classes_[1]).mean()
        assert result["figures"]["positive_share"] == pytest.approx(share)
        assert result["figures"]["mean_probability"] == pytest.approx(expected[:, 1].mean())
    assert result["figures"]["rows"] == len(frame)
    assert result["roles"] == {"key": ["id"], "time": "day", "group": "airport"} or result["roles"]["key"] == "id"


def test_a_python_model_and_a_booster_are_scored_too(
    context: StepContext, save: Any, log_model: Any, frame: pd.DataFrame
) -> None:
    import lightgbm
    import mlflow

    class Shares(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            return model_input["distance"].to_numpy() / 2

    result = batch_predict(
        context, model=log_model(model=Shares()).to_dict(), dataset=save(frame), log_name="shares", batch_rows=256
    )
    assert rows_of(context, result)["prediction"].tolist() == (frame["distance"] / 2).tolist()
    assert rows_of(context, result)["prediction_key"].tolist() == [str(n) for n in range(len(frame))]
    client(context, "the test")
    booster = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(frame[FEATURES], frame["late"])
    with mlflow.start_run(experiment_id="0"):
        info = mlflow.lightgbm.log_model(booster, name="model", pip_requirements=["lightgbm"])
    result = batch_predict(
        context, model=f"models:/{info.model_id}", dataset=save(frame[FEATURES]), log_name="boosted", trust="unverified"
    )
    expected = booster.predict_proba(frame[FEATURES])[:, 1]
    np.testing.assert_allclose(rows_of(context, result)["prediction_probability"], expected)


def test_a_window_takes_its_rows_and_has_a_point_in_the_history(
    context: StepContext, save: Any, log_model: Any, frame: pd.DataFrame
) -> None:
    ref = log_model(alias="champion")
    window = {"start": "2013-01-10", "end": "2013-01-12"}
    result = batch_predict(
        context, model="models:/flights_late@champion", dataset=save(frame), roles=ROLES, window=window
    )
    rows = rows_of(context, result)
    assert len(rows) == 48
    assert rows["day"].min() == pd.Timestamp("2013-01-10")
    assert set(rows["prediction_version"]) == {str(ref.version)}
    assert result["window"] == {"start": "2013-01-10T00:00:00+00:00", "end": "2013-01-12T00:00:00+00:00"}
    (point,) = history.read(context.store, "flights_late", kind="predictions")
    assert (point.version, point.figures["rows"], point.facts["model_digest"]) == (str(ref.version), 48, ref.digest)
    assert sum(point.facts["classes"].values()) == 48


def test_a_window_predicted_again_replaces_itself(
    context: StepContext, save: Any, log_model: Any, frame: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    arguments: dict[str, Any] = {"dataset": save(frame), "roles": ROLES, "window": JANUARY, "log_name": "late"}
    first = batch_predict(context, model=log_model().to_dict(), **arguments)
    same = batch_predict(context, model=log_model(recorded=True).to_dict(), **arguments)
    assert len(layout.read(context.store, "late")) == first["rows"]

    caplog.clear()
    assert batch_predict(context, model=same["model"]["uri"], **arguments)["digest"] == same["digest"]
    assert "predicted before with nothing changed" in caplog.text
    caplog.clear()
    batch_predict(context, model=same["model"]["uri"], reuse=False, **arguments)
    assert "predicted before" not in caplog.text

    other = log_model(make_rows(seed=5)).to_dict()
    last = batch_predict(context, model=other, **arguments)
    table = layout.read(context.store, "late")
    assert len(table) == last["rows"] == first["rows"]
    assert set(table.column("prediction_digest").to_pylist()) == {other["digest"]}
    # What was given out before stays what it was.
    assert set(rows_of(context, first)["prediction_digest"]) == {first["model"]["digest"]}
    assert len(history.read(context.store, "late")) == 1


def test_windows_that_overlap_are_refused_and_a_larger_one_takes_over(
    context: StepContext, save: Any, log_model: Any, frame: pd.DataFrame
) -> None:
    model, data = log_model().to_dict(), save(frame)

    def predict(start: str, end: str) -> None:
        window = {"start": f"2013-01-{start}", "end": f"2013-01-{end}"}
        batch_predict(context, model=model, dataset=data, roles=ROLES, window=window, log_name="late")

    predict("03", "05")
    predict("05", "07")
    for start, end in (("04", "06"), ("03", "04"), ("06", "09")):
        with pytest.raises(SpecError, match="overlaps"):
            predict(start, end)
    assert len(layout.read(context.store, "late")) == 96
    predict("02", "08")
    assert len(layout.read(context.store, "late")) == 144
    keys = layout.read(context.store, "late", columns=["prediction_key"]).column(0).to_pylist()
    assert len(set(keys)) == 144
    part = layout.read(context.store, "late", window={"start": "2013-01-02", "end": "2013-01-03"})
    assert len(part) == 24


def test_what_a_server_captures_is_read_as_the_same_log(
    context: StepContext, save: Any, log_model: Any, frame: pd.DataFrame
) -> None:
    model = fitted("binary", frame)
    ref = log_model(model=model)
    batch_predict(context, model=ref.to_dict(), dataset=save(frame), roles=ROLES, log_name="flights")
    identity = {"server": "flights", "model": "flights", "version": 3, "digest": ref.digest, "deployment": 1}
    recorder = Recorder(context.store, Capture.of({"key": "id"}), identity, Figures(identity), None, model)
    asked = frame[["id", *FEATURES]].head(5)
    recorder.take(asked, model.predict(asked[FEATURES]))
    # The model takes its own columns only, as MLflow's pyfunc sees to.
    recorder.close()
    table = layout.read(context.store, "flights", columns=["prediction", "prediction_key", "prediction_digest"])
    assert len(table) == len(frame) + 5
    assert set(table.column("prediction_digest").to_pylist()) == {ref.digest}
    described = layout.described(layout.read(context.store, "flights").column_names)
    assert described == {
        "key": "prediction_key",
        "time": "prediction_time",
        "prediction": "prediction",
        "probability": "prediction_probability",
    }


def test_a_copy_goes_where_others_read(context: StepContext, save: Any, log_model: Any, tmp_path: Path) -> None:
    frame = make_rows()
    arguments: dict[str, Any] = {
        "dataset": save(frame),
        "roles": ROLES,
        "window": JANUARY,
        "destination": str(tmp_path / "lake"),
    }
    first = batch_predict(context, model=log_model().to_dict(), **arguments)
    batch_predict(context, model=log_model(make_rows(seed=5)).to_dict(), **arguments)
    files = [path for path in (tmp_path / "lake").rglob("*.parquet") if ".staging" not in str(path)]
    assert [path.as_uri() for path in files] == [first["destination_uri"]]
    assert files[0].parent.name == "window=20130101T000000000000Z--20130201T000000000000Z"
    assert pq.read_table(files[0], partitioning=None).num_rows == first["rows"]


def test_further_columns_and_nulls_that_come_late(context: StepContext, save: Any, log_model: Any) -> None:
    frame = make_rows()
    frame["stops"] = pa.array([*range(599), None], pa.int64()).to_pandas(types_mapper=pd.ArrowDtype)
    from sklearn.ensemble import HistGradientBoostingClassifier

    client(context, "the test")
    columns = [*FEATURES, "stops"]
    model = HistGradientBoostingClassifier(max_iter=5).fit(frame[columns].astype(float), frame["late"])
    import mlflow

    with mlflow.start_run(experiment_id="0"):  # not the one that a test before has chosen
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
            signature=mlflow.models.infer_signature(frame[columns].astype(float), frame["late"]),
        )
    result = batch_predict(
        context,
        model=f"models:/{info.model_id}",
        dataset=save(frame),
        roles=ROLES,
        columns=["late", "stops"],
        trust="unverified",
        batch_rows=200,
    )
    rows = rows_of(context, result)
    assert rows["prediction"].tolist() == model.predict(frame[columns].astype(float)).tolist()
    assert rows["late"].tolist() == frame["late"].tolist()
    assert result["roles"]["target"] == "late"


def test_predictions_that_are_none_are_counted(
    context: StepContext, save: Any, log_model: Any, frame: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    class Broken(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            return model_input["distance"].where(model_input["distance"] > 0).to_numpy()

    result = batch_predict(context, model=log_model(model=Broken()).to_dict(), dataset=save(frame), roles=ROLES)
    assert result["figures"]["bad_predictions"] == int((frame["distance"] <= 0).sum())
    assert "are null, NaN or infinite" in caplog.text


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"window": {"start": "2014-01-01", "end": "2014-02-01"}}, EmptyDataError, "goes from 2013-01-01"),
    ({"roles": {"key": "ident"}}, MissingColumnError, "'ident'"),
    ({"columns": ["carrier"]}, MissingColumnError, "'carrier'"),
    ({"columns": "late"}, SpecError, "list of names"),
    ({"batch_rows": 0}, SpecError, "batch_rows"),
    ({"trust": "always"}, SpecError, "'recorded' or 'unverified'"),
]


@pytest.mark.parametrize(("more", "error", "text"), BAD)
def test_bad_arguments_say_why(
    context: StepContext, save: Any, log_model: Any, more: Any, error: type[Exception], text: str
) -> None:
    arguments = {"dataset": save(make_rows()), "roles": ROLES, **more}
    with pytest.raises(error, match=text):
        batch_predict(context, model=log_model().to_dict(), **arguments)
    assert not list(context.store.keys("predictions"))


def test_rows_that_the_model_cannot_take_and_models_nobody_knows(
    context: StepContext, save: Any, log_model: Any
) -> None:
    frame = make_rows()
    with pytest.raises((UnsupportedError, MissingColumnError), match="distance"):
        batch_predict(context, model=log_model().to_dict(), dataset=save(frame.drop(columns="distance")))
    text = frame.assign(distance="far")
    with pytest.raises(SpecError, match="cannot predict these rows") as raised:
        batch_predict(context, model=log_model().to_dict(), dataset=save(text))
    assert "far" not in str(raised.value)
    with pytest.raises(EmptyDataError, match="no rows"):
        batch_predict(context, model=log_model().to_dict(), dataset=save(frame.head(0)))
    with pytest.raises(IntegrityError, match="trust='unverified'"):
        batch_predict(context, model=log_model(recorded=False).uri, dataset=save(frame))


@pytest.fixture
def spec(context: StepContext, save: Any, log_model: Callable[..., Any], tmp_path: Path) -> Callable[[str], Path]:
    """Write the spec of one scoring against a store of its own."""
    ref, data = log_model(), save(make_rows())

    def write(name: str) -> Path:
        path = tmp_path / f"{name}.spec.json"
        store = LocalStore(tmp_path / name)
        known = context.store.get_bytes(f"models/{ref.model_id}.json")
        store.put_bytes(f"models/{ref.model_id}.json", known)
        args = {
            "model": ref.to_dict(),
            "dataset": data,
            "roles": ROLES,
            "window": JANUARY,
            "destination": str(tmp_path / f"{name}-lake"),
        }
        job = {"step": "batch_predict", "args": args, "store": store.uri, "tracking_uri": context.tracking_uri}
        path.write_text(json.dumps({**job, "key": "d/r/t/-1"}))
        return path

    return write


def run(spec: Path, **environment: str) -> int:
    report = spec.with_suffix(".report.json")
    return subprocess.run(
        [sys.executable, "-m", "airflow_mlops.core", "--spec", str(spec), "--report", str(report)],
        env={**os.environ, **environment},
        check=False,
        capture_output=True,
    ).returncode


@pytest.mark.parametrize("point", CRASH_POINTS["batch_predict"])
def test_killed_at_any_point_and_tried_again_there_is_one_log_and_one_point(
    spec: Callable[[str], Path], tmp_path: Path, point: str
) -> None:
    path = spec("killed")
    assert run(path, **{VARIABLE: point}) == -signal.SIGKILL
    store = LocalStore(tmp_path / "killed")
    # Readers see nothing, or all of it.
    assert sum(one.dataset["rows"] for one in layout.windows(store, "flights_late")) in (0, 600)
    assert run(path) == 0
    assert len(layout.read(store, "flights_late")) == 600
    assert len(history.read(store, "flights_late")) == 1
    assert len(list((tmp_path / "killed-lake").rglob("predictions.parquet"))) == 1
    assert not list((store.root / ".staging").iterdir())
