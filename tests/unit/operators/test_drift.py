"""DetectDriftOperator in a task's context."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import Asset
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_mlops.exceptions import MlopsFailed, MlopsGateFailed
from airflow_mlops.operators.monitoring import DetectDriftOperator

ASSET = Asset("watched")
RANDOM = np.random.default_rng(2)


class TaskInstance(SimpleNamespace):
    """As much of a task instance as an operator sees."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "home"))
    day = pd.date_range("2026-01-01", periods=400, freq="h")
    before = pd.DataFrame({"at": day, "x": RANDOM.normal(size=400), "y": RANDOM.normal(size=400)})
    before.to_parquet(tmp_path / "before.parquet")
    before.assign(x=before.x + 9, y=before.y + 9).to_parquet(tmp_path / "now.parquet")
    ti = TaskInstance(dag_id="etl", run_id="r1", task_id="drift", map_index=-1, try_number=1, pushed={})
    return {
        "ti": ti,
        "dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py"), dag_id="etl"),
        "outlet_events": OutletEventAccessors(),
        "data_interval_start": pd.Timestamp("2026-01-03", tz="UTC").to_pydatetime(),
        "data_interval_end": pd.Timestamp("2026-01-10", tz="UTC").to_pydatetime(),
    }


def operator(**kwargs: Any) -> DetectDriftOperator:
    return DetectDriftOperator(
        task_id="drift", **{"current": "now.parquet", "reference": "before.parquet", "roles": {"time": "at"}, **kwargs}
    )


def test_drift_publishes_its_verdict_and_does_not_fail(context: Any) -> None:
    report = operator(outlet=ASSET, subject="churn:7", window="data_interval").execute(context)

    extra = context["outlet_events"][ASSET].extra
    assert (report["passed"], report["severity"]) == (False, "warning")
    assert extra["report"]["kind"] == "drift"
    assert extra["report"]["subject"] == "churn:7"
    assert extra["window"] == report["window"]
    assert report["metrics"]["current_rows"] == 168
    again = operator(outlet=ASSET, subject="churn:7", window="data_interval").execute(context)
    assert context["outlet_events"][ASSET].extra["id"] == extra["id"]
    assert again["report_uri"] == report["report_uri"]


def test_it_can_fail_where_that_is_wanted(context: Any) -> None:
    with pytest.raises(MlopsGateFailed, match="has drifted"):
        operator(fail_on="warning").execute(context)
    assert context["ti"].pushed["return_value"]["kind"] == "drift"
    assert operator(fail_on="error").execute(context)["severity"] == "warning"
    with pytest.raises(MlopsGateFailed):
        operator(fail_on="error", predictions="x").execute(context)


def test_two_datasets_need_no_registry(context: Any) -> None:
    assert operator().needs_mlflow is False
    assert operator(reference="churn@champion").needs_mlflow is True
    assert operator(reference=["before.parquet", "churn@champion"]).needs_mlflow is True


def test_wrong_data_is_not_retried(context: Any) -> None:
    with pytest.raises(MlopsFailed, match=r"did you mean 'before\.parquet'"):
        operator(reference="befor.parquet").execute(context)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"method": "psy"}, "did you mean 'psi'"),
        ({"columns": {"x": {"test": "nope"}}}, "no drift test"),
        ({"drift_share": 2}, "drift_share"),
        ({"combine": "some"}, "combine"),
        ({"report": "sometimes"}, "report"),
        ({"roles": {"times": "at"}}, "did you mean 'time'"),
        ({"window": {"end": "2026-01-01"}}, "window"),
        ({"fail_on": "drift"}, "fail_on"),
    ],
)
def test_mistakes_are_seen_when_the_dag_is_parsed(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        operator(**wrong)


def test_what_no_history_can_give_is_refused_in_the_constructor() -> None:
    for asked in ({"thresholds": "learn"}, {"by": "x"}, {"importance": {"x": -1}}):
        with pytest.raises(ValueError, match=r"history|at least 0"):
            operator(reference={"history": 4}, subject="s", **asked)
