"""NewRowsSensor: wait for new rows in a table."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_mlops.core.data.new_rows import Mark
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.exceptions import raise_error_of, translate

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger("airflow_mlops.task")


class NewRowsSensor(BaseSensorOperator):
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

    template_fields: Sequence[str] = ("conn_id", "column", "table", "sql", "since", "overlap")
    ui_color = "#e8f1fa"

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
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
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
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Look once and defer, or look until there are enough."""
        if not self.deferrable:
            return super().execute(context)
        from airflow_mlops.triggers.rows import ARGUMENTS, NewRowsSensorTrigger

        found = self._look()
        if not found:
            given = {name: getattr(self, name) for name in (*ARGUMENTS, "since") if name != "poll_interval"}
            self.defer(
                trigger=NewRowsSensorTrigger(**given, poll_interval=self.poke_interval),
                method_name="execute_complete",
                timeout=dt.timedelta(seconds=self.timeout),
            )
        return found

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the trigger found, or raise what it met."""
        raise_error_of(event)
        return _told(event["arrival"])

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look once."""
        found = self._look()
        return PokeReturnValue(is_done=True, xcom_value=found) if found else False

    def _look(self) -> dict[str, Any] | None:
        from airflow_mlops.triggers.rows import Look

        table = Look(self)
        try:
            since = Mark.of(self.since)
            now, new = table.now(since)
        except MlopsError as error:
            raise translate(error) from error
        return _told(table.arrival(since, now, new)) if new >= self.min_rows else None


def _told(found: dict[str, Any]) -> dict[str, Any]:
    log.info("%s new rows of %s, up to %s", found["new"]["rows"], found["table"] or "the query", found["column"])
    return found
