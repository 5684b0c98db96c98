"""The example of the page on retraining decisions, on events in Airflow's database."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "decide_retraining.py"
MONITOR = """
from airflow.sdk import DAG, Asset, Metadata, task

with DAG("monitor", schedule=None):
    @task(outlets=[Asset("churn_performance")])
    def measure(week):
        yield Metadata(Asset("churn_performance"), {
            "kind": "performance", "passed": False, "metrics": {"roc_auc": 0.7}, "baseline": {"roc_auc": 0.8},
            "window": {"start": f"2026-01-{week:02}", "end": f"2026-01-{week + 7:02}"},
        })

    measure.expand(week=[1, 8])
"""


def test_two_bad_weeks_train_again_and_the_next_run_waits(airflow_test: Any) -> None:
    shutil.copy(EXAMPLE, airflow_test.dags)
    (airflow_test.dags / "monitor.py").write_text(MONITOR)
    for dag in ("monitor", "churn_retraining", "churn_retraining"):
        run = airflow_test.cli("dags", "test", dag)
        assert run.returncode == 0, run.stdout[-3000:]
    with contextlib.closing(sqlite3.connect(airflow_test.home / "airflow.db")) as database:
        states = database.execute(
            "select task_id, state from task_instance where dag_id = 'churn_retraining' order by start_date, task_id"
        ).fetchall()
    assert sorted(states) == [
        *(("decide", "success"), ("decide", "success")),
        *(("tell", "skipped"), ("tell", "skipped")),
        *(("train", "skipped"), ("train", "success")),
    ]
    first, second = [
        json.loads(path.read_text())["decision"] for path in sorted(airflow_test.home.rglob("retraining/churn/*.json"))
    ]
    assert first["reason"].startswith("Retrain, because performance was too low in 2 of the last 2 windows")
    assert (second["action"], second["signals"]) == ("wait", {"counted": 0, "duplicates": 2})
