"""The examples of batch scoring and monitoring, run in Airflow: predicted month by month, judged when labels come."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core.monitoring import history
from airflow_mlops.core.predictions import layout
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "monitor_churn.py"


def test_predicted_and_judged_when_the_labels_have_come(airflow_test: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, airflow_test.dags)
    home = airflow_test.home
    (home / "mlops").mkdir()
    rng = np.random.default_rng(0)
    count = 24 * 59
    customers = pd.DataFrame({"customer_id": range(count), "age": rng.normal(size=count)})
    customers["seen_at"] = pd.date_range("2026-01-01", periods=count, freq="h", tz="UTC")
    customers["household"], customers["region"] = rng.integers(0, 300, count), rng.choice(["north", "süd"], count)
    churned = (customers["age"] + 0.4 * rng.normal(size=count) > 0).astype("int64")
    customers.to_parquet(tmp_path / "customers.parquet")
    # In February the world turns round.
    labels = pd.DataFrame({"customer_id": customers["customer_id"], "churned": churned})
    labels.loc[customers["seen_at"] >= "2026-02-01", "churned"] = 1 - churned
    labels.to_parquet(tmp_path / "labels.parquet")
    uri = sqlite_uri(home / "mlops" / "mlflow.db")
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    api = mlflow.MlflowClient(uri)
    api.create_experiment("theirs", artifact_location=(home / "theirs").as_uri())
    mlflow.set_experiment("theirs")
    info = mlflow.sklearn.log_model(
        LogisticRegression().fit(customers[["age"]], churned),
        name="model",
        registered_model_name="churn",
        pip_requirements=["scikit-learn"],
        signature=infer_signature(customers[["age"]], churned),
    )
    api.set_registered_model_alias("churn", "champion", str(info.registered_model_version))

    paths = {"customers": str(tmp_path / "customers.parquet"), "labels": str(tmp_path / "labels.parquet")}
    months = [("2026-01-01", "2026-02-01"), ("2026-02-01", "2026-03-01"), ("2026-03-01", "2026-04-01")]
    for number, (start, end) in enumerate(months):
        conf = json.dumps({**paths, "start": start, "end": end})
        if number < 2:
            done = airflow_test.cli("dags", "test", "churn_predicted", end, "--conf", conf)
            assert done.returncode == 0, done.stdout[-5000:]
        done = airflow_test.cli("dags", "test", "churn_monitored", end, "--conf", conf)
        assert done.returncode == 0, done.stdout[-5000:]
        assert "süd" not in done.stdout
    store = LocalStore(home / "mlops" / "store")
    assert layout.read(store, "churn").num_rows == count
    first, second = history.read(store, "churn", kind="performance")
    assert (first.version, first.severity, second.severity) == ("1", "ok", "error")
    assert second.figures["roc_auc"] < 0.3
    shown = airflow_test.cli("mlops", "history", "churn", "--metric", "roc_auc", "--output", "json")
    assert [row["severity"] for row in json.loads(shown.stdout[shown.stdout.index("[{") :])] == ["ok", "error"]
