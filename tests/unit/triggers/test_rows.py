"""New rows in SQLite and Postgres: each told of once, under one id, over restarts, ties and late commits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, TaskDeferred

from airflow_mlops.exceptions import MlopsFailed, MlopsUnavailable
from airflow_mlops.sensors.rows import NewRowsSensor
from airflow_mlops.triggers import rows
from airflow_mlops.triggers.rows import NewRowsEventTrigger, NewRowsSensorTrigger
from servers.postgres import PASSWORD, Postgres
from triggering import AssetState, check_serialized, run

Execute = Callable[..., Any]


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """The table ``orders`` in SQLite, behind the connection ``shop``."""
    file = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", f'{{"conn_type": "sqlite", "host": "{file}"}}')

    def execute(*statements: str) -> None:
        with contextlib.closing(sqlite3.connect(file)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    execute("create table orders (id integer, at text)")
    return execute


def insert(*ids: int) -> str:
    return "insert into orders (id) values " + ", ".join(f"({one})" for one in ids)


def watcher(state: AssetState | None = None, **more: Any) -> NewRowsEventTrigger:
    given = {"conn_id": "shop", "table": "orders", "column": "id", "poll_interval": 0.05, **more}
    trigger = NewRowsEventTrigger(**given)
    if state is not None:
        trigger.asset_state_store = state  # type: ignore[assignment]
    return trigger


def told(events: list[Any]) -> list[tuple[int, str]]:
    return [(one["new"]["rows"], one["watermark"]) for one in events]


@pytest.mark.parametrize("kind", [NewRowsSensorTrigger, NewRowsEventTrigger])
def test_what_is_serialized_makes_the_same_trigger(kind: Any) -> None:
    one = kind(conn_id="c", sql="select id from t", column="id", overlap=5, min_rows=3, poll_interval=7.0)
    check_serialized(one, asset=kind is NewRowsEventTrigger)


def test_each_new_row_is_told_of_once_also_one_with_a_value_that_is_there(sqlite: Execute) -> None:
    sqlite(insert(1, 2, 2))
    events = run(watcher(), lambda: sqlite(insert(3)), lambda: sqlite(insert(3, 3)), lambda: sqlite(insert(4)))
    assert told(events) == [(3, "2"), (1, "3"), (2, "3"), (1, "4")]
    assert len({one["id"] for one in events}) == 4
    assert [one["previous"] for one in events] == [None, "2", "3", "3"]
    assert events[0]["kind"] == "new_rows"


def test_a_row_that_is_committed_late_is_found_within_the_overlap(sqlite: Execute) -> None:
    sqlite(insert(10, 20))
    with pytest.raises(asyncio.TimeoutError):
        run(watcher(), lambda: sqlite(insert(15)), seconds=1)
    events = run(watcher(overlap="10"), lambda: sqlite(insert(16)), lambda: sqlite(insert(30)))
    assert told(events) == [(3, "20"), (1, "20"), (1, "30")]


@pytest.mark.parametrize(
    ("delete", "more", "overlap"),
    [
        ("delete from orders where id = 20", 20, None),
        ("delete from orders where id = 20", 20, 15),
        ("delete from orders where id = 20", 15, None),
        ("delete from orders", 1, None),
        ("delete from orders", 1, 5),
        ("delete from orders", 20, None),
    ],
)
def test_deleted_rows_are_no_arrival_and_hide_none(
    sqlite: Execute, delete: str, more: int, overlap: int | None
) -> None:
    """Also where numbers begin anew, and where the table looks as it did before."""
    sqlite(insert(10, 20))
    state = AssetState()

    async def collect() -> list[Any]:
        stream = watcher(state, overlap=overlap).run()
        events = [(await asyncio.wait_for(anext(stream), 60)).payload]
        sqlite(delete)
        waiting = asyncio.ensure_future(anext(stream))
        while '"deletions": 1' not in state.text:
            await asyncio.sleep(0.01)
        sqlite(insert(more))
        return [*events, (await asyncio.wait_for(waiting, 60)).payload]

    first, second = asyncio.run(collect())
    assert told([first, second]) == [(2, "20"), (1, str(more))]
    assert second["id"] != first["id"], "rows that nobody was told of"
    (again,) = run(watcher(state, overlap=overlap))
    assert again == second, "it was not written down yet"


def test_a_table_that_was_emptied_before_an_upgrade_is_watched_again(sqlite: Execute) -> None:
    state = AssetState()
    sqlite(insert(10))
    trigger = watcher(state)
    (first,) = run(trigger)
    old = {**first["mark"], "rows": 0}
    asyncio.run(state.aset(rows.WATERMARK, {rows.Look(trigger).find_place(rows.Look(trigger)._ask()): old}))
    sqlite("delete from orders", insert(1))

    async def collect() -> Any:
        waiting = asyncio.ensure_future(anext(watcher(state).run()))
        while '"deletions": 1' not in state.text:
            await asyncio.sleep(0.01)
        sqlite(insert(2))
        return (await asyncio.wait_for(waiting, 60)).payload

    assert told([asyncio.run(collect())]) == [(1, "2")]


def test_a_restart_goes_on_from_the_watermark_and_tells_again_under_the_same_id(sqlite: Execute) -> None:
    state = AssetState()
    sqlite(insert(1, 2))
    (first,) = run(watcher(state))
    # Killed before it could write down what it told.
    again, second = run(watcher(state), lambda: sqlite(insert(3)))
    assert again["id"] == first["id"]
    assert told([second]) == [(1, "3")]
    (more,) = run(watcher(state), seconds=60)
    assert more["id"] == second["id"], "the second was not written down either"
    other, third = run(watcher(AssetState()), lambda: sqlite(insert(9)))
    assert told([other, third]) == [(3, "3"), (1, "9")]
    (elsewhere,) = run(watcher(state, sql="select id from orders", table=None))
    assert told([elsewhere]) == [(4, "9")], "of another source nothing was seen"


def test_below_airflow_3_3_a_restart_goes_on_from_the_store(
    sqlite: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "mlops"))

    def restarted(**more: Any) -> NewRowsEventTrigger:
        trigger = watcher(**more)
        vars(trigger).pop("asset_state_store", None)  # what an Airflow that keeps nothing does not set
        return trigger

    sqlite(insert(1, 2))
    first, second = run(restarted(), lambda: sqlite(insert(3)))
    # The second was not written down before the end.
    again, third = run(restarted(), lambda: sqlite(insert(4)))
    assert again["id"] == second["id"] != first["id"]
    assert told([second, third]) == [(1, "3"), (1, "4")]
    (other,) = run(restarted(min_rows=2))
    assert told([other]) == [(4, "4")], "another watcher has seen nothing"

    (mine,) = (path for path in (tmp_path / "mlops").rglob("*.json") if '"3"' in path.read_text())
    mine.write_text("cut of")
    (all_of_them,) = run(restarted())
    assert told([all_of_them]) == [(4, "4")]
    assert "what is there is told of again" in caplog.text


def test_it_takes_min_rows(sqlite: Execute) -> None:
    sqlite(insert(1, 2))
    (event,) = run(watcher(min_rows=2))
    assert told([event]) == [(2, "2")]
    with pytest.raises(asyncio.TimeoutError):
        run(watcher(min_rows=3), seconds=1)


def test_watchers_of_one_database_share_a_poll(sqlite: Execute, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a triggerer of Airflow 3.3 does it; a table that is missing is in nobody's way."""
    shared_stream = pytest.importorskip("airflow.triggers.shared_stream", reason="Airflow before 3.3 shares no polls")
    sqlite(insert(1, 2), "create table visits (id integer)", "insert into visits values (7)")
    looks: list[Any] = []

    def look(database: Any, query: Any, *rest: Any, look: Any = rows.new_rows.look) -> Any:
        looks.append(str(query))
        return look(database, query, *rest)

    monkeypatch.setattr(rows.new_rows, "look", look)
    triggers = [watcher(poll_interval=600.0, **more) for more in ({}, {"min_rows": 2}, {"table": "visits"})]
    missing = watcher(poll_interval=600.0, table="gone")

    async def watch() -> list[Any]:
        manager = shared_stream.SharedStreamManager(log=shared_stream.log)
        waiting = []
        for number, trigger in enumerate((missing, *triggers)):
            stream = manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
            waiting.append(asyncio.ensure_future(anext(trigger.filter_shared_stream(stream))))
        nobody, *others = waiting
        try:
            found = [(await asyncio.wait_for(one, 120)).payload for one in others]
            assert not nobody.done()
            return found
        finally:
            nobody.cancel()
            await manager.stop_all()

    assert told(asyncio.run(watch())) == [(2, "2"), (2, "2"), (1, "7")]
    assert len(looks) == 3, "one look at each table: orders, visits, and the one that is gone"


def test_times_on_postgres_with_late_commits_and_a_restart_of_the_server(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    schema = f"rows_{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", postgres.airflow_uri)
    postgres.execute(f"create schema {schema}", f"create table {schema}.o (at timestamptz)")

    def add(*times: str) -> None:
        postgres.execute(*(f"insert into {schema}.o values ('2026-01-01 {one}+00')" for one in times))

    def late() -> None:
        add("10:20")
        postgres.restart()

    state = AssetState()
    add("10:00", "10:30")
    events = run(watcher(state, table=f"{schema}.o", column="at", overlap="15m"), late, lambda: add("11:00"))
    assert [one["new"]["rows"] for one in events] == [2, 1, 1]
    assert events[2]["watermark"].startswith("2026-01-01 11:00")
    (again,) = run(watcher(state, table=f"{schema}.o", column="at", overlap="15m"), seconds=60)
    assert again["id"] == events[2]["id"]
    assert PASSWORD not in caplog.text + str(events)


def test_what_goes_wrong_is_logged_and_looked_for_again(
    sqlite: Execute, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float, wait: Any = asyncio.sleep) -> None:
        waited.append(seconds)
        if len(waited) == 1:
            sqlite("alter table orders rename column number to id", insert(1))
        await wait(seconds)

    sqlite("alter table orders rename column id to number")
    monkeypatch.setattr(rows.asyncio, "sleep", sleep)
    (event,) = run(watcher())
    assert told([event]) == [(1, "1")]
    assert "MissingColumn" in caplog.text or "no such column" in caplog.text or "column" in caplog.text


def sensor(**more: Any) -> NewRowsSensor:
    given = {"conn_id": "shop", "table": "orders", "column": "id", "poke_interval": 0.05, "timeout": 1.0}
    return NewRowsSensor(**{"task_id": "wait", **given, **more})


def finish(task: NewRowsSensor, caught: TaskDeferred) -> Any:
    event, end = run(caught.trigger, lambda: None)
    assert end == "end"
    return getattr(task, caught.method_name)({}, event=event)


def test_the_sensor_returns_the_same_deferred_or_not(sqlite: Execute) -> None:
    task = sensor(deferrable=True)
    with pytest.raises(TaskDeferred) as caught:
        task.execute({})
    sqlite(insert(1, 2))
    found = finish(task, caught.value)
    assert found == sensor().execute(SimpleNamespace()) == sensor(deferrable=True).execute({})  # type: ignore[arg-type]
    assert told([found]) == [(2, "2")]
    with pytest.raises(AirflowSensorTimeout):
        sensor(since=found, timeout=0.1).execute({})
    sqlite(insert(2))
    assert told([sensor(since=found).execute({})]) == [(1, "2")]
    assert told([sensor(since=1).execute({})]) == [(2, "2")]


def test_the_sensor_says_whether_to_try_again(sqlite: Execute) -> None:
    for deferrable in (False, True):
        with pytest.raises(MlopsUnavailable, match="secrets back end"):
            sensor(conn_id="other", deferrable=deferrable).execute({})
        with pytest.raises(MlopsFailed, match="no such column"):
            sensor(column="absent", deferrable=deferrable).execute({})
        with pytest.raises(MlopsFailed, match="value of the column"):
            sensor(since={"a": 1}, deferrable=deferrable).execute({})
        sqlite(insert(1))
        for overlap in ("5m", -5):
            with pytest.raises(MlopsFailed, match="overlap must be a number"):
                sensor(overlap=overlap, deferrable=deferrable).execute({})
    with pytest.raises(ValueError, match="either table"):
        sensor(sql="select 1")
    with pytest.raises(ValueError, match="min_rows"):
        NewRowsEventTrigger(conn_id="c", table="t", column="c", min_rows=0)
