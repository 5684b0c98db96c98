"""NewRowsSensor: wait for new rows in a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.new_rows import Mark
from airflow_mlops.sensors.base import LookingSensor

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

log = logging.getLogger("airflow_mlops.task")


class NewRowsSensor(LookingSensor):
    """Wait until a table, or a query, has rows that were not there before.

    Returns what came: ``id`` (the same whenever the same rows are seen), ``table``, ``column``, ``watermark`` (the
    greatest value of the column) and ``previous``, ``new``: ``rows``, and ``mark``. It can be given as ``since`` to the
    next run.

    :param conn_id: connection to the database, of any type whose provider has a hook for SQL. (templated)
    :param column: a column that grows: an identity, a sequence, the time of loading. Rows in which it is null do not
        count. (templated)
    :param table: ``name``, ``schema.name`` or ``database.schema.name``; or ``sql``: a query with that column.
        (templated)
    :param sql: the query. (templated)
    :param since: rows above this value are new, such as ``"{{ prev_start_date_success }}"``; or what a former run of
        this sensor returned. Default: each row is new. (templated)
    :param overlap: how far below the watermark of a former run late rows are looked for: ``"15m"`` for a column of
        times, else a number. Default: not at all. (templated)
    :param min_rows: so many new rows it takes.
    :param deferrable: wait in the triggerer, not in a worker; default ``[operators] default_deferrable``.
    :raises ValueError: in the constructor, for both or none of ``table`` and ``sql``, or a ``min_rows`` below 1.
    """

    finds = "arrival"
    template_fields: Sequence[str] = ("conn_id", "column", "table", "sql", "since", "overlap")

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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        from airflow_mlops.triggers.rows import check_arguments

        check_arguments(table, sql, min_rows)
        self.conn_id = conn_id
        self.column = column
        self.table = table
        self.sql = sql
        self.since = since
        self.overlap = overlap
        self.min_rows = min_rows

    def look(self, context: Context) -> dict[str, Any] | None:
        """Look once."""
        from airflow_mlops.triggers.rows import Look

        table, since = Look(self), Mark.of(self.since)
        now, new = table.now(since)
        return table.arrival(since, now, new) if new >= self.min_rows else None

    def trigger(self, context: Context) -> BaseTrigger:
        """Return the trigger that looks from now on."""
        from airflow_mlops.triggers.rows import ARGUMENTS, NewRowsSensorTrigger

        given = {name: getattr(self, name) for name in (*ARGUMENTS, "since") if name != "poll_interval"}
        return NewRowsSensorTrigger(**given, poll_interval=self.poke_interval)

    def tell(self, found: dict[str, Any]) -> None:
        """Log what was found."""
        log.info("%s new rows of %s, up to %s", found["new"]["rows"], found["table"] or "the query", found["column"])
