"""SnapshotDataOperator's shell: arguments, relative paths, the window of a run, the asset event's extra."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk import Asset
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_mlops.core.data.dataset import read_table
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.vocabulary import DatasetRef
from airflow_mlops.exceptions import MlopsFailed, MlopsUnavailable
from airflow_mlops.operators.data import SnapshotDataOperator
from airflow_mlops.operators.paths import resolve_path
from airflow_mlops.operators.window import window_of

ASSET = Asset("flights")
UTC = dt.timezone.utc


def context_of(tmp_path: Path, **more: Any) -> Any:
    """What a task is given, as far as the operator reads it."""
    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, bundle_instance=SimpleNamespace(path=tmp_path)
    )
    dag = SimpleNamespace(fileloc=str(tmp_path / "team" / "dag.py"))
    return {"ti": ti, "dag": dag, "dag_run": None, "outlet_events": OutletEventAccessors(), **more}


@pytest.fixture
def operator_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """The store of the embedded back end."""
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "mlops"))
    return LocalStore(tmp_path / "mlops" / "store")


def test_it_runs_from_a_relative_glob_and_returns_the_ref(tmp_path: Path, operator_store: LocalStore) -> None:
    (tmp_path / "landing").mkdir()
    pq.write_table(pa.table({"id": [1, 2], "late": [0, 1]}), tmp_path / "landing" / "x.parquet")
    operator = SnapshotDataOperator(
        task_id="t", source="landing/*.parquet", name="flights", roles={"target": "late"}, outlet=ASSET
    )
    context = context_of(tmp_path)
    ref = operator.execute(context)
    assert (ref["name"], ref["rows"], ref["roles"]) == ("flights", 2, {"target": "late"})
    assert read_table(operator_store, DatasetRef.from_dict(ref))["id"].to_pylist() == [1, 2]

    extra = context["outlet_events"][ASSET].extra
    assert extra["dataset"]["digest"] == ref["digest"]
    assert extra["dataset"]["columns"] is None
    assert read_table(operator_store, DatasetRef.from_dict(extra["dataset"])).num_rows == 2
    again = context_of(tmp_path)
    operator.execute(again)
    assert again["outlet_events"][ASSET].extra == extra, "an event delivered twice has the same id"


def test_what_cannot_succeed_is_not_retried_and_what_may_is(
    tmp_path: Path, operator_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = SnapshotDataOperator(task_id="t", source="nothing/*.csv")
    with pytest.raises(MlopsFailed, match="MissingSourceError: no file matches"):
        operator.execute(context_of(tmp_path))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    from airflow_mlops.core.data import reading

    plain = reading.Source.batches

    def growing(self: reading.Source, *args: Any, **kwargs: Any) -> Any:
        yield from plain(self, *args, **kwargs)
        with open(tmp_path / "x.parquet", "ab") as file:
            file.write(b"x")

    monkeypatch.setattr(reading.Source, "batches", growing)
    with pytest.raises(MlopsUnavailable, match="SourceChangedError"):
        SnapshotDataOperator(task_id="t", source="x.parquet").execute(context_of(tmp_path))


def test_mistakes_that_can_be_seen_in_the_dag_file_are_seen_there() -> None:
    with pytest.raises(ValueError, match="did you mean 'target'"):
        SnapshotDataOperator(task_id="t", source="x", roles={"targte": "y"})
    with pytest.raises(ValueError, match="not before its end"):
        SnapshotDataOperator(task_id="t", source="x", window={"start": "2014-01-01", "end": "2013-01-01"})
    with pytest.raises(ValueError, match="'data_interval', got 'yesterday'"):
        SnapshotDataOperator(task_id="t", source="x", window="yesterday")
    templated = SnapshotDataOperator(task_id="t", source="x", window={"start": "{{ ds }}", "end": "{{ params.e }}"})
    assert set(templated.template_fields) >= {"source", "name", "roles", "window", "columns", "schema"}


def test_the_outlet_joins_the_outlets_that_are_there() -> None:
    other = Asset("other")
    assert SnapshotDataOperator(task_id="t", source="x", outlet=ASSET, outlets=[other]).outlets == [other, ASSET]
    assert SnapshotDataOperator(task_id="t", source="x", outlet=ASSET, outlets=other).outlets == [other, ASSET]
    assert SnapshotDataOperator(task_id="t", source="x").outlets == []


# Paths


def test_a_relative_path_is_looked_up_in_the_bundle_then_beside_the_dag(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    (tmp_path / "team" / "data").mkdir(parents=True)
    (tmp_path / "team" / "data" / "a.csv").write_text("a\n1\n")
    assert resolve_path(context, "data/a.csv") == f"{tmp_path}/team/data/a.csv"
    assert resolve_path(context, "data/*.csv") == f"{tmp_path}/team/data/*.csv"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("a\n1\n")
    assert resolve_path(context, "data/a.csv") == f"{tmp_path}/data/a.csv"
    assert resolve_path(context, "none.csv") == f"{tmp_path}/none.csv"
    assert resolve_path(context, ("data/a.csv", "/x.csv")) == [f"{tmp_path}/data/a.csv", "/x.csv"]


@pytest.mark.parametrize("value", ["/a/b.csv", "~/b.csv", "file:///a/b.csv", "s3://a/b", {"kind": "dataset"}, None, ""])
def test_what_is_no_relative_path_stays(tmp_path: Path, value: Any) -> None:
    assert resolve_path(context_of(tmp_path), value) == value


# Windows


def events(*extras: Any) -> dict[str, Any]:
    return {"triggering_asset_events": {ASSET.uri: [SimpleNamespace(extra=extra) for extra in extras]}}


JANUARY = {"start": "2013-01-01T00:00:00+00:00", "end": "2013-02-01T00:00:00+00:00"}
FEBRUARY = {"start": "2013-02-01T00:00:00+00:00", "end": "2013-03-01T00:00:00+00:00"}
BOTH = {"start": JANUARY["start"], "end": FEBRUARY["end"]}
INTERVAL = {
    "data_interval_start": dt.datetime(2013, 1, 1, tzinfo=UTC),
    "data_interval_end": dt.datetime(2013, 2, 1, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("value", "run", "window"),
    [
        (None, {}, None),
        (None, INTERVAL, None),
        ("data_interval", INTERVAL, JANUARY),
        (None, events({"window": JANUARY}), JANUARY),
        (None, events({"window": FEBRUARY}, {}, {"window": JANUARY}), BOTH),
        (None, events({"from_trigger": True, "payload": {"window": JANUARY}}), JANUARY),
        (None, {**events({}), "partition_key": "2013-02"}, FEBRUARY),
        (None, {**events({"window": JANUARY}), "partition_key": "2013-02"}, JANUARY),
        (FEBRUARY, {**events({"window": JANUARY}), "partition_key": "2012-02"}, FEBRUARY),
        (
            None,
            {"partition_key": "2013-12"},
            {"start": "2013-12-01T00:00:00+00:00", "end": "2014-01-01T00:00:00+00:00"},
        ),
        (
            None,
            {"partition_key": "2013-01-31"},
            {"start": "2013-01-31T00:00:00+00:00", "end": "2013-02-01T00:00:00+00:00"},
        ),
        (
            None,
            {"partition_key": "2013-01-31T23"},
            {"start": "2013-01-31T23:00:00+00:00", "end": "2013-02-01T00:00:00+00:00"},
        ),
        (None, {"partition_key": "2013-01-01/2013-02-01"}, JANUARY),
        (None, {"partition_key": "europe"}, None),
        (None, {"partition_key": "2013-13"}, None),
    ],
)
def test_the_window_of_a_run(tmp_path: Path, value: Any, run: dict[str, Any], window: Any) -> None:
    assert window_of(context_of(tmp_path, **run), value) == window


def test_a_run_without_a_data_interval_says_so(tmp_path: Path) -> None:
    at = dt.datetime(2013, 1, 1, tzinfo=UTC)
    for run in ({}, {"data_interval_start": at, "data_interval_end": at}):
        with pytest.raises(SpecError, match="no data interval of any length"):
            window_of(context_of(tmp_path, **run), "data_interval")


# Databases


def test_a_query_reads_by_its_connection(
    tmp_path: Path, operator_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import sqlite3

    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("create table orders as select 1 as id, 's3cr' as note union select 2, 'x'")
    connection.close()
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", f'{{"conn_type": "sqlite", "host": "{tmp_path}/shop.db"}}')
    operator = SnapshotDataOperator(
        task_id="t",
        sql="select * from orders where note <> :not",
        parameters={"not": "y"},
        conn_id="shop",
        order_by="id",
    )
    ref = operator.execute(context_of(tmp_path))
    assert (ref["name"], ref["rows"]) == ("orders", 2)
    assert "MLOPS_SQL_URL" not in os.environ, "only while the step runs"
    monkeypatch.delenv("AIRFLOW_CONN_SHOP")
    with pytest.raises(MlopsUnavailable, match="'shop' cannot be had"):
        operator.execute(context_of(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either source .* or sql"),
        ({"source": "x", "sql": "select 1", "conn_id": "c", "order_by": "id"}, "either source .* or sql"),
        ({"sql": "select 1", "order_by": "id"}, "sql needs conn_id"),
        ({"sql": "select 1", "conn_id": "c"}, "order_by: the same rows"),
    ],
)
def test_arguments_that_do_not_go_together(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SnapshotDataOperator(task_id="t", **arguments)
