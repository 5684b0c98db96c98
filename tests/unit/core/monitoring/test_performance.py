"""Performance once labels have come, and what is said of it until then: on real models, windows and bad labels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from airflow_mlops.core.errors import MissingColumnError, SpecError
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.monitoring import history
from airflow_mlops.core.monitoring.performance import monitor_performance
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore

MONTHS = [("2013-01-01", "2013-02-01"), ("2013-02-01", "2013-03-01"), ("2013-03-01", "2013-04-01")]
MONTHS += [("2013-04-01", "2013-05-01"), ("2013-05-01", "2013-06-01"), ("2013-06-01", "2013-07-01")]


def rows(seed: int = 0, hours: int = 24 * 181) -> pd.DataFrame:
    """Half a year of rows that a model was asked, one an hour, with what came true."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": np.arange(hours), "at": pd.date_range("2013-01-01", periods=hours, freq="h", tz="UTC")})
    frame["x"], frame["airport"] = rng.normal(size=hours), rng.choice(["JFK", "LGA"], hours)
    frame["y"] = (frame["x"] + rng.normal(size=hours) > 0).astype("int64")
    return frame


@pytest.fixture
def log(tmp_path: Path) -> dict[str, Any]:
    """A log that somebody else writes, all its labels in a file of their own, and the model's own figures."""
    frame = rows()
    past = rows(seed=1)
    model = LogisticRegression().fit(past[["x"]], past["y"])
    frame["p"] = model.predict_proba(frame[["x"]])[:, 1]
    frame["said"] = model.predict(frame[["x"]])
    frame[["id", "at", "airport", "p", "said"]].to_parquet(tmp_path / "log.parquet", index=False)
    frame[["id", "y"]].to_parquet(tmp_path / "labels.parquet", index=False)
    return {
        "predictions": {
            "uri": str(tmp_path / "log.parquet"),
            "columns": {"key": "id", "time": "at", "prediction": "said", "probability": "p"},
        },
        "labels": str(tmp_path / "labels.parquet"),
        "roles": {"key": "id"},
        "target": "y",
        "subject": "late:7",
        "metrics": ["roc_auc", "accuracy", "brier_score_loss"],
        "label_delay": "28d",
        "frame": frame,
    }


def window(month: int) -> dict[str, str]:
    return {"start": MONTHS[month][0], "end": MONTHS[month][1]}


def run(context: StepContext, log: dict[str, Any], month: int | None = None, **more: Any) -> dict[str, Any]:
    arguments = {name: value for name, value in log.items() if name != "frame"}
    if month is not None:
        arguments["window"] = window(month)
    return monitor_performance(context, **{**arguments, **more})


def details_of(context: StepContext, report: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
    return found


def inside(frame: pd.DataFrame, month: int) -> pd.DataFrame:
    return frame[(frame["at"] >= MONTHS[month][0]) & (frame["at"] < MONTHS[month][1])]


def test_windows_are_estimated_then_settled_when_their_labels_have_come(
    context: StepContext, log: dict[str, Any]
) -> None:
    frame, estimates = log["frame"], {}
    for month in range(6):
        report = run(context, log, month, baseline={"roc_auc": 0.84}, max_drop=0.05)
        if month == 0:
            assert report["metrics"] == {}
            assert report["passed"] is True
            assert "no estimate: no window with labels is older" in report["summary"]
            assert [one["end"][:10] for one in report["pending"]] == ["2013-02-01"]
            continue
        # The month before has matured by now: each run settles it, and nothing else.
        assert [one["window"]["end"][:10] for one in report["settled"]] == [MONTHS[month - 1][1]]
        assert report["as_of"] == f"{MONTHS[month][1]}T00:00:00+00:00"
        truth = inside(frame, month - 1)
        assert report["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(truth["y"], truth["p"]))
        assert report["metrics"]["labelled"] == len(truth)
        assert (report["severity"], report["version"], report["subject"]) == ("ok", "7", "late")
        (check, *_) = details_of(context, report)["windows"][-1]["checks"]
        assert check["low"] < check["value"] < check["high"]
        assert check["unit"] == "days"
        assert check["threshold"] == "baseline 0.84 − 0.05"
        estimates[month] = report["estimate"]
    # Two windows with an error of their own are needed: the fourth month is the first with an estimate.
    assert [month for month, one in estimates.items() if one] == [3, 4, 5]
    for month in (3, 4, 5):
        truth = inside(frame, month)
        for name, value in (
            ("roc_auc", roc_auc_score(truth["y"], truth["p"])),
            ("accuracy", (truth["said"] == truth["y"]).mean()),
        ):
            assert abs(estimates[month][name]["value"] - value) < 0.04
            assert estimates[month][name]["low"] < estimates[month][name]["value"] < estimates[month][name]["high"]
    points = history.read(context.store, "late", kind="performance")
    assert [point.window["end"][:10] for point in points] == [end for _, end in MONTHS[:5]]
    # Reconciled: what had been estimated stands beside what was measured.
    assert points[4].facts["estimate"]["roc_auc"] == estimates[4]["roc_auc"]["value"]
    assert len(history.read(context.store, "late", kind="estimate")) == 6


def test_a_drop_beyond_chance_is_an_error_and_one_within_it_a_warning(
    context: StepContext, log: dict[str, Any]
) -> None:
    good = run(context, log, 0, label_delay=None, baseline={"roc_auc": 0.84}, max_drop=0.05)
    assert good["severity"] == "ok"
    value = good["metrics"]["roc_auc"]
    low, high = history.read(context.store, "late", kind="performance")[0].facts["intervals"]["roc_auc"]
    bad = run(context, log, 0, label_delay=None, baseline={"roc_auc": high + 0.05}, max_drop=0.04)
    assert (bad["severity"], bad["passed"]) == ("error", False)
    assert "worse than the baseline" in bad["summary"]
    assert bad["failures"][0]["metric"] == "roc_auc"
    near = run(context, log, 0, label_delay=None, baseline={"roc_auc": high - 0.001}, max_drop=(high - value) / 2)
    assert (near["severity"], near["passed"]) == ("warning", True)
    assert "within chance" in near["summary"]
    assert run(context, log, 0, label_delay=None, thresholds={"roc_auc": 0.99})["severity"] == "error"
    assert run(context, log, 0, label_delay=None, thresholds={"brier_score_loss": {"max": 0.01}})["severity"] == "error"
    assert run(context, log, 0, label_delay=None)["severity"] == "ok"
    assert low < value


def test_slices_are_judged_with_enough_rows_and_their_values_stay_in_the_report(
    context: StepContext, log: dict[str, Any], tmp_path: Path
) -> None:
    frame = log["frame"].copy()
    frame.loc[frame["airport"] == "LGA", "p"] = 1 - frame["p"]
    frame.drop(columns="y").to_parquet(tmp_path / "log.parquet", index=False)
    report = run(context, log, 0, label_delay=None, slices=["airport"], thresholds={"roc_auc": 0.4}, min_rows=100)
    found = {one["slice"]: one for one in details_of(context, report)["windows"][0]["slices"]}
    assert found["JFK"]["severity"] == "ok"
    assert found["LGA"]["severity"] == "error"
    assert report["severity"] == "warning"
    assert "1 of 2 slices" in report["summary"]
    assert "LGA" not in json.dumps({**report, "details_uri": "", "report_uri": ""})
    few = run(context, log, 0, label_delay=None, slices=["airport"], thresholds={"roc_auc": 0.4}, min_rows=10_000)
    assert few["severity"] == "ok"
    page = context.store.get_bytes(context.store.key_of(report["report_uri"]) or "").decode()
    assert "LGA" in page


def test_bad_labels_are_counted_and_change_no_figure(context: StepContext, log: dict[str, Any], tmp_path: Path) -> None:
    truth = inside(log["frame"], 0)
    clean = run(context, log, 0, label_delay=None)
    labels = log["frame"][["id", "y"]]
    more = [
        labels,
        labels.head(20),  # the same again
        pd.DataFrame({"id": [900_001, 900_002], "y": [0, 1]}),  # rows that nobody predicted
        pd.DataFrame({"id": [None, None], "y": [1, 1]}),
        labels.head(5).assign(y=1 - labels["y"].head(5)),  # contradictions
        labels.head(7).tail(1).assign(y=None),
    ]
    pd.concat(more).sample(frac=1, random_state=0).to_parquet(tmp_path / "labels.parquet", index=False)
    report = run(context, log, 0, label_delay=None)
    counts = details_of(context, report)["windows"][0]["counts"]
    assert (counts["duplicates"], counts["contradictions"], counts["unknown_rows"]) == (20, 10, 2)
    assert (counts["without_key"], counts["without_value"]) == (2, 1)
    assert report["metrics"]["labelled"] == len(truth) - 5
    assert report["metrics"]["roc_auc"] == pytest.approx(clean["metrics"]["roc_auc"], abs=0.01)
    assert report["severity"] == "warning"
    assert "10 labels contradict" in report["summary"]


def test_labels_that_never_come_are_a_warning_and_are_looked_for_again(
    context: StepContext, log: dict[str, Any], tmp_path: Path
) -> None:
    labels = log["frame"][["id", "y", "at"]]
    labels[labels["at"] >= "2013-02-01"].to_parquet(tmp_path / "labels.parquet", index=False)
    run(context, log, 0)
    report = run(context, log, 1)
    assert (report["severity"], report["metrics"]["labelled"]) == ("warning", 0)
    assert "No label has come" in report["summary"]
    labels.to_parquet(tmp_path / "labels.parquet", index=False)
    again = run(context, log, 2)
    assert [one["window"]["end"][:10] for one in again["settled"]] == ["2013-02-01", "2013-03-01"]
    assert [one["labelled"] for one in again["settled"]] == [24 * 31, again["metrics"]["labelled"]]
    assert len(history.read(context.store, "late", kind="performance")) == 2


def test_a_month_without_data_is_said_and_the_next_one_is_measured(
    context: StepContext, log: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "log.parquet"
    asked = pd.read_parquet(file)
    asked[(asked["at"] < MONTHS[1][0]) | (asked["at"] >= MONTHS[1][1])].to_parquet(file, index=False)
    run(context, log, 0)
    silent = run(context, log, 1)
    assert [one["window"]["end"][:10] for one in silent["settled"]] == ["2013-02-01"]
    assert (silent["severity"], silent["passed"]) == ("warning", True)
    assert silent["summary"].endswith("; the window to 2013-03-01 has no predictions: look at what makes and logs them")
    mature = run(context, log, 1, label_delay=None)
    assert (mature["severity"], mature["settled"]) == ("warning", [])
    assert mature["summary"].startswith("The window to 2013-03-01 has no predictions")
    run(context, log, 2)
    report = run(context, log, 3)
    assert report["severity"] == "ok"
    assert [one["window"]["end"][:10] for one in report["settled"]] == ["2013-04-01"]
    points = history.read(context.store, "late", kind="performance")
    assert [one.window["end"][:10] for one in points] == ["2013-02-01", "2013-04-01"]


def test_only_labels_known_by_then_count_and_positives_that_come_first_mislead_nobody(
    context: StepContext, log: dict[str, Any], tmp_path: Path
) -> None:
    labels = log["frame"][["id", "y", "at"]].assign(
        known=lambda frame: frame["at"] + pd.to_timedelta(np.where(frame["y"] == 1, 1, 20), "D")
    )
    labels.drop(columns="at").to_parquet(tmp_path / "labels.parquet", index=False)
    roles = {"key": "id", "available_at": "known"}
    early = run(context, log, 0, roles=roles)
    assert early["metrics"] == {}
    report = run(context, log, 0, roles=roles, as_of="2013-03-01")
    assert report["metrics"]["labelled"] == len(inside(log["frame"], 0))


def test_a_window_run_again_is_one_point(context: StepContext, log: dict[str, Any]) -> None:
    first = run(context, log, 0, label_delay=None)
    again = run(context, log, 0, label_delay=None)
    assert again["metrics"] == first["metrics"]
    assert again["report_uri"] == first["report_uri"]
    assert len(history.read(context.store, "late", kind="performance")) == 1


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"window": None}, SpecError, "needs a window"),
    ({"target": "late"}, MissingColumnError, "'late'"),
    ({"target": None}, SpecError, "no target"),
    ({"roles": {"key": "ident"}}, MissingColumnError, "'ident'"),
    ({"slices": ["carrier"]}, MissingColumnError, r"BatchPredictOperator\(columns"),
    ({"cluster": "tail"}, MissingColumnError, "'tail'"),
    ({"max_drop": -1}, SpecError, "above 0"),
    ({"thresholds": {"roc_auc": "high"}}, SpecError, "a number or"),
    ({"metrics": ["roc_auk"]}, SpecError, "did you mean 'roc_auc'"),
    ({"label_delay": "a month"}, SpecError, "not a duration"),
    ({"baseline": 0.8}, SpecError, "baseline is"),
    ({"predictions": {"uri": "x"}}, SpecError, "'columns'"),
]


@pytest.mark.parametrize(("more", "error", "text"), BAD)
def test_bad_arguments_say_why(
    context: StepContext, log: dict[str, Any], more: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        run(context, log, 0, **{"label_delay": None, **more})
    assert not history.read(context.store, "late")


def started(tmp_path: Path, log: dict[str, Any], month: int, **environment: str) -> int:
    arguments = {name: value for name, value in log.items() if name != "frame"} | {"window": window(month)}
    spec = {"step": "monitor_performance", "args": arguments, "store": str(tmp_path / "store"), "key": "d/r/t/-1"}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "airflow_mlops.core", "--spec", "spec.json", "--report", "report.json"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **environment}, check=False, capture_output=True)
    return done.returncode


@pytest.mark.parametrize("point", CRASH_POINTS["monitor_performance"])
def test_killed_at_any_point_and_tried_again_there_is_one_point(
    tmp_path: Path, context: StepContext, log: dict[str, Any], point: str
) -> None:
    run(context, log, 0)
    assert started(tmp_path, log, 1, **{VARIABLE: point}) == -signal.SIGKILL
    assert started(tmp_path, log, 1) == 0
    store = LocalStore(tmp_path / "store")
    (settled,) = history.read(store, "late", kind="performance")
    assert settled.window["end"].startswith("2013-02-01")
    assert settled.figures["labelled"] == 24 * 31
    assert len(history.read(store, "late", kind="estimate")) == 2
