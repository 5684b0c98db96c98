"""BatchPredictOperator's shell: paths, windows, the event, and what leaves as metrics."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from airflow.sdk import Asset
from airflow.sdk.execution_time.context import OutletEventAccessors
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core.predictions import layout
from airflow_mlops.core.store import open_store
from airflow_mlops.exceptions import MlopsFailed
from airflow_mlops.hooks.store import StoreHook
from airflow_mlops.operators.serving import BatchPredictOperator


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A model folder that nobody knows, and rows beside the DAG."""
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "mlops"))
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["age", "income"])
    frame["id"] = range(50)
    frame.to_parquet(tmp_path / "customers.parquet")
    fitted = LogisticRegression().fit(frame[["age", "income"]], frame["age"] > 0)
    mlflow.sklearn.save_model(
        fitted,
        tmp_path / "model",
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
        signature=mlflow.models.infer_signature(frame[["age", "income"]]),
    )
    return {"model": "model", "dataset": "customers.parquet", "key": "id", "log_name": "churn", "trust": "unverified"}


@pytest.fixture
def task_context(tmp_path: Path) -> dict[str, Any]:
    """What a task is given, as far as the operator reads it."""
    ti = SimpleNamespace(
        dag_id="churn",
        run_id="r",
        task_id="t",
        map_index=-1,
        try_number=1,
        bundle_instance=SimpleNamespace(path=tmp_path),
    )
    dag = SimpleNamespace(fileloc=str(tmp_path / "dag.py"))
    return {"ti": ti, "dag": dag, "dag_run": None, "outlet_events": OutletEventAccessors(), "partition_key": "2013-03"}


def test_relative_paths_the_partition_and_the_event(scored: dict[str, Any], task_context: dict[str, Any]) -> None:
    asset = Asset("churn_predictions")
    task = BatchPredictOperator(task_id="t", outlet=asset, **scored)
    assert task.outlets == [asset]
    result = task.execute(task_context)
    window = {"start": "2013-03-01T00:00:00+00:00", "end": "2013-04-01T00:00:00+00:00"}
    assert (result["kind"], result["rows"], result["window"]) == ("dataset", 50, window)
    event = task_context["outlet_events"][asset].extra
    assert event["window"] == window
    assert event["dataset"]["digest"] == result["digest"]
    table = layout.read(open_store(StoreHook(None).uri), "churn", window=window)
    assert table.num_rows == 50
    assert task.execute(task_context)["digest"] == result["digest"]
    assert task_context["outlet_events"][asset].extra == event


def test_mistakes_are_found_before_or_said_in_one_line(scored: dict[str, Any], task_context: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="batch_rows"):
        BatchPredictOperator(task_id="t", batch_rows=0, **scored)
    with pytest.raises(ValueError, match="trust"):
        BatchPredictOperator(task_id="t", **{**scored, "trust": "yes"})
    task = BatchPredictOperator(task_id="t", **{**scored, "key": "customer"})
    with pytest.raises(MlopsFailed, match=r"MissingColumnError: .*'customer'"):
        task.execute(task_context)
