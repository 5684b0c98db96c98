"""Snapshots of queries, on a real Postgres and on SQLite."""

from __future__ import annotations

import datetime as dt
import decimal
import logging
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import make_url

from airflow_mlops.core.data import sql_connection
from airflow_mlops.core.data.dataset import read_table
from airflow_mlops.core.data.snapshot import snapshot_data
from airflow_mlops.core.data.sql import Query
from airflow_mlops.core.data.sql_connection import VARIABLE
from airflow_mlops.core.data.sql_types import columns_by_value
from airflow_mlops.core.errors import (
    CannotReachError,
    CredentialsError,
    EmptyDataError,
    MissingColumnError,
    MissingExtraError,
    MissingSourceError,
    MixedSchemaError,
    MlopsError,
    NotFoundError,
    SpecError,
    UnsupportedError,
)
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.vocabulary import DatasetRef

ORDERS = """
create schema if not exists shop;
drop table if exists shop.orders;
create table shop.orders (
    id bigint primary key, total numeric(10, 2), exact numeric(30, 4), count numeric(12), free numeric,
    paid boolean, note text, day date, at timestamp, seen timestamptz, key uuid, extra jsonb, tags text[], raw bytea,
    small smallint, ratio real, clock time, span interval, prices numeric[]
);
insert into shop.orders select
    i, i * 1.25, i * 1.0001, i, i / 4.0, i % 2 = 0, case when i % 3 = 0 then null else 'n' || i end,
    date '2026-01-01' + i, timestamp '2026-01-01 06:00' + i * interval '1 hour',
    timestamptz '2026-01-01 06:00+02' + i * interval '1 hour',
    '6ecd8c99-4036-403d-bf84-cf8400f67836', '{"a": 1}', array['x', null], '\\x0102', i, 0.5, '10:30',
    interval '90 minutes', array[1.5, null]
from generate_series(1, 100) i;
"""


@pytest.fixture(scope="module")
def warehouse(postgres: Any) -> Any:
    """The Postgres with a table of orders."""
    postgres.execute(ORDERS)
    return postgres


@pytest.fixture
def snapshot(warehouse: Any, context: StepContext, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(VARIABLE, warehouse.url)

    def run(sql: str = "select * from shop.orders", **arguments: Any) -> dict[str, Any]:
        return snapshot_data(context, sql=sql, **{"order_by": "id", **arguments})

    return run


def rows(context: StepContext, ref: dict[str, Any]) -> pa.Table:
    return read_table(context.store, DatasetRef.from_dict(ref))


def test_every_type_of_postgres_has_one_of_arrow(snapshot: Any, context: StepContext) -> None:
    ref = snapshot()
    assert ref["columns"] == {
        "id": "int64",
        "total": "double",
        "exact": "decimal128(30, 4)",
        "count": "int64",
        "free": "double",
        "paid": "bool",
        "note": "string",
        "day": "date32[day]",
        "at": "timestamp[us]",
        "seen": "timestamp[us, tz=UTC]",
        "key": "string",
        "extra": "string",
        "tags": "list<element: string>",
        "raw": "binary",
        "small": "int16",
        "ratio": "float",
        "clock": "time64[us]",
        "span": "duration[us]",
        "prices": "list<element: double>",
    }
    table = rows(context, ref)
    assert table.num_rows == 100
    first = table.slice(0, 1).to_pylist()[0]
    assert first["total"] == 1.25
    assert first["exact"] == decimal.Decimal("1.0001")
    assert (first["count"], first["free"], first["paid"], first["note"]) == (1, 0.25, False, "n1")
    assert first["seen"] == dt.datetime(2026, 1, 1, 5, tzinfo=dt.timezone.utc)
    assert first["extra"] == '{"a": 1}'
    assert (first["tags"], first["raw"], first["prices"]) == (["x", None], b"\x01\x02", [1.5, None])
    assert (first["clock"], first["span"]) == (dt.time(10, 30), dt.timedelta(minutes=90))
    assert table["note"].null_count == 33


def test_the_order_makes_the_digest(snapshot: Any) -> None:
    assert snapshot()["digest"] == snapshot("select * from shop.orders order by note desc")["digest"]
    assert (
        snapshot()["digest"] != snapshot(order_by=["day", "id"], sql="select * from shop.orders where id < 9")["digest"]
    )


def test_it_is_the_same_as_the_same_rows_from_a_file(snapshot: Any, context: StepContext, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    ref = snapshot("select id, note, at from shop.orders")
    pq.write_table(rows(context, ref), tmp_path / "orders.parquet")
    assert snapshot_data(context, source=str(tmp_path / "orders.parquet"))["digest"] == ref["digest"]


def test_rows_with_the_same_order_are_told(snapshot: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        snapshot(order_by="paid")
    assert "98 rows have the order_by of the row before them" in caplog.text
    caplog.clear()
    snapshot()
    assert "order_by" not in caplog.text


def test_without_an_order_it_says_why_one_is_needed(snapshot: Any) -> None:
    with pytest.raises(SpecError, match="another version of the data"):
        snapshot(order_by=None)
    with pytest.raises(MissingColumnError, match="'order_by' names"):
        snapshot(order_by="idd")


def test_the_window_is_cut_by_the_database(snapshot: Any, context: StepContext, monkeypatch: Any) -> None:
    from airflow_mlops.core.data import sql

    seen: list[int] = []
    plain = sql._record_batch
    monkeypatch.setattr(sql, "_record_batch", lambda rows, *more: seen.append(len(rows)) or plain(rows, *more))
    for column, start, end, expected in (
        ("at", "2026-01-02", "2026-01-03", 24),
        ("seen", "2026-01-02", "2026-01-03", 24),
        ("day", "2026-01-05", "2026-01-12", 7),
    ):
        seen.clear()
        ref = snapshot(roles={"time": column}, window={"start": start, "end": end})
        assert (ref["rows"], sum(seen)) == (expected, expected)
        assert ref["window"]["start"].startswith(start)
    open_ended = snapshot(roles={"time": "at"})
    assert open_ended["window"]["start"] == "2026-01-01T07:00:00+00:00"


def test_a_time_that_is_text_is_cut_here(snapshot: Any) -> None:
    ref = snapshot(
        "select id, at::text as at from shop.orders",
        roles={"time": "at"},
        schema={"at": "timestamp"},
        window={"start": "2026-01-02", "end": "2026-01-03"},
    )
    assert ref["rows"] == 24


def test_no_rows(snapshot: Any, context: StepContext) -> None:
    with pytest.raises(EmptyDataError, match="has no rows; nothing was stored"):
        snapshot("select * from shop.orders where id < 0")
    with pytest.raises(EmptyDataError, match=r"no rows in the window.*'at' goes from 2026-01-01 07:00"):
        snapshot(roles={"time": "at"}, window={"start": "2030-01-01", "end": "2030-02-01"})
    assert list(context.store.keys("data")) == []


def test_parameters_are_bound(snapshot: Any) -> None:
    sql = "select id, '10:30 :not %x' as s from shop.orders where id in :ids and note <> :note -- :end"
    assert snapshot(sql, parameters={"ids": [1, 2, 3], "note": "n1'; drop table shop.orders; --"}, order_by="id")[
        "rows"
    ]
    assert snapshot("select id from shop.orders where id in :ids", parameters={"ids": [1, 2]})["rows"] == 2
    assert snapshot("select id::int as id, :a::text as a from shop.orders;", parameters={"a": "x"})["rows"] == 100
    with pytest.raises(SpecError, match="no parameter :ids"):
        snapshot(parameters={"ids": [1]})


@pytest.mark.parametrize(
    ("sql", "error", "words"),
    [
        ("select * from shop.nothing", NotFoundError, 'relation "shop.nothing" does not exist'),
        ("select nothing from shop.orders", MissingColumnError, 'column "nothing" does not exist'),
        ("select id from shop.orders where", SpecError, "syntax error"),
        ("delete from shop.orders", SpecError, "must be one query"),
        ("/* only */ -- looking\n delete from shop.orders", SpecError, "must be one query"),
        ("with d as (delete from shop.orders returning id) select id from d", SpecError, "data-modifying"),
        ("select nextval('shop.numbers') as id", SpecError, "read-only transaction"),
        ("  ;", SpecError, "sql is empty"),
        ("select id, id from shop.orders", SpecError, "more than one column named 'id'"),
        ("select '0044-03-15 BC'::date as id", UnsupportedError, "date"),
        ("select '1'::int / 0 as id", UnsupportedError, "division by zero"),
    ],
)
def test_bad_statements(snapshot: Any, warehouse: Any, sql: str, error: type[MlopsError], words: str) -> None:
    warehouse.execute("create sequence if not exists shop.numbers")
    with pytest.raises(error, match=words) as caught:
        snapshot(sql)
    assert not caught.value.retryable
    assert warehouse.execute("select count(*) from shop.orders") == [(100,)]


def test_a_value_is_not_told(snapshot: Any, caplog: pytest.LogCaptureFixture) -> None:
    for sql in ("select 'geheim'::int as id", "select id, 'geheim'::text as t from shop.orders"):
        with pytest.raises(UnsupportedError) as caught:
            snapshot(sql, schema={"t": "int64"} if " t " in sql else None)
        assert "geheim" not in str(caught.value.to_dict())


def test_columns_and_types_can_be_chosen(snapshot: Any, context: StepContext) -> None:
    ref = snapshot(columns=["exact", "id"], schema={"exact": "double", "id": "int32"})
    assert ref["columns"] == {"exact": "double", "id": "int32"}
    with pytest.raises(MissingColumnError, match="did you mean 'exact'"):
        snapshot(schema={"exakt": "double"})
    with pytest.raises(UnsupportedError, match=r"'id' is bigint in the database.*does not fit int8"):
        snapshot("select id * 1000 as id from shop.orders", schema={"id": "int8"})


def test_the_password_is_nowhere(
    snapshot: Any, warehouse: Any, context: StepContext, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = [str(snapshot())]
    wrong = warehouse.url.replace("s3cr", "wr0ng")
    monkeypatch.setenv(VARIABLE, wrong)
    with pytest.raises(CredentialsError, match="password authentication failed") as caught:
        snapshot()
    told += [str(caught.value.to_dict()), repr(caught.value.__cause__), caplog.text]
    told += [path.read_text() for path in Path(context.store.uri[7:]).rglob("*.json")]
    assert not any(secret in text for text in told for secret in ("s3cr", "wr0ng", "p@ss", "p%40ss"))


def test_databases_that_cannot_be_had(snapshot: Any, warehouse: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(SpecError, match="no database is known for the connection 'wh'"):
        snapshot(conn_id="wh")
    for url, error, words in (
        ("postgresql://u:p@127.0.0.1:1/x", CannotReachError, "Connection refused"),
        (warehouse.url.removesuffix("/warehouse") + "/nothing", NotFoundError, 'database "nothing" does not exist'),
        ("nonsense", SpecError, "is no SQLAlchemy URL"),
        ("nosuch://x", MissingExtraError, "no dialect for 'nosuch'"),
        ("mysql+pymysql://u:p@h/x", MissingExtraError, "the driver 'pymysql'"),
        (f"sqlite:///{tmp_path}/none.db", MissingSourceError, "no SQLite database"),
    ):
        monkeypatch.setenv(VARIABLE, url)
        with pytest.raises(error, match=words):
            snapshot()
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("scheme", "there", "taken"),
    [
        ("postgresql+psycopg", {"psycopg", "psycopg2"}, "psycopg"),
        ("postgresql+psycopg", {"psycopg2"}, "psycopg2"),
        ("postgresql+psycopg2", {"psycopg"}, "psycopg"),
        ("postgresql+psycopg", set(), "psycopg"),
        ("postgres", {"psycopg2", "psycopg"}, "psycopg2"),
        ("postgresql", {"psycopg"}, "psycopg"),
        ("postgresql+asyncpg", {"psycopg"}, "asyncpg"),
    ],
)
def test_the_driver_that_is_there_reads_whatever_the_workers_is(
    scheme: str, there: set[str], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_connection.importlib.util, "find_spec", lambda name: name in there or None)
    url = sql_connection._with_driver(make_url(f"{scheme}://u:p@h/x"))
    assert url.drivername == f"postgresql+{taken}"


def test_without_sqlalchemy_it_says_which_extra(snapshot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtraError, match=r"airflow-provider-mlops\[sql\]"):
        snapshot()


def test_a_server_that_restarts_in_mid_read(
    snapshot: Any, warehouse: Any, context: StepContext, monkeypatch: Any
) -> None:
    from airflow_mlops.core.data import sql

    warehouse.execute(
        "drop table if exists shop.many", "create table shop.many as select generate_series(1, 200000) as id"
    )
    plain, calls = sql._record_batch, []

    def restart_then(rows: Any, *more: Any) -> Any:
        calls.append(len(rows))
        if len(calls) == 3:
            warehouse.restart()
        return plain(rows, *more)

    monkeypatch.setattr(sql, "_record_batch", restart_then)
    with pytest.raises(CannotReachError) as caught:
        snapshot("select id from shop.many")
    assert caught.value.retryable
    assert list(context.store.keys("")) == []
    assert snapshot("select id from shop.many")["rows"] == 200_000
    assert max(calls) <= sql.FETCH_ROWS


def test_what_is_written_meanwhile_is_not_seen(snapshot: Any, warehouse: Any, monkeypatch: Any) -> None:
    from airflow_mlops.core.data import sql

    warehouse.execute(
        "drop table if exists shop.live", "create table shop.live as select generate_series(1, 50000) as id"
    )
    plain, calls = sql._record_batch, []

    def delete_then(rows: Any, *more: Any) -> Any:
        if not calls:
            warehouse.execute("delete from shop.live where id > 40000", "insert into shop.live values (60000)")
        calls.append(1)
        return plain(rows, *more)

    monkeypatch.setattr(sql, "_record_batch", delete_then)
    assert snapshot("select id from shop.live")["rows"] == 50_000


def test_the_other_driver_reads_the_same(snapshot: Any, warehouse: Any, monkeypatch: Any) -> None:
    ref = snapshot()
    monkeypatch.setenv(VARIABLE, warehouse.url.replace("+psycopg2", "+psycopg"))
    assert snapshot()["digest"] == ref["digest"]
    monkeypatch.setenv(VARIABLE, warehouse.url.replace("postgresql+psycopg2", "postgres"))
    assert snapshot()["digest"] == ref["digest"]


# SQLite


@pytest.fixture
def sqlite(tmp_path: Path, context: StepContext, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table orders (id integer primary key, total, at text, mixed, empty)")
        connection.executemany(
            "insert into orders values (?, ?, ?, ?, null)",
            [(i, i / 2 if i % 2 else i, f"2026-01-{i + 1:02} 00:00:00", "x" if i == 9 else i) for i in range(20)],
        )
    connection.close()
    monkeypatch.setenv(VARIABLE, f"sqlite:///{path}")

    def run(sql: str = "select id, total, at, empty from orders", **arguments: Any) -> dict[str, Any]:
        return snapshot_data(context, sql=sql, **{"order_by": "id", **arguments})

    return run


def test_sqlite(sqlite: Any, context: StepContext) -> None:
    ref = sqlite(
        roles={"time": "at"}, schema={"at": "timestamp"}, window={"start": "2026-01-02", "end": "2026-01-05"}, name="o"
    )
    assert ref["columns"] == {"id": "int64", "total": "double", "at": "timestamp[us]", "empty": "null"}
    assert rows(context, ref)["id"].to_pylist() == [1, 2, 3]
    assert ref["name"] == "o"
    assert ref["source"].startswith("sqlite:///")
    with pytest.raises(MixedSchemaError, match=r"'mixed' of .* holds integer and text; cast it"):
        sqlite("select id, mixed from orders")
    with pytest.raises(NotFoundError, match="no such table: none"):
        sqlite("select * from none")
    with pytest.raises(SpecError, match="must be a timestamp"):
        sqlite(roles={"time": "at"})
    with pytest.raises(MissingColumnError, match="no such column"):
        sqlite("select idd from orders")


def test_a_locked_sqlite_is_tried_again(sqlite: Any, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    other.execute("begin exclusive")
    with pytest.raises(CannotReachError, match="locked"):
        sqlite()
    other.close()


# What needs no database


def test_values_tell_types_where_a_database_does_not() -> None:
    d = decimal.Decimal
    values = [
        (1, 1, d("1.25"), d("123456789012345678.5"), "a", True, dt.datetime(2026, 1, 1), {"a": 1}, None, 1),
        (2, 2.5, None, d("1"), None, None, dt.datetime(2026, 1, 2), None, None, "x"),
    ]
    found = columns_by_value(list("abcdefghij"), [values[:1], values[1:]])
    assert [str(column.type) for column in found] == [
        *("int64", "double", "double", "decimal128(19, 1)", "string", "bool", "timestamp[us]", "string", "null", "None")
    ]


def test_a_query_has_a_name_and_a_short_form() -> None:
    assert Query.of('select 1 from "shop"."orders" o').name == "orders"
    assert Query.of("select 1 as id").name == "query"
    assert len(Query.of("select " + "x" * 1000).shown) == 301
