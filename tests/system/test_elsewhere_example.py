"""The example of docs/runtimes, run in Airflow with an interpreter that has no Airflow."""

from __future__ import annotations

import contextlib
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


@pytest.fixture
def airflow(airflow_test: Any) -> Any:
    """An Airflow that has the example."""
    for name in ("train_elsewhere.py", "churn_model.py"):
        shutil.copy(EXAMPLES / name, airflow_test.dags)
    return airflow_test


def run(airflow: Any, customers: Path, python: Path) -> Any:
    conf = json.dumps({"customers": str(customers), "python": str(python)})
    return airflow.cli("dags", "test", "churn_elsewhere", "2026-06-01", "--conf", conf)


def test_models_are_trained_and_tested_in_another_interpreter(
    airflow: Any, customers: Path, plain_python: Path
) -> None:
    module = airflow.dags / "churn_model.py"
    tells = "import importlib.util, sys\n    print('trained by', sys.prefix, importlib.util.find_spec('airflow'))\n"
    module.write_text(module.read_text().replace("    return make_pipeline", f"    {tells}    return make_pipeline"))

    done = run(airflow, customers, plain_python.parents[1])

    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.count(f"The step runs in {plain_python}") == 4
    assert f"trained by {plain_python.parents[1]} None" in done.stdout
    assert "growing a forest on 480 rows" in done.stdout
    uri = sqlite_uri(airflow.home / "mlops" / "mlflow.db")
    client = MlflowClient(uri, uri)
    models = client.search_logged_models([one.experiment_id for one in client.search_experiments()])
    trainers = {model.tags["mlops.trainer"] for model in models}
    assert trainers == {"churn_model:train", "train_elsewhere:forest"}
    assert "example.com" not in done.stdout


def test_when_the_tasks_time_is_up_nothing_of_it_is_left(
    airflow: Any, customers: Path, plain_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    dag = airflow.dags / "train_elsewhere.py"
    text = dag.read_text().partition("    EvaluateModelOperator(")[0]
    dag.write_text(text.replace("=RUNTIME,", "=RUNTIME, execution_timeout=dt.timedelta(seconds=20),"))
    module = airflow.dags / "churn_model.py"
    module.write_text(f"{module.read_text()}\nimport time\ntime.sleep(600)\n")

    done = run(airflow, customers, plain_python)

    assert f"The step runs in {plain_python}" in done.stdout
    assert "AirflowTaskTimeout" in done.stdout
    assert list(scratch.glob("mlops-step-*")) == []
    assert not [line for line in command_lines() if str(scratch) in line]


def command_lines() -> list[str]:
    """Return those of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found.append(path.read_bytes().decode(errors="replace"))
    return found
