"""The step ``snapshot_data``: from files or a query that may change to one version of the data that does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.publishing import Staged, publish, refer
from airflow_mlops.core.data.reading import Source, check_columns, open_source
from airflow_mlops.core.data.timespan import Span
from airflow_mlops.core.errors import EmptyDataError, SpecError
from airflow_mlops.core.extras import require
from airflow_mlops.core.vocabulary import Window, check_roles, role_columns

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.core.data.sql import SqlSource
    from airflow_mlops.core.steps import StepContext

#: Seconds between two lines of progress.
PROGRESS_SECONDS = 10.0


def snapshot_data(
    context: StepContext,
    *,
    source: str | list[str] | None = None,
    sql: str | None = None,
    conn_id: str | None = None,
    order_by: str | list[str] | None = None,
    parameters: dict[str, Any] | None = None,
    name: str | None = None,
    roles: dict[str, Any] | None = None,
    window: dict[str, Any] | None = None,
    columns: list[str] | None = None,
    schema: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Copy a source into the store as one content-addressed Parquet file and return its dataset ref.

    The source is streamed: memory does not grow with it. Nothing is published unless all of it was read and it did
    not change meanwhile. The same rows are stored once, whatever they are called and however they lie in files, and
    the same snapshot taken again returns the same ref.

    :param source: path, folder, glob, ``file://`` or ``s3://`` URI of Parquet, CSV or JSON lines, or a list of these;
        files are read in the order of their paths.
    :param sql: in place of ``source``, a query on the database that the environment variable ``MLOPS_SQL_URL`` names;
        it is read in one transaction through a server-side cursor.
    :param conn_id: what the user calls that database, for messages.
    :param order_by: column or columns that give the query's rows one order; needed with ``sql``.
    :param parameters: values of the query's ``:name`` parameters, bound by the driver.
    :param name: what the dataset is called; default: after the file or its folder, or the query's first table.
    :param roles: what columns mean; see :data:`airflow_mlops.core.vocabulary.ROLE_NAMES`.
    :param window: with a time role only rows inside this half-open window are kept (a time without a zone is UTC; a
        row without a time is in no window); without one it is recorded as it is given. Default: all rows, and with a
        time role the window recorded begins at the earliest time and ends just after the latest (a microsecond, or
        for dates a day).
    :param columns: only these, in this order; default all.
    :param schema: ``{column: type}`` where the types found or inferred are not wanted.
    :raises MissingSourceError: if no file matches.
    :raises EmptyDataError: if there are no rows, or none in the window.
    :raises MissingColumnError: if a column of ``roles``, ``columns`` or ``schema`` is not there.
    :raises MixedSchemaError: if files differ in columns or types.
    :raises CorruptDataError: if a file cannot be read.
    :raises SourceChangedError: if the source changed while it was being read.
    """
    require("pyarrow.parquet", "snapshot_data")
    roles, asked = check_roles(roles), Window.of(window)
    if (source is None or source == "") == (sql is None or sql == ""):
        raise SpecError("snapshot_data takes either 'source' (files) or 'sql' (a query)")
    if not sql:
        _refuse_sql_arguments(conn_id=conn_id, order_by=order_by, parameters=parameters)
    with _opened(source, sql, conn_id, order_by, parameters, schema) as opened:
        kept = _kept_schema(opened, roles, columns)
        span = Span(kept, roles.get("time"), asked)
        _announce(context, opened, len(kept))
        if not isinstance(opened, Source) and asked is not None and span.column is not None:
            opened.keep(span.column, *span.bounds())
        with context.store.staging() as folder:
            staged = Staged(folder / "data.parquet", kept)
            staged.write(span.keep(_with_progress(context, opened, kept.names)))
            opened.check_unchanged()
            if staged.rows == 0:
                _refuse_empty(opened, asked, span)
            digest = publish(context.store, staged)
    ref = refer(
        context.store,
        digest,
        kept,
        rows=staged.rows,
        name=name or opened.name,
        roles=roles,
        window=span.window(),
        source=opened.given,
    )
    context.log.info("dataset %s: %s rows, %s", ref.name, ref.rows, ref.digest)
    if not isinstance(opened, Source) and opened.ties:
        context.log.warning(
            "%s rows have the order_by of the row before them: the database may give them in another order next time, "
            "and the same rows would be another version; add a column to order_by that tells them apart",
            opened.ties,
        )
    return ref.to_dict()


@contextmanager
def _opened(
    source: str | list[str] | None,
    sql: str | None,
    conn_id: str | None,
    order_by: str | list[str] | None,
    parameters: dict[str, Any] | None,
    schema: dict[str, str] | None,
) -> Iterator[Source | SqlSource]:
    if not sql:
        opened = open_source(source or [], types=schema)
        if opened.rows == 0:
            raise EmptyDataError(f"{opened.given} has no rows ({len(opened.files)} files); nothing was stored")
        yield opened
        return
    from airflow_mlops.core.data.sql import open_query

    with open_query(sql, order_by=order_by, parameters=parameters, conn_id=conn_id, types=schema) as query:
        yield query


def _refuse_sql_arguments(**arguments: Any) -> None:
    given = [name for name, value in arguments.items() if value]
    if given:
        raise SpecError(f"{', '.join(map(repr, given))} goes with 'sql'; a source of files takes none")


def _announce(context: StepContext, opened: Source | SqlSource, columns: int) -> None:
    if isinstance(opened, Source):
        text = "reading %s: %s files, %s rows, %s columns"
        context.log.info(text, opened.given, len(opened.files), opened.rows, columns)
    else:
        context.log.info("reading %s: %s columns", opened.given, columns)


def _refuse_empty(opened: Source | SqlSource, asked: Window | None, span: Span) -> None:
    if not isinstance(opened, Source):
        opened.refuse_empty(asked, span.column)
    raise EmptyDataError(
        f"{opened.given} has no rows in the window from {asked.start if asked else '?'} to "
        f"{asked.end if asked else '?'}; {span.described()}",
        window=asked.to_dict() if asked else None,
    )


def _kept_schema(source: Source | SqlSource, roles: dict[str, Any], columns: list[str] | None) -> pyarrow.Schema:
    import pyarrow as pa

    if isinstance(columns, str) or len(set(columns or ())) < len(columns or ()):
        raise SpecError(f"columns must be a list of different names, got {columns!r}")
    known = source.schema.names
    if columns:
        check_columns(columns, known, source.given)
    kept = list(columns or known)
    for role, value in roles.items():
        if role == "label_delay":
            continue
        wanted = role_columns({role: value})
        check_columns(wanted, known, f"{source.given}, which the role {role!r} names")
        left_out = [column for column in wanted if column not in kept]
        if left_out:
            raise SpecError(f"the role {role!r} names the column {left_out[0]!r}, which 'columns' leaves out: add it")
    return pa.schema([source.schema.field(column) for column in kept])


def _with_progress(context: StepContext, source: Source | SqlSource, columns: list[str]) -> Iterator[Any]:
    done, told = 0, time.monotonic()
    rows = source.rows if isinstance(source, Source) else None
    for batch in source.batches(columns):
        yield batch
        done += batch.num_rows
        if time.monotonic() - told > PROGRESS_SECONDS:
            if rows is None:
                context.log.info("%s rows", done)
            else:
                context.log.info("%s of %s rows (%.0f%%)", done, rows, 100 * done / max(rows, 1))
            told = time.monotonic()
