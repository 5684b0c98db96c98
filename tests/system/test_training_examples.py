"""The examples of the docs, run in Airflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from airflow_mlops.core.tracking import sqlite_uri

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def customers(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    calls, months = rng.poisson(5, 600), rng.integers(1, 60, 600)
    pd.DataFrame(
        {
            "customer_id": range(600),
            "household": rng.integers(0, 200, 600),
            "seen_at": pd.date_range("2026-01-01", periods=600, freq="4h", tz="UTC"),
            "email": [f"c{i}@example.com" for i in range(600)],
            "calls": calls,
            "months": months,
            "churned": calls / months + rng.normal(0, 0.3, 600) > 0.4,
        }
    ).to_parquet(tmp_path / "customers.parquet", index=False)
    return tmp_path / "customers.parquet"


def run(airflow_test: Any, dag_id: str, customers: Path, **params: Any) -> str:
    conf = json.dumps({"customers": str(customers), **params})
    done = airflow_test.cli("dags", "test", dag_id, "2026-06-01", "--conf", conf)
    assert done.returncode == 0, done.stdout[-4000:]
    return str(done.stdout)


def models_of(airflow_test: Any) -> list[Any]:
    uri = sqlite_uri(airflow_test.home / "mlops" / "mlflow.db")
    client = MlflowClient(uri, uri)
    return list(client.search_logged_models([e.experiment_id for e in client.search_experiments()]))


def test_a_module_beside_the_dag(airflow_test: Any, customers: Path) -> None:
    for name in ("train_model.py", "churn_model.py"):
        shutil.copy(EXAMPLES / name, airflow_test.dags)

    first = run(airflow_test, "churn_trained", customers)
    (model,) = models_of(airflow_test)
    assert "Fitting churn_model:train" in first
    assert f"models:/{model.model_id} has AUC 0." in first
    assert model.params == {"C": "1.0"}
    assert "example.com" not in first


def test_the_decorator_mapped_over_a_hyperparameter(airflow_test: Any, customers: Path) -> None:
    shutil.copy(EXAMPLES / "train_decorator.py", airflow_test.dags)

    run(airflow_test, "churn_compared", customers)

    models = models_of(airflow_test)
    assert sorted(model.params["max_depth"] for model in models) == ["2", "4"]
    for model in models:
        assert model.tags["mlops.trainer"] == "train_decorator:forest"
        assert {metric.key for metric in model.metrics} >= {"roc_auc", "log_loss", "train_roc_auc"}
