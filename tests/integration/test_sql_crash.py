"""Steps that read a database, killed by SIGKILL, and run again: the state of one clean run, and no session left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE

TABLE = """
create schema if not exists crash;
drop table if exists crash.orders;
create table crash.orders as select i as id, i * 1.5 as total, 'n' || i as note from generate_series(1, 300000) i
"""


@pytest.fixture(scope="module")
def database(postgres: Any) -> Any:
    postgres.execute(TABLE)
    return postgres


def start(folder: Path, database: Any, store: str, step: str, args: dict[str, Any], **more: str) -> Any:
    spec = folder / f"{store}.json"
    run = {"dag_id": "etl", "run_id": "r1", "task_id": "t", "map_index": -1}
    spec.write_text(
        json.dumps({"step": step, "args": args, "store": str(folder / store), "key": "etl/r1/t/-1", "run": run})
    )
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_mlops.core", "--spec", spec, "--report", folder / f"{store}-report.json"],
        env={**os.environ, "MLOPS_SQL_URL": database.url, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def objects(store: Path) -> set[str]:
    return {str(p.relative_to(store)) for p in store.rglob("*") if p.is_file() and ".staging" not in p.parts}


def sessions(database: Any) -> int:
    """Count the others' connections; Postgres cleans up with sessions of its own."""
    (row,) = database.execute(
        "select count(*) from pg_stat_activity"
        " where datname = 'warehouse' and backend_type = 'client backend' and pid <> pg_backend_pid()"
    )
    return int(row[0])


SNAPSHOT = ("snapshot_data", {"sql": "select * from crash.orders", "order_by": "id"})
VALIDATE = (
    "validate_data",
    {
        "table": "crash.orders",
        "expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "id"}}],
    },
)


@pytest.mark.parametrize(
    ("step", "args", "point"),
    [
        *((*SNAPSHOT, point) for point in CRASH_POINTS["snapshot_data"]),
        *((*VALIDATE, point) for point in ("validate.measured", "report.details_written")),
    ],
)
def test_killed_and_run_again(tmp_path: Path, database: Any, step: str, args: dict[str, Any], point: str) -> None:
    killed = start(tmp_path, database, "store", step, args, **{VARIABLE: point})
    assert killed.wait(120) == -signal.SIGKILL
    for store in ("store", "clean"):
        done = start(tmp_path, database, store, step, args)
        assert done.wait(120) == 0, done.stdout.read()
    assert objects(tmp_path / "store") == objects(tmp_path / "clean")
    assert sessions(database) == 0


def test_killed_while_rows_come_in(tmp_path: Path, database: Any) -> None:
    step, args = SNAPSHOT
    slow = {**args, "sql": "select *, pg_sleep(0.001)::text as nap from crash.orders"}
    running = start(tmp_path, database, "store", step, slow)
    deadline = time.monotonic() + 60
    while sessions(database) == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    running.kill()
    running.wait(60)
    assert objects(tmp_path / "store") == set()
    done = start(tmp_path, database, "store", step, args)
    assert done.wait(120) == 0, done.stdout.read()
    assert len(objects(tmp_path / "store")) == 3


def test_a_server_that_dies_is_an_error_to_retry(tmp_path: Path, database: Any) -> None:
    step, args = SNAPSHOT
    slow = {**args, "sql": "select *, pg_sleep(0.001)::text as nap from crash.orders"}
    running = start(tmp_path, database, "store", step, slow)
    deadline = time.monotonic() + 60
    while sessions(database) == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    database.restart()
    assert running.wait(120) != 0
    report = json.loads((tmp_path / "store-report.json").read_text())
    error = report.get("error", report)
    assert (error["type"], error["retryable"]) == ("CannotReachError", True), report
    assert "s3cr" not in json.dumps(report) + running.stdout.read()
    assert objects(tmp_path / "store") == set()
