"""SIGKILL at every crash point of a drift check and of binding a reference, then again: the state of one clean run."""

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

from airflow_mlops.core.drift.binding import champion_profile
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.monitoring import history
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.steps import StepContext, run_step
from airflow_mlops.core.store import LocalStore


@pytest.mark.parametrize("point", CRASH_POINTS["detect_drift"])
def test_killed_and_run_again_it_is_as_one_run(tmp_path: Path, point: str) -> None:
    day = pd.date_range("2026-01-01", periods=200, freq="h")
    pd.DataFrame({"at": day, "x": np.arange(200.0)}).to_parquet(tmp_path / "data.parquet")
    spec = {
        "step": "detect_drift",
        "args": {
            "current": str(tmp_path / "data.parquet"),
            "reference": {"history": 4},
            "subject": "orders",
            "roles": {"time": "at"},
            "window": {"start": "2026-01-02", "end": "2026-01-05"},
        },
        "store": str(tmp_path / "store"),
        "key": "etl/r1/drift/-1",
        "run": {"dag_id": "etl", "run_id": "r1", "task_id": "drift", "map_index": -1},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "airflow_mlops.core", "--spec", "spec.json", "--report", "report.json"]

    killed = subprocess.run(command, cwd=tmp_path, env={**os.environ, VARIABLE: point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    subprocess.run(command, cwd=tmp_path, check=True)

    store = LocalStore(tmp_path / "store")
    assert len([key for key in store.keys("reports") if key.endswith("report.html")]) == 1
    assert len(list(store.keys("drift"))) == 1
    assert len(history.read(store, "orders", kind="drift")) == 1
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is True
    assert list((tmp_path / "store" / ".staging").glob("*")) == []


@pytest.mark.parametrize("point", CRASH_POINTS["bind_reference"])
def test_a_promotion_killed_while_it_binds_its_reference_is_as_one_run(
    point: str, mlflow_context: StepContext, log_model: Any, tmp_path: Path
) -> None:
    """The alias has not moved yet, so nothing serves without a reference; the retry binds the same profile."""
    pd.DataFrame({"x": np.arange(200.0)}).to_parquet(tmp_path / "data.parquet")
    register_model(mlflow_context, model=log_model(), model_name="churn")
    spec = {
        "step": "promote_model",
        "args": {"model": "churn/1", "reference": str(tmp_path / "data.parquet"), "evidence": []},
        "store": mlflow_context.store.uri,
        "tracking_uri": mlflow_context.tracking_uri,
        "key": "flights/r1/promote/-1",
        "run": {"dag_id": "flights", "run_id": "r1", "task_id": "promote", "map_index": -1},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "airflow_mlops.core", "--spec", "spec.json", "--report", "report.json"]
    killed = subprocess.run(command, cwd=tmp_path, env={**os.environ, VARIABLE: point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert RegisteredModel(mlflow_context, "churn").alias("champion") is None

    assert run_step(spec)["version"] == 1

    store = mlflow_context.store
    assert list(store.keys("references")) == ["references/churn/1.json"]
    (profile,) = store.keys("profiles")
    assert store.get_json("references/churn/1.json")["profile_uri"] == store.uri_of(profile)
    version, bound, _ = champion_profile(mlflow_context, "churn", "champion")
    assert (version, bound.rows) == (1, 200)
