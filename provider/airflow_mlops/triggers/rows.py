"""Triggers that wait for new rows in a table: one for a sensor, one for an asset."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_mlops.core.data import new_rows
from airflow_mlops.core.data.new_rows import Mark
from airflow_mlops.core.data.sql_connection import open_database
from airflow_mlops.core.errors import SpecError
from airflow_mlops.triggers import polling, watermark

log = logging.getLogger("airflow_mlops.task")

WATERMARK = "mlops_new_rows"
ARGUMENTS = ("conn_id", "table", "sql", "column", "overlap", "min_rows", "poll_interval")


class Look:
    """Looks at a table; from an event loop the query runs in a thread, connections are asked for as Airflow wants."""

    def __init__(self, arguments: Any) -> None:
        self.conn_id: str = arguments.conn_id
        self.table: str | None = arguments.table
        self.sql: str | None = arguments.sql
        self.column: str = arguments.column
        self.overlap: Any = arguments.overlap
        self._url = polling.Renewed(self._ask)
        self.forget = self._url.forget
        self.place = ""

    def _ask(self) -> str:
        from airflow_mlops.hooks.sql import SqlHook

        return SqlHook(self.conn_id).url

    async def soon(self, mark: Mark) -> tuple[Mark, int]:
        """Return the mark as it is now, and how many rows are new."""
        url = await self._url.get()
        return await asyncio.to_thread(self._look, url, mark)

    def now(self, mark: Mark) -> tuple[Mark, int]:
        """Do the same in a worker."""
        return self._look(self._ask(), mark)

    async def find_place(self) -> str:
        """Return what a mark is of."""
        self.place = self._place(await self._url.get())
        return self.place

    def _place(self, url: str) -> str:
        database = open_database(self.conn_id, url)
        return new_rows.place_of(database, self.table, self.sql, self.column, self.overlap)

    def _look(self, url: str, mark: Mark) -> tuple[Mark, int]:
        database = open_database(self.conn_id, url)
        self.place = new_rows.place_of(database, self.table, self.sql, self.column, self.overlap)
        query = new_rows.query_of(database, self.table, self.sql)
        try:
            return new_rows.look(database, query, self.column, mark, self.overlap)
        finally:
            database.engine.dispose()

    def arrival(self, before: Mark, now: Mark, new: int) -> dict[str, Any]:
        """Return what came."""
        return new_rows.arrival(self.place, self.table, self.column, before, now, new)


def check_arguments(table: str | None, sql: str | None, min_rows: Any) -> None:
    """Refuse what no look could use.

    :raises ValueError: naming what is wrong.
    """
    if bool(table) == bool(sql):
        raise ValueError("give either table='schema.name' or sql='select ...'")
    if not isinstance(min_rows, int) or min_rows < 1:
        raise ValueError(f"min_rows must be 1 or more, got {min_rows!r}")


class NewRowsSensorTrigger(BaseTrigger):
    """Wait until a table has new rows, then end.

    Its one event is ``{"arrival": {...}}`` or ``{"error": {...}}``.

    :param conn_id: connection to the database.
    :param column: the watermark column.
    :param table: the table, or ``sql``: a query.
    :param sql: the query.
    :param since: see :class:`airflow_mlops.sensors.rows.NewRowsSensor`.
    :param overlap: how far below the watermark late rows are looked for.
    :param min_rows: so many new rows it takes.
    :param poll_interval: seconds between two looks.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        column: str,
        table: str | None = None,
        sql: str | None = None,
        since: Any = None,
        overlap: str | float | None = None,
        min_rows: int = 1,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.column = column
        self.table = table
        self.sql = sql
        self.since = since
        self.overlap = overlap
        self.min_rows = min_rows
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in (*ARGUMENTS, "since")}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there are enough."""
        table = Look(self)

        async def look() -> dict[str, Any] | None:
            since = Mark.of(self.since)
            now, new = await table.soon(since)
            return table.arrival(since, now, new) if new >= self.min_rows else None

        yield await polling.first_find("arrival", look, table.forget, self.poll_interval)


class NewRowsEventTrigger(BaseEventTrigger):
    """Say that a table has new rows, each time it has, for an ``AssetWatcher``; never ends.

    The event's payload is what :class:`airflow_mlops.sensors.rows.NewRowsSensor` returns. Its ``id`` is the same
    whenever the same rows are seen, so a consumer that knows it already has nothing to do. On Airflow 3.3 and later
    what was seen is kept with the asset, and a triggerer that restarts goes on from there; before that, or when that is
    lost, the rows that are there are told of once more. At first each row is new.

    :param conn_id: connection to the database, of any type whose provider has a hook for SQL.
    :param column: a column that grows: an identity, a sequence, the time of loading. Rows in which it is null do not
        count.
    :param table: ``name``, ``schema.name`` or ``database.schema.name``; or ``sql``: a query with that column.
    :param sql: the query.
    :param overlap: how far below the watermark late rows are looked for: ``"15m"`` for a column of times, else a
        number. Transactions that last long commit rows with values that others have passed. Default: not at all.
    :param min_rows: so many new rows it takes.
    :param poll_interval: seconds between two looks; with an index on the column one costs little.
    :raises ValueError: for both or none of ``table`` and ``sql``, or a ``min_rows`` below 1.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        column: str,
        table: str | None = None,
        sql: str | None = None,
        overlap: str | float | None = None,
        min_rows: int = 1,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check_arguments(table, sql, min_rows)
        self.conn_id = conn_id
        self.column = column
        self.table = table
        self.sql = sql
        self.overlap = overlap
        self.min_rows = min_rows
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in ARGUMENTS}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look for ever; what goes wrong is logged, and looked for again."""
        table = Look(self)
        mark: Mark | None = None
        while True:
            with polling.endured(self.table or "the query", table.forget):
                if mark is None:
                    mark = await self._load(await table.find_place())
                now, new = await table.soon(mark)
                if new >= self.min_rows:
                    yield TriggerEvent(table.arrival(mark, now, new))  # type: ignore[no-untyped-call]
                    mark = now
                    # After the event: killed between the two, it is told of once more, under the same id.
                    await watermark.save(self, WATERMARK, table.place, mark.to_dict())
                elif new < 0:
                    # Rows were deleted; those that come now are new.
                    mark = now
                    await watermark.save(self, WATERMARK, table.place, mark.to_dict())
            await asyncio.sleep(self.poll_interval)

    async def _load(self, place: str) -> Mark:
        try:
            return Mark.of(await watermark.load(self, WATERMARK, place))
        except SpecError as error:
            log.warning("what was seen cannot be read (%s): what is there is told of again", error)
            return Mark()
