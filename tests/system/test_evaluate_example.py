"""The example of the docs, run in Airflow, on a model of another team."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core.tracking import sqlite_uri

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "evaluate_model.py"


def register(home: Path, customers: pd.DataFrame, columns: list[str], alias: str) -> None:
    uri = sqlite_uri(home / "mlops" / "mlflow.db")
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    api = mlflow.MlflowClient(uri)
    with contextlib.suppress(mlflow.exceptions.MlflowException):
        api.create_experiment("theirs", artifact_location=(home / "theirs").as_uri())
    mlflow.set_experiment("theirs")
    fitted = LogisticRegression().fit(customers[columns], customers["churned"])
    info = mlflow.sklearn.log_model(
        fitted,
        name="model",
        registered_model_name="churn",
        pip_requirements=["scikit-learn"],
        signature=infer_signature(customers[columns], customers["churned"]),
        input_example=customers[columns].head(2),
    )
    api.set_registered_model_alias("churn", alias, str(info.registered_model_version))


def test_a_foreign_model_passes_or_stops_the_dag(airflow_test: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, airflow_test.dags)
    (airflow_test.home / "mlops").mkdir()
    rng = np.random.default_rng(0)
    customers = pd.DataFrame(rng.normal(size=(800, 2)), columns=["age", "income"])
    customers["customer_id"] = np.arange(800)
    customers["sex"] = rng.choice(["weiblich", "männlich"], size=800)
    customers["churned"] = (customers["age"] + 0.4 * rng.normal(size=800) > 0).astype("int64")
    customers.to_parquet(tmp_path / "customers.parquet")
    register(airflow_test.home, customers, ["age", "income"], "candidate")

    conf = {"customers": str(tmp_path / "customers.parquet")}
    good = airflow_test.cli("dags", "test", "churn_tested", "--conf", json.dumps(conf))
    assert good.returncode == 0, good.stdout[-5000:]
    assert "no champion yet" in good.stdout
    register(airflow_test.home, customers, ["age"], "champion")
    strict = airflow_test.cli(
        "dags", "test", "churn_tested", "2026-01-12", "--conf", json.dumps(conf | {"min_auc": 0.9999})
    )
    assert strict.returncode != 0
    assert "must be ≥ 0.9999" in strict.stdout
    assert "(version 2)" in strict.stdout
    assert "weiblich" not in good.stdout + strict.stdout
    assert len(list((airflow_test.home / "mlops" / "store" / "reports").rglob("report.html"))) == 2
