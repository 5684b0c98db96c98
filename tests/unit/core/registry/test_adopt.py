"""Adopting what was trained elsewhere: from MLflow, a file, a folder, S3; and the gates that take it then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from airflow_mlops.core import models
from airflow_mlops.core.errors import IntegrityError, NotFoundError, SpecError, UnsupportedError
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.versions import version_record
from airflow_mlops.core.s3 import SOURCE
from airflow_mlops.core.tracking import client, experiment_id

TESTS = [{"kind": "metric", "metric": "roc_auc", "min": 0.7}, {"kind": "load"}]


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    made = pd.DataFrame(rng.normal(size=(200, 2)), columns=["age", "calls"])
    return made.assign(churned=(made["age"] + rng.normal(scale=0.5, size=200) > 0).astype(int))


@pytest.fixture
def data(frame: pd.DataFrame, tmp_path: Path) -> str:
    frame.to_parquet(tmp_path / "rows.parquet", index=False)
    return str(tmp_path / "rows.parquet")


@pytest.fixture
def model(frame: pd.DataFrame) -> LogisticRegression:
    return LogisticRegression().fit(frame[["age", "calls"]], frame["churned"])


@pytest.fixture
def auc(frame: pd.DataFrame, model: Any) -> float:
    return float(roc_auc_score(frame["churned"], model.predict_proba(frame[["age", "calls"]])[:, 1]))


@pytest.fixture
def files(model: Any, frame: pd.DataFrame, tmp_path: Path) -> dict[str, Path]:
    """The same model as people leave it."""
    import lightgbm
    import xgboost

    X, y = frame[["age", "calls"]], frame["churned"]
    folder = tmp_path / "left"
    folder.mkdir()
    joblib.dump(model, folder / "m.joblib")
    joblib.dump(model, folder / "m.bin", compress=3)
    skops.io.dump(model, folder / "m.skops")
    mlflow.sklearn.save_model(
        model,
        folder / "mlflow",
        serialization_format="skops",
        input_example=X.head(2),
        pip_requirements=["scikit-learn"],
    )
    xgboost.XGBClassifier(n_estimators=5).fit(X, y).save_model(folder / "x.json")
    lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(X, y), 5).save_model(folder / "l.txt")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def logged(mlflow_context: Any, model: Any, frame: pd.DataFrame) -> Any:
    """A model that somebody logged and registered with nothing but MLflow."""
    mlflow_client = client(mlflow_context, "the test")
    with mlflow.start_run(experiment_id=experiment_id(mlflow_client, mlflow_context, "theirs")) as run:
        mlflow.log_metrics({"val_auc": 0.8, "loss": float("nan")})
        return run, mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="cloudpickle",
            registered_model_name="other",
            input_example=frame[["age", "calls"]].head(2),
            pip_requirements=["scikit-learn"],
        )


def logged_models(context: Any) -> list[Any]:
    mlflow_client = client(context, "the test")
    found = [e.experiment_id for e in mlflow_client.search_experiments()]
    return [m for m in mlflow_client.search_logged_models(found) if m.tags.get("mlops.adopted")]


class TestFromMlflow:
    @pytest.mark.parametrize("form", ["models:/other/1", "other/1", "runs:/{run}/model", "models:/{id}"])
    def test_what_is_known_is_recorded_and_the_rest_is_null(self, as_task, mlflow_context, logged, form: str) -> None:
        run, info = logged
        uri = form.format(run=run.info.run_id, id=info.model_id)

        ref = register_model(as_task("r"), model=uri, model_name="churn", trust="unverified")

        assert (ref["name"], ref["version"], ref["run_id"]) == ("churn", 1, run.info.run_id)
        assert ref["metrics"]["val_auc"] == 0.8
        assert ref["metrics"].get("loss") is None
        assert ref["training"] is ref["test_dataset"] is ref["target"] is ref["environment"] is None
        assert ref["code"]["trust"] == "unverified"
        record = version_record(mlflow_context, "churn", 1)
        assert "age" in json.dumps(record["signature"]["inputs"])
        tags = client(mlflow_context, "the test").get_model_version("churn", "1").tags
        assert (tags["mlops.trust"], tags["mlops.digest"]) == ("unverified", ref["digest"])

    def test_every_gate_takes_it_by_alias_from_then_on(self, as_task, mlflow_context, logged, data, auc) -> None:
        register_model(as_task("r"), model="models:/other/1", model_name="churn", trust="unverified")
        report = evaluate_model(
            as_task("e"),
            model="models:/churn/1",
            dataset=data,
            target="churned",
            tests=TESTS,
            champion="churn@champion",
        )
        assert report["passed"], report["failures"]
        assert report["metrics"]["roc_auc"] == pytest.approx(auc)
        entry = promote_model(as_task("p"), model="models:/churn/1", evidence=[report])
        assert (entry["alias"], entry["version"]) == ("champion", 1)

        again = evaluate_model(
            as_task("e2"), model="models:/churn@champion", dataset=data, target="churned", tests=TESTS
        )
        assert again["passed"]
        details = mlflow_context.store.get_json(mlflow_context.store.key_of(again["details_uri"]))
        assert "adopted with trust='unverified'" in " ".join(details["caveats"])

    def test_without_trust_it_is_a_version_that_no_gate_loads(self, as_task, logged, data) -> None:
        register_model(as_task("r"), model="models:/other/1", model_name="churn")
        with pytest.raises(IntegrityError, match="adopt it first"):
            evaluate_model(as_task("e"), model="models:/churn/1", dataset=data, target="churned", tests=TESTS)

    def test_what_was_altered_after_that_is_refused(self, as_task, mlflow_context, logged, data) -> None:
        register_model(as_task("r"), model="models:/other/1", model_name="churn", trust="unverified")
        folder = Path(client(mlflow_context, "t").get_logged_model(logged[1].model_id).artifact_location[7:])
        (folder / "model.pkl").write_bytes(b"other")
        with pytest.raises(IntegrityError, match="altered after the fact"):
            evaluate_model(as_task("e"), model="models:/churn/1", dataset=data, target="churned", tests=TESTS)


class TestFromFiles:
    @pytest.mark.parametrize("name", ["m.joblib", "m.bin", "m.skops", "mlflow", "x.json", "l.txt"])
    def test_a_file_becomes_a_model_that_gates_take(self, as_task, files, data, auc, name: str) -> None:
        trust = "pickle" if name in ("m.joblib", "m.bin") else "unverified"

        ref = register_model(as_task("r"), model=str(files[name]), model_name="churn", trust=trust)

        assert ref["run_id"] is None
        assert ref["metrics"] == {}
        assert ref["code"] == {"adopted_from": ref["code"]["adopted_from"], "trust": trust}
        assert ref["code"]["adopted_from"].endswith(name)
        report = evaluate_model(as_task("e"), model="models:/churn/1", dataset=data, target="churned", tests=[TESTS[0]])
        assert report["passed"], report["failures"]
        if name not in ("x.json", "l.txt"):
            assert report["metrics"]["roc_auc"] == pytest.approx(auc)

    def test_once_for_one_content(self, as_task, mlflow_context, files, tmp_path) -> None:
        first = register_model(as_task("r"), model=str(files["m.skops"]), model_name="churn", trust="unverified")
        assert (
            register_model(as_task("r"), model=str(files["m.skops"]), model_name="churn", trust="unverified") == first
        )
        other = tmp_path / "copy.skops"
        other.write_bytes(files["m.skops"].read_bytes())
        second = register_model(as_task("r2"), model=str(other), model_name="churn", trust="unverified")
        assert (second["version"], second["model_id"]) == (2, first["model_id"])
        assert len(logged_models(mlflow_context)) == 1

    def test_the_file_itself_is_not_touched(self, as_task, files) -> None:
        before = {path: path.read_bytes() for path in files["mlflow"].rglob("*") if path.is_file()}
        register_model(as_task("r"), model=str(files["mlflow"]), model_name="churn", trust="unverified")
        assert {path: path.read_bytes() for path in files["mlflow"].rglob("*") if path.is_file()} == before

    def test_a_pickle_needs_trust(self, as_task, files, mlflow_context) -> None:
        with pytest.raises(UnsupportedError, match=r"m\.joblib is a pickle, .*trust='pickle'"):
            register_model(as_task("r"), model=str(files["m.joblib"]), model_name="churn", trust="unverified")
        assert not logged_models(mlflow_context)

    def test_a_flavor_may_be_said_and_is_believed(self, as_task, files) -> None:
        with pytest.raises(UnsupportedError, match=r"m\.skops cannot be loaded as lightgbm"):
            register_model(as_task("r"), model=str(files["m.skops"]), model_name="c", trust="pickle", flavor="lightgbm")
        assert register_model(
            as_task("r"), model=str(files["m.skops"]), model_name="c", trust="unverified", flavor="skops"
        )
        with pytest.raises(SpecError, match="flavor must be one of"):
            register_model(as_task("r"), model=str(files["m.skops"]), model_name="c", flavor="keras")

    def test_types_that_are_not_on_the_allow_list(self, as_task, tmp_path) -> None:
        from fractions import Fraction

        skops.io.dump(LogisticRegression(C=Fraction(1, 2)), tmp_path / "f.skops")
        arguments = {"model": str(tmp_path / "f.skops"), "model_name": "churn", "trust": "unverified"}
        with pytest.raises(UnsupportedError, match=r"pass trusted_types=\['fractions.Fraction'\]"):
            register_model(as_task("r"), **arguments)
        assert register_model(as_task("r"), **arguments, trusted_types=["fractions.Fraction"])["version"] == 1

    def test_nothing_there(self, as_task, tmp_path) -> None:
        with pytest.raises(NotFoundError, match="neither a file nor a folder"):
            register_model(as_task("r"), model=str(tmp_path / "nope.joblib"), model_name="churn")


class TestFromS3:
    @pytest.fixture
    def bucket(self, s3_server: Any, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv(SOURCE, s3_server.access.to_json())
        name = s3_server.bucket()
        for path in (files["m.joblib"], files["m.skops"], *files["mlflow"].rglob("*")):
            if path.is_file():
                key = f"models/{path.relative_to(files['mlflow'].parent)}"
                s3_server.client.upload_file(str(path), name, key)
        return str(name)

    @pytest.mark.parametrize(
        ("key", "trust"), [("m.joblib", "pickle"), ("m.skops", "unverified"), ("mlflow", "unverified")]
    )
    def test_an_object_or_a_folder(self, as_task, bucket, data, auc, key: str, trust: str) -> None:
        uri = f"s3://{bucket}/models/{key}"

        ref = register_model(as_task("r"), model=uri, model_name="churn", trust=trust)

        assert ref["code"] == {"adopted_from": uri, "trust": trust}
        report = evaluate_model(as_task("e"), model=ref, dataset=data, target="churned", tests=[TESTS[0]])
        assert report["metrics"]["roc_auc"] == pytest.approx(auc)

    def test_what_is_not_there(self, as_task, bucket) -> None:
        with pytest.raises(Exception, match="no object matches s3://") as caught:
            register_model(as_task("r"), model=f"s3://{bucket}/models/nope.joblib", model_name="churn")
        assert not caught.value.retryable
        with pytest.raises(UnsupportedError, match="no MLmodel file"):
            register_model(as_task("r"), model=f"s3://{bucket}/models/", model_name="churn")


@pytest.mark.parametrize("point", [*CRASH_POINTS["adopt_model"], *CRASH_POINTS["register_model"]])
def test_killed_at_any_point_it_is_one_model_and_one_version(
    mlflow_context, files, tmp_path, registered, point: str
) -> None:
    spec = {
        "step": "register_model",
        "args": {"model": str(files["m.joblib"]), "model_name": "churn", "trust": "pickle"},
        "store": mlflow_context.store.uri,
        "tracking_uri": mlflow_context.tracking_uri,
        "key": "run/1",
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "airflow_mlops.core", "--spec", "spec.json", "--report", "report.json"]
    environment = {**os.environ, "AIRFLOW_MLOPS_LEASE_SECONDS": "0.5"}

    killed = subprocess.run(command, cwd=tmp_path, env={**environment, VARIABLE: point}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr

    ref = json.loads((tmp_path / "report.json").read_text())
    (model,) = logged_models(mlflow_context)
    assert (ref["version"], ref["model_id"]) == (1, model.model_id)
    assert [int(v.version) for v in registered.client.search_model_versions("name='churn'")] == [1]
    assert models.recorded(mlflow_context, models.ModelRef.from_dict(ref))["ref"]["digest"] == ref["digest"]
