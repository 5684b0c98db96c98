"""A snapshot in a DAG: relative sources, windows, and the asset event with the ref in Airflow's database."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

DAG = """
from airflow.sdk import DAG, Asset, task
from airflow_mlops.operators.data import SnapshotDataOperator

with DAG("snap", schedule=None):
    @task
    def months():
        return ["landing/1.csv", "landing/2.csv"]

    SnapshotDataOperator(
        task_id="snapshot",
        source=months(),
        name="flights",
        roles={"time": "at", "target": "late"},
        window={"start": "{{ dag_run.conf['start'] }}", "end": "{{ dag_run.conf['end'] }}"},
        outlet=Asset("flights_snapshot"),
        outlets=[Asset("other")],
    )
"""


def rows(airflow_test: Any, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(airflow_test.home / "airflow.db") as database:
        return database.execute(query).fetchall()


def test_the_asset_event_carries_the_ref_and_a_failed_snapshot_emits_none(airflow_test: Any) -> None:
    (airflow_test.dags / "snap.py").write_text(DAG)
    landing = airflow_test.dags / "landing"
    landing.mkdir()
    for month in (1, 2):
        lines = [f"2013-0{month}-{day:02} 06:00,{day % 2}" for day in range(1, 29)]
        (landing / f"{month}.csv").write_text("at,late\n" + "\n".join(lines) + "\n")

    run = airflow_test.cli("dags", "test", "snap", "--conf", '{"start": "2013-01-27", "end": "2013-02-03"}')
    assert run.returncode == 0, run.stdout[-3000:]
    query = "select a.name, e.extra from asset_event e join asset a on a.id = e.asset_id order by a.name"
    (snapshot, extra), (other, none) = rows(airflow_test, query)
    assert (snapshot, other, json.loads(none)) == ("flights_snapshot", "other", {})
    event = json.loads(extra)
    assert event["window"] == {"start": "2013-01-27T00:00:00+00:00", "end": "2013-02-03T00:00:00+00:00"}
    assert event["dataset"]["name"] == "flights"
    assert event["dataset"]["rows"] == 4
    assert event["dataset"]["roles"] == {"time": "at", "target": "late"}
    (pushed,) = rows(airflow_test, "select value from xcom where task_id = 'snapshot' and key = 'return_value'")
    assert event["dataset"]["digest"] in str(pushed[0])
    assert "2013-01-27 06:00" not in run.stdout, "no data values in the log"

    failed = airflow_test.cli("dags", "test", "snap", "--conf", '{"start": "2014-01-27", "end": "2014-02-03"}')
    assert "EmptyDataError" in failed.stdout
    assert len(rows(airflow_test, query)) == 2
