"""The asset's watcher in a real triggerer: files land on S3, and a run reads them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from servers.s3 import KEY, SECRET, S3Server, free_port

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
EXAMPLE = EXAMPLES / "new_orders.py"

pytestmark = pytest.mark.scheduler


@pytest.fixture
def lake(airflow_test: Any, s3_server: S3Server) -> str:
    """A bucket, the connection to it, and the example that watches it."""
    bucket = s3_server.bucket()
    text = EXAMPLE.read_text().replace("s3://lake/", f"s3://{bucket}/")
    text = text.replace('aws_conn_id="lake"))', 'aws_conn_id="lake", settle="1s", poll_interval=1.0))')
    assert 'settle="1s"' in text
    (airflow_test.dags / "new_orders.py").write_text(text)
    extra = {"endpoint_url": s3_server.url, "region_name": "eu-north-1"}
    connection = json.dumps({"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra})
    added = airflow_test.cli("connections", "add", "lake", "--conn-json", connection)
    assert added.returncode == 0, added.stdout
    return bucket


@contextlib.contextmanager
def standalone(airflow_test: Any, log: Path) -> Iterator[subprocess.Popen[Any]]:
    environment = {
        **airflow_test.environment,
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__API__PORT": str(free_port()),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY": "10",
    }
    environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = (
        f"http://127.0.0.1:{environment['AIRFLOW__API__PORT']}/execution/"
    )
    with log.open("ab") as out:
        process = subprocess.Popen(
            ["airflow", "standalone"], env=environment, stdout=out, stderr=out, start_new_session=True
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def put(server: S3Server, uri: str, *orders: int) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"order_id": list(orders)}), out)
    server.put(uri, out.getvalue())


def query(airflow_test: Any, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(airflow_test.home / "airflow.db", timeout=30)) as database:
        return database.execute(sql).fetchall()


def until(condition: Callable[[], Any], log: Path, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-8000:]
        time.sleep(1)


def test_each_arrival_is_a_run_and_a_restart_tells_of_none_again(
    airflow_test: Any, lake: str, s3_server: S3Server, tmp_path: Path
) -> None:
    log = tmp_path / "standalone.log"
    put(s3_server, f"s3://{lake}/orders/1.parquet", 1, 2)

    def done(count: int) -> Callable[[], bool]:
        return lambda: query(airflow_test, "select count(*) from dag_run where state = 'success'")[0][0] == count

    with standalone(airflow_test, log) as process:
        until(done(1), log, process)
        put(s3_server, f"s3://{lake}/orders/2.parquet", 3)
        until(done(2), log, process)
    with standalone(airflow_test, log) as process:
        put(s3_server, f"s3://{lake}/orders/3.parquet", 4, 5)
        until(done(3), log, process)

    events = [
        json.loads(extra)["payload"] for (extra,) in query(airflow_test, "select extra from asset_event order by id")
    ]
    assert [one["new"]["paths"] for one in events] == [[f"s3://{lake}/orders/{n}.parquet"] for n in (1, 2, 3)]
    assert len({one["id"] for one in events}) == 3
    refs = [json.loads(value) for (value,) in query(airflow_test, "select value from xcom where key = 'return_value'")]
    refs = [json.loads(ref) if isinstance(ref, str) else ref for ref in refs]
    assert sorted(ref["rows"] for ref in refs) == [2, 3, 5]
    assert SECRET not in log.read_text()


@pytest.fixture
def shop(airflow_test: Any, migrated_database: Path, tmp_path: Path) -> Callable[..., None]:
    """The table that an example watches, and the registry that the other one does; runs statements in the table."""
    text = (EXAMPLES / "new_rows.py").read_text()
    assert text.count("poll_interval=30") == 2
    (airflow_test.dags / "new_rows.py").write_text(text.replace("poll_interval=30", "poll_interval=1"))
    airflow_test.connections["shop"] = json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "shop.db")})
    (airflow_test.home / "mlops").mkdir()
    (airflow_test.home / "mlops" / "mlflow.db").write_bytes(migrated_database.read_bytes())

    def execute(*statements: str) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    execute("create table orders (order_id integer)")
    return execute


def test_rows_and_releases_start_runs_over_a_restart_and_a_policy_counts_them_once(
    airflow_test: Any, shop: Callable[..., None], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{airflow_test.home}/mlops/mlflow.db"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("churn")
    run = client.create_run("0")
    for _ in range(2):
        client.create_model_version("churn", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("churn", "champion", "1")
    shop("insert into orders values (1), (2)")
    log = tmp_path / "standalone.log"

    def done(dag: str, count: int) -> Callable[[], bool]:
        sql = f"select count(*) from dag_run where dag_id = '{dag}' and state = 'success'"
        return lambda: query(airflow_test, sql)[0][0] >= count

    with standalone(airflow_test, log) as process:
        until(done("orders_in_the_table", 1), log, process)
        until(done("churn_moved", 1), log, process)
    shop("insert into orders values (2), (3)")
    client.set_registered_model_alias("churn", "champion", "2")
    with standalone(airflow_test, log) as process:
        until(done("orders_in_the_table", 2), log, process)
        until(done("churn_moved", 2), log, process)

    payloads = [json.loads(extra)["payload"] for (extra,) in query(airflow_test, "select extra from asset_event")]
    rows = [one for one in payloads if one["kind"] == "new_rows"]
    assert {one["id"]: one["new"]["rows"] for one in rows} == {rows[0]["id"]: 2, rows[-1]["id"]: 2}
    assert [one["version"] for one in payloads if one["kind"] == "model_alias"][-1] == 2
    records = sorted((airflow_test.home / "mlops" / "store" / "retraining" / "orders").glob("*.json"))
    decisions = [json.loads(path.read_text())["decision"] for path in records]
    assert [one["action"] for one in decisions][-1] == "retrain"
    assert decisions[-1]["state"]["new_rows"] == 4
