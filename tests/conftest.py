"""Fixtures that every kind of test uses."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Before anything imports Airflow: a home of its own, so that no test reads or writes the user's.
_HOME = Path(os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-mlops-tests-")))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ.setdefault("AIRFLOW__CORE__UNIT_TEST_MODE", "False")

from airflow_mlops.core.steps import StepContext  # noqa: E402
from airflow_mlops.core.store import LocalStore  # noqa: E402
from airflow_mlops.core.tracking import sqlite_uri  # noqa: E402


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store in a temporary folder."""
    return LocalStore(tmp_path / "store")


@pytest.fixture
def context(store: LocalStore, tmp_path: Path) -> StepContext:
    """The context of a step that runs in a DAG named ``flights``."""
    return StepContext(
        store=store,
        tracking_uri=sqlite_uri(tmp_path / "mlflow.db"),
        key="flights/manual__1/step/-1",
        run={"dag_id": "flights", "run_id": "manual__1", "task_id": "step", "map_index": -1},
    )
