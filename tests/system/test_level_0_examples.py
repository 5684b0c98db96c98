"""The examples that begin at level 0 or with what others have made, run in Airflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core.tracking import sqlite_uri

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def customers(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    calls, months = rng.poisson(5, 600), rng.integers(1, 60, 600)
    frame = pd.DataFrame(
        {
            "customer_id": range(600),
            "seen_at": pd.date_range("2026-01-01", periods=600, freq="4h", tz="UTC"),
            "email": [f"c{i}@example.com" for i in range(600)],
            "calls": calls,
            "months": months,
            "churned": calls / 5 - months / 30 + rng.normal(0, 0.5, 600) > 0,
        }
    )
    frame.to_parquet(tmp_path / "customers.parquet", index=False)
    return frame


def run(airflow_test: Any, dag_id: str, **conf: Any) -> str:
    done = airflow_test.cli("dags", "test", dag_id, "2026-06-01", "--conf", json.dumps(conf))
    assert done.returncode == 0, done.stdout[-6000:]
    return str(done.stdout)


def test_a_script_and_a_notebook_train_as_they_are(airflow_test: Any, customers: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "train_script.py", airflow_test.dags)
    for name in ("scripts", "notebooks"):
        shutil.copytree(EXAMPLES / name, airflow_test.dags / name)
    data = str(tmp_path / "customers.parquet")

    script = run(airflow_test, "churn_by_script", customers=data)
    notebook = run(airflow_test, "churn_by_notebook", customers=data, C=0.1)

    assert "| fitted on 480 customers" in script
    assert "checks passed on 120 rows" in script
    assert "example.com" not in script + notebook
    uri = sqlite_uri(airflow_test.home / "mlops" / "mlflow.db")
    client = MlflowClient(uri, uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [one.info.status for one in runs] == ["FINISHED", "FINISHED"]
    (kept,) = [one for one in runs if client.list_artifacts(one.info.run_id, "notebook")]
    assert kept.data.params == {"C": "0.1"}


def test_a_model_file_is_adopted_tested_on_a_table_and_promoted(
    airflow_test: Any, customers: pd.DataFrame, postgres: Any, tmp_path: Path
) -> None:
    shutil.copy(EXAMPLES / "brownfield.py", airflow_test.dags)
    fitted = LogisticRegression().fit(customers[["calls", "months"]], customers["churned"])
    joblib.dump(fitted, tmp_path / "model.joblib")
    theirs = {"customer_id": "CUSTOMER_NO", "calls": "CALLS_30D", "months": "TENURE_MONTHS", "churned": "HAS_CHURNED"}
    engine = sa.create_engine(postgres.url)
    customers[list(theirs)].rename(columns=theirs).to_sql("customers", engine, index=False, if_exists="replace")
    engine.dispose()
    done = airflow_test.cli("connections", "add", "warehouse", "--conn-uri", postgres.airflow_uri)
    assert done.returncode == 0, done.stdout

    out = run(airflow_test, "churn_adopted", model=str(tmp_path / "model.joblib"))

    assert "checks passed on 600 rows: roc_auc 0." in out
    assert "churn@champion: version 1" in out


def test_a_log_of_predictions_is_judged_without_a_model(airflow_test: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "brownfield.py", airflow_test.dags)
    rng = np.random.default_rng(0)
    score = rng.uniform(size=900)
    log = pd.DataFrame(
        {
            "request_id": range(900),
            "score": score,
            "churned": (score + rng.normal(0, 0.2, 900) > 0.5).astype(int),
            "country": rng.choice(["SE", "NO"], 900),
        }
    )
    log.to_parquet(tmp_path / "log.parquet", index=False)

    out = run(airflow_test, "churn_log_checked", log=str(tmp_path / "log.parquet"))

    assert "checks passed on 900 rows: roc_auc 0.9" in out
    (page,) = (airflow_test.home / "mlops" / "store" / "reports").rglob("report.html")
    assert "churn:7" in page.read_text()
