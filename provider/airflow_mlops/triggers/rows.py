"""Triggers that wait for new rows in a table: one for a sensor, one for an asset."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_mlops.core import digests
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
        return await asyncio.to_thread(self.look, await self.url(), mark)

    async def url(self) -> str:
        """Return the database's URL, password included."""
        return await self._url.get()

    def now(self, mark: Mark) -> tuple[Mark, int]:
        """Do the same in a worker."""
        return self.look(self._ask(), mark)

    def find_place(self, url: str) -> str:
        """Return what a mark is of."""
        self.place = self._place(url)
        return self.place

    def _place(self, url: str) -> str:
        database = open_database(self.conn_id, url)
        return new_rows.place_of(database, self.table, self.sql, self.column, self.overlap)

    def look(self, url: str, mark: Mark) -> tuple[Mark, int]:
        """Ask the database."""
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


@dataclass
class Round:
    """One poll of a database that all its watchers take part in: one after the other, and no question twice.

    :param url: of the database, password included.
    :param forget: has the connection be asked for anew at the next poll.
    """

    url: str = field(repr=False)
    forget: Callable[[], None]
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _answers: dict[str, tuple[Mark, int]] = field(default_factory=dict)

    async def look(self, table: Look, mark: Mark) -> tuple[Mark, int]:
        """Return the mark of a table as it is now, and how many rows are new."""
        asked = digests.of_json([table.table, table.sql, table.column, table.overlap, mark.to_dict()])
        async with self._turn:
            if asked not in self._answers:
                self._answers[asked] = await asyncio.to_thread(table.look, self.url, mark)
            return self._answers[asked]


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
    whenever the same rows are seen, so a consumer that knows it already has nothing to do. What was seen is
    kept with the asset on Airflow 3.3 and later, before that in the store, and a triggerer that restarts goes on from
    there; when that is lost, the rows that are there are told of once more. At first each row is new.

    On Airflow 3.3 and later all watchers of one connection with the same ``poll_interval`` share one poll: the
    connection is asked for once, tables are looked at one after the other, and one that several watch is asked once.

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

    def shared_stream_key(self) -> Hashable:
        """Return what watchers of one database have in common (Airflow 3.3 and later)."""
        return (type(self).__name__, self.conn_id, str(self.poll_interval))

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Round]:
        """Poll for ever; what goes wrong is logged, and tried again."""
        database = Look(cls(**kwargs))
        while True:
            with polling.endured(f"the connection {database.conn_id}", database.forget):
                yield Round(await database.url(), database.forget)
            await asyncio.sleep(kwargs.get("poll_interval", 60.0))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Round]) -> AsyncIterator[TriggerEvent]:
        """Tell of this trigger's table; what goes wrong with it is logged, and looked for again."""
        table = Look(self)
        mark: Mark | None = None
        async for poll in shared_stream:
            with polling.endured(self.table or "the query", poll.forget):
                if mark is None:
                    mark = await self._load(table.find_place(poll.url))
                now, new = await poll.look(table, mark)
                if new >= self.min_rows:
                    yield TriggerEvent(table.arrival(mark, now, new))  # type: ignore[no-untyped-call]
                    mark = now
                    # After the event: killed between the two, it is told of once more, under the same id.
                    await watermark.told(self, WATERMARK, table.place, mark.to_dict())
                elif now.deletions > mark.deletions:
                    # Rows were deleted; those that come now are new.
                    mark = now
                    await watermark.save(self, WATERMARK, table.place, mark.to_dict())

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Do the same with a poll of its own, where Airflow shares none."""
        async for event in self.filter_shared_stream(self.open_shared_stream(self.serialize()[1])):
            yield event

    async def _load(self, place: str) -> Mark:
        try:
            return Mark.of(await watermark.load(self, WATERMARK, place))
        except SpecError as error:
            log.warning("what was seen cannot be read (%s): what is there is told of again", error)
            return Mark()
