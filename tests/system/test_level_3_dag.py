"""The reference DAG of level 3, month after month by ``airflow dags test``, on what level 1 released."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def test_the_file_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "dags" / "mlops_level_3.py").read_text().splitlines()) < 150


def test_months_are_scored_watched_and_measured_once_their_labels_have_come(airflow_test: Any) -> None:
    for level in (1, 3):
        shutil.copy(ROOT / "dags" / f"mlops_level_{level}.py", airflow_test.dags)
    shutil.copytree(ROOT / "dags" / "flights", airflow_test.dags / "flights")

    def run(dag: str, start: str, end: str, **conf: Any) -> None:
        done = airflow_test.cli("dags", "test", dag, "--conf", json.dumps({"start": start, "end": end, **conf}))
        assert done.returncode == 0, done.stdout[-4000:]

    def history(series: str) -> list[dict[str, Any]]:
        done = airflow_test.cli("mlops", "history", "flights_late", "--series", series, "--output", "json")
        assert done.returncode == 0, done.stdout
        found: list[dict[str, Any]] = json.loads(done.stdout[done.stdout.index("[") : done.stdout.rindex("]") + 1])
        return found

    run("mlops_level_1", "2013-01-01", "2013-03-01", max_iter=20)
    promoted = airflow_test.cli("mlops", "promote", "flights_late", "1", "--reason", "first")
    assert promoted.returncode == 0, promoted.stdout
    run("mlops_level_3", "2013-03-01", "2013-04-01")
    assert [point["severity"] for point in history("drift")] in (["ok"], ["warning"])
    none = airflow_test.cli("mlops", "history", "flights_late", "--series", "performance")
    assert "has no history of 'performance'" in none.stdout  # March's labels are not there yet
    run("mlops_level_3", "2013-04-01", "2013-05-01")
    (march,) = history("performance")
    assert march["start"].startswith("2013-03-01")
    assert 0.6 < march["figures"]["roc_auc"] < 0.75
    # The month again: its points are the same ones, its predictions are not doubled.
    run("mlops_level_3", "2013-04-01", "2013-05-01")
    assert [point["start"][:7] for point in history("drift")] == ["2013-03", "2013-04"]
    assert [point["start"][:7] for point in history("performance")] == ["2013-03"]
    incidents = airflow_test.cli("mlops", "status", "flights_late", "--output", "json")
    assert "flights_late" in incidents.stdout
