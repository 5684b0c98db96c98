"""MonitorPerformanceOperator's shell: templates, paths, the window, the event, metrics, and when the task fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_mlops.core.monitoring import history
from airflow_mlops.core.store import LocalStore
from airflow_mlops.exceptions import MlopsFailed, MlopsGateFailed
from airflow_mlops.operators.monitoring import MonitorPerformanceOperator

ASSET = Asset("judged")
COLUMNS = {"key": "id", "time": "at", "probability": "score"}
JANUARY = {"start": "2026-01-01", "end": "2026-02-01"}
FEBRUARY = {"start": "2026-02-01", "end": "2026-03-01"}


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A task beside whose DAG lie a log of two months, in the second of which the model knows nothing, and labels."""
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    count = 24 * 59
    log = pd.DataFrame({"id": range(count), "score": rng.random(count), "plan": rng.choice(["basic", "gold"], count)})
    log["at"] = pd.date_range("2026-01-01", periods=count, freq="h", tz="UTC")
    log.to_parquet(tmp_path / "log.parquet")
    known = np.where(log["at"] < "2026-02-01", log["score"], 0.5)
    pd.DataFrame({"id": log["id"], "left": (rng.random(count) < known).astype(int)}).to_parquet(
        tmp_path / "labels.parquet"
    )
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(dag_id="churn", run_id="r", task_id="performance", map_index=-1, try_number=1)
    ti.xcom_push, ti.pushed = lambda key, value: pushed.update({key: value}), pushed
    return {
        "ti": ti,
        "dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py"), dag_id="churn"),
        "outlet_events": OutletEventAccessors(),
        "data_interval_start": pd.Timestamp("2026-01-01", tz="UTC").to_pydatetime(),
        "data_interval_end": pd.Timestamp("2026-02-01", tz="UTC").to_pydatetime(),
    }


def operator(**arguments: Any) -> MonitorPerformanceOperator:
    return MonitorPerformanceOperator(
        task_id="performance",
        **{
            "predictions": {"uri": "log.parquet", "columns": COLUMNS},
            "labels": "labels.parquet",
            "roles": {"key": "id"},
            "target": "left",
            "metrics": ["roc_auc"],
            "baseline": {"roc_auc": 0.8},
            "max_drop": 0.1,
            "subject": "churn:7",
            **arguments,
        },
    )


def test_paths_beside_the_dag_the_interval_and_the_event(context: dict[str, Any], tmp_path: Path) -> None:
    task = operator(outlet=ASSET, window="data_interval", slices=["plan"])
    assert task.outlets == [ASSET]
    report = task.execute(context)
    event = context["outlet_events"][ASSET].extra
    assert (report["kind"], report["severity"], report["version"]) == ("performance", "ok", "7")
    assert report["window"]["end"].startswith("2026-02-01")
    assert event["metrics"]["roc_auc"] == report["metrics"]["roc_auc"] > 0.75
    told = dict(event)
    # The same run again is the same event, the same page and the same point.
    assert task.execute(context)["report_uri"] == report["report_uri"]
    assert context["outlet_events"][ASSET].extra["id"] == told["id"]
    assert len(history.read(LocalStore(tmp_path / "home" / "store"), "churn", kind="performance")) == 1


def test_a_loss_is_told_and_fails_the_task_only_where_that_is_wanted(context: dict[str, Any]) -> None:
    report = operator(outlet=ASSET, window=FEBRUARY).execute(context)
    assert (report["severity"], report["passed"]) == ("error", False)
    assert context["outlet_events"][ASSET].extra["severity"] == "error"
    assert "roc_auc" in report["summary"]
    with pytest.raises(MlopsGateFailed, match="Report: "):
        operator(window=FEBRUARY, fail_on="error").execute(context)
    assert context["ti"].pushed["return_value"]["severity"] == "error"


def test_what_waits_for_labels_never_fails(context: dict[str, Any]) -> None:
    report = operator(window=FEBRUARY, label_delay="60d", outlet=ASSET, fail_on="warning").execute(context)
    assert (report["passed"], report["settled"]) == (True, [])
    assert [one["start"][:10] for one in report["pending"]] == ["2026-02-01"]
    assert context["outlet_events"][ASSET].extra["pending"] == [], "an event speaks of what was found"


def test_figures_leave_by_the_subject_and_version(context: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("airflow_mlops.operators.performance.emit_report", lambda *told: sent.append(told))
    operator(window=JANUARY).execute(context)
    ((report, subject),) = sent
    assert subject == "churn:7"
    assert report["metrics"]["roc_auc"] > 0.75


def test_what_is_templated_is_rendered() -> None:
    with DAG("d", schedule=None):
        task = operator(
            predictions={"uri": "{{ params.at }}/log.parquet", "columns": COLUMNS},
            label_delay="{{ params.delay }}",
            window={"start": "2026-01-01", "end": "{{ params.end }}"},
            baseline={"roc_auc": "{{ params.level }}"},
            fail_on="{{ params.fail_on }}",
        )
    params = {"at": "s3://lake", "delay": "28d", "end": "2026-02-01", "level": 0.8, "fail_on": "error"}
    task.render_template_fields({"params": params})
    assert task.predictions["uri"] == "s3://lake/log.parquet"
    assert (task.label_delay, task.window["end"], task.fail_on) == ("28d", "2026-02-01", "error")
    assert operator().needs_mlflow is False


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"predictions": {"uri": "x", "columns": {"keys": "id"}}}, "did you mean 'key'"),
        ({"predictions": {"uri": "x", "format": "orc", "columns": COLUMNS}}, "format must be one of"),
        ({"predictions": {"uri": "x", "columns": {"key": "id"}}}, "'prediction' or of 'probability'"),
        ({"fail_on": "loss"}, "fail_on"),
    ],
)
def test_mistakes_are_seen_when_the_dag_is_parsed(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        operator(**wrong)


def test_wrong_data_is_not_retried_and_said_in_one_line(context: dict[str, Any]) -> None:
    with pytest.raises(MlopsFailed, match="no column 'scores'"):
        operator(
            predictions={"uri": "log.parquet", "columns": {**COLUMNS, "probability": "scores"}}, window=JANUARY
        ).execute(context)
    with pytest.raises(MlopsFailed, match="data interval of any length"):
        operator(window="data_interval").execute({**context, "data_interval_start": context["data_interval_end"]})
