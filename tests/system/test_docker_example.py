"""The example of docs/runtimes/docker.md, run in Airflow with a real engine."""

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
from servers.docker import Engine

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def customers(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    calls, months = rng.poisson(5, 300), rng.integers(1, 60, 300)
    pd.DataFrame(
        {
            "customer_id": range(300),
            "household": rng.integers(0, 100, 300),
            "seen_at": pd.date_range("2026-01-01", periods=300, freq="4h", tz="UTC"),
            "email": [f"c{i}@example.com" for i in range(300)],
            "calls": calls,
            "months": months,
            "churned": calls / months + rng.normal(0, 0.3, 300) > 0.4,
        }
    ).to_parquet(tmp_path / "customers.parquet", index=False)
    return tmp_path / "customers.parquet"


@pytest.fixture
def airflow(airflow_test: Any, docker_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An Airflow that uses the tests' engine and has the example."""
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)
    for name in ("train_in_container.py", "churn_model.py"):
        shutil.copy(EXAMPLES / name, airflow_test.dags)
    warehouse = {"conn_type": "postgres", "host": "db", "login": "bot", "password": "hush-hush-1"}
    airflow_test.connections["warehouse"] = json.dumps(warehouse)
    return airflow_test


def run(airflow: Any, customers: Path, image: str) -> Any:
    conf = json.dumps({"customers": str(customers), "image": image})
    return airflow.cli("dags", "test", "churn_in_container", "2026-06-01", "--conf", conf)


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_model_is_trained_in_a_container(
    airflow: Any, customers: Path, ml_image: str, docker_engine: Engine, deferrable: bool
) -> None:
    dag = airflow.dags / "train_in_container.py"
    dag.write_text(dag.read_text().replace("deferrable=True", f"deferrable={deferrable}"))
    trainer = airflow.dags / "churn_model.py"
    tells = "import os\n    print('the warehouse is', os.environ['WAREHOUSE_DSN'])\n    return make_pipeline"
    trainer.write_text(trainer.read_text().replace("return make_pipeline", tells))

    done = run(airflow, customers, ml_image)

    assert done.returncode == 0, done.stdout[-6000:]
    uri = sqlite_uri(airflow.home / "mlops" / "mlflow.db")
    client = MlflowClient(uri, uri)
    (model,) = client.search_logged_models([e.experiment_id for e in client.search_experiments()])
    assert f"Logged model models:/{model.model_id}" in done.stdout
    assert done.stdout.count("Fitting churn_model:train") == 1
    assert "the warehouse is postgres" in done.stdout
    assert "hush-hush" not in done.stdout
    assert docker_engine.containers("airflow_mlops.dag=churn_in_container") == []


def test_what_the_image_lacks_is_named_in_the_log(
    airflow: Any, customers: Path, base_image: str, docker_engine: Engine
) -> None:
    done = run(airflow, customers, base_image)
    assert f"the image '{base_image}' lacks a library" in done.stdout
    assert "run: pip install" in done.stdout
    assert docker_engine.containers("airflow_mlops.dag=churn_in_container") == []


def test_a_task_timeout_leaves_no_container(
    airflow: Any, customers: Path, ml_image: str, docker_engine: Engine
) -> None:
    dag = airflow.dags / "train_in_container.py"
    late = "deferrable=False, execution_timeout=__import__('datetime').timedelta(seconds=15)"
    dag.write_text(dag.read_text().replace("deferrable=True", late))
    trainer = airflow.dags / "churn_model.py"
    slow = "import time; print('asleep', flush=True); time.sleep(300)\n    return make_pipeline"
    trainer.write_text(trainer.read_text().replace("return make_pipeline", slow))

    done = run(airflow, customers, ml_image)

    assert "asleep" in done.stdout
    assert "Timeout" in done.stdout
    assert docker_engine.containers("airflow_mlops.dag=churn_in_container") == []
