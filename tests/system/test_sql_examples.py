"""The examples of the pages on snapshots and validation that read a database, and quarantine, run in Airflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ORDERS = """
create schema if not exists shop;
drop table if exists shop.orders;
create table shop.orders as select
    i as order_id, timestamptz '2026-01-20' + i * interval '1 day' as ordered_at,
    (array['SE', 'NO'])[1 + i % 2] as country, i * 1.5::double precision as total, 'geheim' || i as email
from generate_series(1, 20) i;
"""


@pytest.fixture
def warehouse(airflow_test: Any, postgres: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An Airflow with a connection ``warehouse``, and the Postgres that it leads to."""
    postgres.execute(ORDERS)
    airflow_test.connections["warehouse"] = postgres.airflow_uri
    return postgres


def ref_in(airflow_test: Any) -> dict[str, Any]:
    (record,) = (airflow_test.home / "mlops" / "store" / "datasets").rglob("*.json")
    found: dict[str, Any] = json.loads(record.read_text())
    return found


def everything(airflow_test: Any, run: Any) -> str:
    """What a reader may see: the output, and all that the store holds as text."""
    store = airflow_test.home / "mlops" / "store"
    texts = [p.read_text() for p in store.rglob("*") if p.suffix in (".json", ".html")]
    return str(run.stdout) + "".join(texts)


def test_a_month_of_a_table_is_stored_once(airflow_test: Any, warehouse: Any) -> None:
    shutil.copy(EXAMPLES / "snapshot_sql.py", airflow_test.dags)
    for _ in range(2):
        run = airflow_test.cli("dags", "test", "orders_from_warehouse")
        assert run.returncode == 0, run.stdout[-3000:]
    ref = ref_in(airflow_test)
    assert (ref["name"], ref["rows"]) == ("orders", 5)
    assert ref["window"]["start"] == "2026-01-01T00:00:00+00:00"
    seen = everything(airflow_test, run)
    assert not any(secret in seen for secret in ("s3cr", "p@ss", "p%40ss", "geheim"))


def test_a_query_in_a_file_of_its_own(airflow_test: Any, warehouse: Any) -> None:
    (airflow_test.dags / "sql").mkdir()
    (airflow_test.dags / "sql" / "orders.sql").write_text(
        "-- all orders of {{ params.country }}\nselect * from shop.orders where country = :country;\n"
    )
    text = (EXAMPLES / "snapshot_sql.py").read_text()
    old = 'sql="select order_id, ordered_at, total from shop.orders where country = :country"'
    assert old in text
    (airflow_test.dags / "dag.py").write_text(text.replace(old, 'sql="sql/orders.sql"'))
    run = airflow_test.cli("dags", "test", "orders_from_warehouse")
    assert run.returncode == 0, run.stdout[-3000:]
    assert "-- all orders of SE" in ref_in(airflow_test)["source"]


def test_a_table_is_checked_where_it_is(airflow_test: Any, warehouse: Any) -> None:
    shutil.copy(EXAMPLES / "validate_table.py", airflow_test.dags)
    warehouse.execute('alter table shop.orders rename column total to "TOTAL_EUR"')

    good = airflow_test.cli("dags", "test", "orders_in_warehouse_checked")
    assert good.returncode == 0, good.stdout[-3000:]
    assert "orders: all 3 expectations hold on 11 rows" in good.stdout

    warehouse.execute('update shop.orders set "TOTAL_EUR" = -1 where order_id = 3')
    warning = airflow_test.cli("dags", "test", "orders_in_warehouse_checked", "2026-01-02")
    assert warning.returncode == 0, warning.stdout[-3000:]
    assert "value skew in 1 of 3 expectations on 11 rows" in warning.stdout

    warehouse.execute("update shop.orders set order_id = 1 where order_id = 2")
    bad = airflow_test.cli("dags", "test", "orders_in_warehouse_checked", "2026-01-03")
    assert bad.returncode != 0
    assert "2 of 11 values (18.2%) are not unique" in bad.stdout

    warehouse.execute("alter table shop.orders drop column country, drop column ordered_at")
    gone = airflow_test.cli("dags", "test", "orders_in_warehouse_checked", "2026-01-04")
    assert gone.returncode != 0
    assert "the role 'time' names the column 'ordered_at'" in gone.stdout
    assert "s3cr" not in everything(airflow_test, bad) + gone.stdout


def test_a_connection_that_nobody_defined(airflow_test: Any) -> None:
    shutil.copy(EXAMPLES / "snapshot_sql.py", airflow_test.dags)
    run = airflow_test.cli("dags", "test", "orders_from_warehouse")
    assert run.returncode != 0
    assert "the connection 'warehouse' cannot be had" in run.stdout


def test_broken_readings_go_aside(airflow_test: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "quarantine_rows.py", airflow_test.dags)
    frame = pd.DataFrame({"sensor": [*"abcdefghijklmnopqrs", None], "celsius": [*range(19), -999.0]})
    frame.to_parquet(tmp_path / "few.parquet")
    frame.assign(celsius=-999.0).to_parquet(tmp_path / "many.parquet")

    few = airflow_test.cli(
        "dags",
        "test",
        "readings_without_broken_ones",
        "--conf",
        json.dumps({"readings": str(tmp_path / "few.parquet")}),
    )
    assert few.returncode == 0, few.stdout[-3000:]
    assert "19 good, 1 in quarantine" in few.stdout
    many = airflow_test.cli(
        *("dags", "test", "readings_without_broken_ones", "2026-01-02"),
        *("--conf", json.dumps({"readings": str(tmp_path / "many.parquet")})),
    )
    assert many.returncode != 0
    assert "20 of 20 rows (100.00%) fail, too many for quarantine" in many.stdout
