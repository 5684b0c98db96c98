"""The README's own DAG, as it stands there, on a user's CSV files and trainer."""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[2] / "README.md"

TRAINER = """
from sklearn.linear_model import LogisticRegression


def fit(X, y):
    return LogisticRegression().fit(X, y)
"""


def _customers(folder: Path, files: int = 2, rows: int = 400) -> None:
    """Write customers whose churn depends on their calls and tenure."""
    rng = random.Random(7)
    folder.mkdir()
    for file in range(files):
        with open(folder / f"part-{file}.csv", "w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["customer", "calls", "tenure", "churned"])
            for row in range(rows):
                calls, tenure = rng.randint(0, 9), rng.randint(1, 60)
                churned = int(calls / 9 - tenure / 60 + rng.gauss(0, 0.3) > 0)
                writer.writerow([f"c{file}-{row}", calls, tenure, churned])


def test_the_readme_dag_runs_as_it_stands_and_its_model_is_released_by_hand(airflow_test: Any) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.S | re.M)
    (dag,) = [block for block in blocks if "with DAG(" in block]
    assert len(dag.strip().splitlines()) <= 22, "the README promises twenty lines"
    (airflow_test.dags / "churn_dag.py").write_text(dag)
    (airflow_test.dags / "churn_project.py").write_text(TRAINER)
    _customers(airflow_test.dags / "churn")

    run = airflow_test.cli("dags", "test", "churn")
    assert run.returncode == 0, run.stdout[-4000:]
    released = airflow_test.cli("mlops", "promote", "churn", "1", "--reason", "the README says so")
    assert released.returncode == 0, released.stdout
    history = airflow_test.cli("mlops", "history", "churn")
    assert history.returncode == 0, history.stdout
    assert "the README says so" in history.stdout

    again = airflow_test.cli("dags", "test", "churn")
    assert again.returncode == 0, again.stdout[-4000:]
    status = airflow_test.cli("mlops", "status", "churn")
    assert status.returncode == 0, status.stdout
