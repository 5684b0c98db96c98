"""Tables and queries that are validated where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.data.publishing import describe
from airflow_mlops.core.data.sql import Query, described
from airflow_mlops.core.data.sql_connection import open_database
from airflow_mlops.core.data.sql_types import SqlColumn
from airflow_mlops.core.data.timespan import Span
from airflow_mlops.core.errors import MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.validation.expectations import Expectation
from airflow_mlops.core.validation.measure import judge
from airflow_mlops.core.validation.outcome import Exposure
from airflow_mlops.core.validation.pushdown import SqlSubject
from airflow_mlops.core.validation.verdict import Validation
from airflow_mlops.core.vocabulary import DatasetRef, Window, check_roles, role_columns

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Rows that are looked at for types, where only values tell them.
SAMPLE = 1_000


def validate_table(
    context: StepContext,
    expectations: list[Expectation],
    *,
    table: str | None,
    sql: str | None,
    conn_id: str | None,
    parameters: Mapping[str, Any] | None,
    columns: Mapping[str, str] | None,
    window: dict[str, Any] | None,
    roles: dict[str, Any] | None,
    target: str | None,
    name: str | None,
    show_values: bool,
) -> tuple[Validation, DatasetRef, dict[str, str]]:
    """Hold a table, or the rows of a query, to expectations in its database.

    :param columns: ``{our name: their name}`` of columns that expectations and roles call by another name.
    :return: the verdict, a ref of what was read, and the columns' types.
    """
    roles = check_roles({**(roles or {}), **({"target": target} if target else {})})
    asked = Window.of(window)
    if asked is not None and not roles.get("time"):
        raise SpecError("a window of a table needs the role 'time': the column that says which rows are inside")
    database = open_database(conn_id)
    query = Query.of_table(str(table), database) if table else Query.of(sql, parameters)
    with database.reading() as connection:
        found = described(database, connection, query, sample=SAMPLE)
        known, rows_of = _renamed(query, found, columns or {}, database.where)
        types = {column.name: str(column.type) if column.type is not None else column.sql for column in known}
        _check_roles(roles, types, database.where)
        rows_of, span = _inside(rows_of, known, roles.get("time"), asked)
        with database.errors():
            count, first, last = _extent(connection, rows_of, roles.get("time"))
        ref = _ref(
            context, database.where, query, table, types, count, asked or _window(span, first, last), roles, name
        )
        context.log.info("%s: %d expectations on %s rows, in the database", ref.name, len(expectations), count)
        exposure = Exposure(values=show_values, private=frozenset(role_columns(roles, "private")))
        subject = SqlSubject(database, connection, rows_of, known, count, exposure)
        outcomes = judge(subject, expectations)
    return Validation(rows=count, columns=list(types), outcomes=outcomes), ref, types


def _renamed(
    query: Query, found: list[SqlColumn], columns: Mapping[str, str], where: str
) -> tuple[list[SqlColumn], Any]:
    """Return the columns under the names that expectations use, and the statement that gives them."""
    import sqlalchemy as sa

    theirs = [column.name for column in found]
    for ours, name in columns.items():
        if name not in theirs:
            raise MissingColumnError(
                f"columns: {ours!r} stands for {name!r}, which is not in {where}{did_you_mean(str(name), theirs)}",
                column=name,
            )
    ours_of = {name: ours for ours, name in columns.items()}
    known = [SqlColumn(ours_of.get(c.name, c.name), c.type, c.sql, c.cast, c.convert) for c in found]
    names = [column.name for column in known]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SpecError(f"columns: {twice!r} stands for one column and is the name of another; map that one too")
    inner = query.subquery(theirs)
    # Numbers of any precision are compared as numbers; what Arrow has no type for, as text.
    picked = [
        (sa.cast(inner.c[c.name], c.cast) if c.cast is not None and c.sql != "numeric" else inner.c[c.name]).label(new)
        for c, new in zip(found, names, strict=True)
    ]
    return known, sa.select(*picked)


def _check_roles(roles: dict[str, Any], types: dict[str, str], where: str) -> None:
    for role, value in roles.items():
        for column in role_columns({role: value}) if role != "label_delay" else []:
            if column not in types:
                raise MissingColumnError(
                    f"the role {role!r} names the column {column!r}, which is not in {where}"
                    f"{did_you_mean(str(column), types)}",
                    column=column,
                )


def _inside(rows_of: Any, known: list[SqlColumn], time: Any, asked: Window | None) -> tuple[Any, Span | None]:
    import pyarrow as pa

    if not time:
        return rows_of, None
    schema = pa.schema([pa.field(c.name, c.type if c.type is not None else pa.string()) for c in known])
    span = Span(schema, time, asked)
    if asked is not None:
        lower, upper = span.bounds()
        column = rows_of.selected_columns[time].element
        rows_of = rows_of.where((column >= lower) & (column < upper))
    return rows_of, span


def _extent(connection: Any, rows_of: Any, time: Any) -> tuple[int, Any, Any]:
    import sqlalchemy as sa

    inner = rows_of.subquery("extent")
    figures: list[Any] = [sa.func.count()]
    if time:
        figures += [sa.func.min(inner.c[time]), sa.func.max(inner.c[time])]
    count, *ends = connection.execute(sa.select(*figures).select_from(inner)).one()
    return int(count), *(ends or (None, None))


def _window(span: Span | None, first: Any, last: Any) -> Window | None:
    import pyarrow as pa

    if span is None or first is None:
        return None
    span._note(pa.array([first, last], span.type))
    return span.found


def _ref(
    context: StepContext,
    where: str,
    query: Query,
    table: str | None,
    types: dict[str, str],
    rows: int,
    window: Window | None,
    roles: dict[str, Any],
    name: str | None,
) -> DatasetRef:
    """Return a ref of rows that stay where they are.

    Its digest is a manifest: of where and what was asked, the columns, how many rows and which window, not of values.
    """
    listed, schema_uri = describe(context.store, types)
    period = {"start": window.start, "end": window.end} if window else None
    asked = [where, query.text, digests.of_json({k: str(v) for k, v in query.parameters.items()})]
    return DatasetRef(
        name=name or (str(table).replace('"', "").rpartition(".")[2] if table else query.name),
        uri=f"{where}#{table}" if table else where,
        digest=digests.of_json([*asked, list(types.items()), rows, period]),
        format="table" if table else "query",
        rows=rows,
        columns=listed,
        schema_uri=schema_uri,
        window=period,
        roles=roles,
        source=f"{where}: {table or query.shown}",
    )
