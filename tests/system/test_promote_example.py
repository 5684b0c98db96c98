"""The example of the docs, run in Airflow: a model from elsewhere becomes champion, a worse one does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import client, experiment_id, sqlite_uri

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "promote_model.py"


@pytest.fixture
def customers(tmp_path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(400, 2)), columns=["age", "income"])
    frame["churned"] = (frame["age"] + 0.3 * rng.normal(size=400) > 0).astype("int64")
    frame.to_parquet(tmp_path / "customers.parquet", index=False)
    return frame


def trained_elsewhere(context: StepContext, frame: pd.DataFrame, target: pd.Series) -> str:
    """Log a model with plain MLflow, as somebody else's script would."""
    features = frame[["age", "income"]]
    experiment = experiment_id(client(context, "the test"), context, "elsewhere")
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.sklearn.log_model(
            LogisticRegression().fit(features, target),
            name="model",
            signature=mlflow.models.infer_signature(features, target),
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
    return f"runs:/{run.info.run_id}/model"


def test_the_better_model_serves(airflow_test: Any, customers: pd.DataFrame, migrated_database: Path, tmp_path: Path):
    shutil.copy(EXAMPLE, airflow_test.dags)
    home = airflow_test.home / "mlops"
    home.mkdir()
    shutil.copy(migrated_database, home / "mlflow.db")
    context = StepContext(store=LocalStore(home / "store"), tracking_uri=sqlite_uri(home / "mlflow.db"))
    good = trained_elsewhere(context, customers, customers["churned"])
    shuffled = customers["churned"].sample(frac=1, random_state=1).reset_index(drop=True)
    bad = trained_elsewhere(context, customers, shuffled)

    def release(model: str, *date: str) -> Any:
        conf = {"model": model, "customers": str(tmp_path / "customers.parquet")}
        return airflow_test.cli("dags", "test", "churn_released", *date, "--conf", json.dumps(conf))

    first, second = release(good), release(bad, "2026-01-02")

    assert first.returncode == 0, first.stdout[-3000:]
    assert "churn@champion: version 1, before none (entry 1)" in first.stdout
    assert second.returncode != 0
    # What a person sees afterwards, and what it takes to promote the bad one by hand.
    (row,) = json.loads(airflow_test.cli("mlops", "history", "churn", "--output", "json").stdout.splitlines()[-1])
    assert (row["version"], row["evidence"]) == (1, "model_test passed")
    assert row["reason"].endswith("passed")
    (row,) = json.loads(airflow_test.cli("mlops", "status", "--output", "json").stdout.splitlines()[-1])
    assert (row["alias"], row["version"], row["latest_version"], row["state"]) == ("champion", 1, 1, "ok")
    again = airflow_test.cli("mlops", "promote", "churn", "1", "--reason", "once more")
    assert again.returncode == 1
    assert "ConflictError: 'champion' of 'churn' is version 1 already since entry 1" in again.stdout
    assert "Traceback" not in again.stdout
