"""Queries as sources: the rows of one statement as a stream of record batches, in bounded memory.

The statement stands inside ``select ... from (statement) where ... order by ...``, so it can only be a query. Its
parameters are bound by the driver, never written into the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_mlops.core.data.arrow_types import check_names, normal_type, parse_type
from airflow_mlops.core.data.reading import check_columns
from airflow_mlops.core.data.sql_connection import Database, open_database
from airflow_mlops.core.data.sql_types import (
    SqlColumn,
    columns_by_value,
    postgres_columns,
    refuse_mixed,
    sqlite_columns,
)
from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, SpecError, UnsupportedError, did_you_mean

if TYPE_CHECKING:
    import pyarrow
    import sqlalchemy

    from airflow_mlops.core.vocabulary import Window

#: Rows that are fetched at a time, at most, and bytes that they may take as Arrow has them.
FETCH_ROWS, FETCH_BYTES = 20_000, 8 << 20
#: The first ones: rows may be wide.
FIRST_ROWS = 100
#: Characters of a query that a ref shows.
SHOWN = 300
_COMMENTS = re.compile(r"\s+|--[^\n]*(?:\n|$)|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Query:
    """One statement with its parameters.

    :param text: the statement, without a semicolon at its end.
    """

    text: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, sql: Any, parameters: Mapping[str, Any] | None = None) -> Query:
        """Check a statement.

        :raises SpecError: if it is empty, does not begin like a query, or parameters are given that it has not.
        """
        text = str(sql or "").strip().rstrip(";").strip()
        start = 0
        while match := _COMMENTS.match(text, start):
            start = match.end()
        word = re.match(r"\(*\s*(\w*)", text[start:])
        if (word[1].lower() if word else "") not in ("select", "with", "values", "table", "from"):
            raise SpecError(
                "sql must be one query, beginning with select or with: it is read, and may change nothing"
                if text[start:]
                else "sql is empty; it must be one query"
            )
        if parameters is not None and not isinstance(parameters, Mapping):
            raise SpecError(f"parameters is an object of values by name, got {type(parameters).__name__}")
        for name in parameters or {}:
            if not re.search(rf"(?<![:\w]):{re.escape(str(name))}\b", text):
                raise SpecError(f"the query has no parameter :{name}")
        return cls(text, dict(parameters or {}))

    @classmethod
    def of_table(cls, name: str, database: Database, columns: Mapping[str, str] | None = None) -> Query:
        """Return the query of a table ``name`` or ``schema.name``; parts in double quotes are taken as they are."""
        part = r'(?:"[^"]+"|[\w$]+)'
        if not re.fullmatch(rf"{part}(?:\.{part}){{0,2}}", str(name)):
            raise SpecError(
                "table is 'name', 'schema.name' or 'database.schema.name', parts with other signs in double quotes; "
                f"got {name!r}"
            )
        parts = [a or b for a, b in re.findall(r'"([^"]+)"|([^."]+)', str(name))]
        quote = database.engine.dialect.identifier_preparer.quote
        return cls(f"select * from {'.'.join(quote(part) for part in parts)}")  # noqa: S608

    def subquery(self, columns: list[str]) -> Any:
        """Return the statement as something to select from, with these columns (none: not known yet)."""
        import sqlalchemy as sa

        # A colon that stands for no parameter, as in a time, is no parameter.
        names = "|".join(re.escape(name) for name in self.parameters)
        keep = rf"(?!(?:{names})\b)" if names else ""
        text = re.sub(rf"(?<![:\w\\]):{keep}(?=\w)", r"\\:", self.text)
        if names:
            # SQLAlchemy does not see a parameter before a cast: ":start::date".
            text = re.sub(rf"(?<![:\w\\]):({names})(?=::)", r":\1 ", text)
        statement = sa.text(text + "\n")
        if names:
            statement = statement.bindparams(
                *[sa.bindparam(k, v, expanding=isinstance(v, (list, tuple))) for k, v in self.parameters.items()]
            )
        return statement.columns(*[sa.column(name) for name in columns]).subquery("mlops_rows")

    @property
    def shown(self) -> str:
        """The statement in one line, cut."""
        line = " ".join(self.text.split())
        return line if len(line) <= SHOWN else line[:SHOWN] + "…"

    @property
    def name(self) -> str:
        """The first table that it reads from."""
        match = re.search(r'\bfrom\s+([\w."]+)', self.text, re.IGNORECASE)
        return match[1].replace('"', "").rpartition(".")[2] if match else "query"


def described(
    database: Database, connection: sqlalchemy.Connection, query: Query, sample: int | None = None
) -> list[SqlColumn]:
    """Return a query's columns with their types.

    :param sample: where only values tell the types, how many rows to look at; default all.
    """
    import sqlalchemy as sa

    probe = sa.select(sa.text("*")).select_from(query.subquery([])).limit(0)
    with database.errors():
        result = connection.execute(probe)
        names = [str(name) for name in result.keys()]  # noqa: SIM118
        description = list(result.cursor.description) if result.cursor is not None else []
        result.close()
    check_names(names, f"the query on {database.where}")
    if database.dialect == "postgresql":
        return postgres_columns(description)
    inner = query.subquery(names)
    with database.errors():
        if database.dialect == "sqlite":
            return sqlite_columns(connection, inner, names)
        statement = sa.select(*inner.c)
        if sample is not None:
            statement = statement.limit(sample)
        result = connection.execute(statement, execution_options={"stream_results": True})
        return columns_by_value(names, iter(lambda: list(result.fetchmany(FETCH_ROWS)), []))


class SqlSource:
    """An opened query: columns and types are known, rows come when asked for.

    :param time: column by which rows are kept inside ``window``, in the database where it has a type of time.
    """

    def __init__(
        self,
        database: Database,
        connection: sqlalchemy.Connection,
        query: Query,
        order_by: list[str],
        types: Mapping[str, Any],
    ) -> None:
        import pyarrow as pa

        self.database = database
        self.connection = connection
        self.query = query
        self.order_by = order_by
        self.given = f"{database.where}: {query.shown}"
        self.found = described(database, connection, query)
        names = [column.name for column in self.found]
        for name in types:
            if name not in names:
                raise MissingColumnError(
                    f"schema: there is no column {name!r} in {self.given}{did_you_mean(name, names)}", column=name
                )
        check_columns(order_by, names, f"{self.given}, which 'order_by' names")
        refuse_mixed([column for column in self.found if column.name not in types], self.given)
        self.types = dict(types)
        self.schema = pa.schema(
            [pa.field(c.name, types.get(c.name) or normal_type(c.type, c.name)) for c in self.found]
        )
        #: How many rows follow one with the same ``order_by``.
        self.ties = 0
        self._where: Any = None

    @property
    def name(self) -> str:
        """The first table of the query."""
        return self.query.name

    def check_unchanged(self) -> None:
        """Do nothing: the transaction sees one instant."""

    def keep(self, time: str | None, lower: Any, upper: Any) -> None:
        """Let the database leave out rows that are not in ``[lower, upper)``; the bounds are Python's.

        Only where the column's own type, not one given in ``schema``, is a time.
        """
        import pyarrow as pa

        column = next((c for c in self.found if c.name == time), None)
        if column is None or time in self.types or column.cast is not None:
            return
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            rows = self.query.subquery([c.name for c in self.found])
            self._where = (rows.c[time] >= lower) & (rows.c[time] < upper), rows

    def batches(self, columns: list[str] | None = None, rows: int = FETCH_ROWS) -> Iterator[pyarrow.RecordBatch]:
        """Yield all rows in their order, as record batches of the schema.

        :raises UnsupportedError: if a value does not fit its column's type.
        :raises CannotReachError: if the connection is lost.
        """
        import pyarrow as pa
        import sqlalchemy as sa

        by_name = {column.name: column for column in self.found}
        wanted = [by_name[name] for name in (columns or by_name)]
        condition, inner = self._where or (None, self.query.subquery(list(by_name)))
        picked = [
            sa.cast(inner.c[c.name], c.cast).label(c.name) if c.cast is not None else inner.c[c.name] for c in wanted
        ]
        statement = sa.select(*picked).order_by(*[inner.c[name] for name in self.order_by])
        if condition is not None:
            statement = statement.where(condition)
        schema = pa.schema([self.schema.field(column.name) for column in wanted])
        last: Any = None
        size = min(FIRST_ROWS, rows)
        with self.database.errors():
            with self._values():
                options = {"stream_results": True, "max_row_buffer": rows}
                result = self.connection.execute(statement, execution_options=options)
            try:
                while True:
                    with self._values():
                        fetched = list(result.fetchmany(size))
                    if not fetched:
                        return
                    batch = _record_batch(fetched, wanted, schema)
                    last = self._count_ties(batch, last)
                    yield batch
                    size = max(1, min(rows, size * 4, FETCH_BYTES * len(fetched) // max(1, batch.nbytes)))
            finally:
                result.close()

    @contextmanager
    def _values(self) -> Iterator[None]:
        """Explain what drivers raise where a value is not one of Python's."""
        try:
            yield
        except (ValueError, OverflowError) as error:
            raise UnsupportedError(
                f"{self.given} has a date or time that Python cannot hold (not between the years 1 and 9999); cast it "
                "to text in the query, or leave it out",
            ) from error

    def _count_ties(self, batch: Any, last: Any) -> Any:
        """Count rows whose ``order_by`` is that of the row before; return the last row's."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.order_by or any(name not in batch.schema.names for name in self.order_by):
            return None
        keys = pa.Table.from_batches([batch.select(self.order_by)])
        keys = keys if last is None else pa.concat_tables([last, keys])
        same: Any = None
        for column in keys.combine_chunks().columns:
            values = column.chunk(0) if column.num_chunks else column
            try:
                equal = pc.equal(values[1:], values[:-1])
            except pa.ArrowNotImplementedError:
                return None
            both = pc.and_(pc.is_null(values[1:]), pc.is_null(values[:-1]))
            equal = pc.or_(pc.fill_null(equal, False), both)
            same = equal if same is None else pc.and_(same, equal)
        self.ties += pc.sum(same).as_py() or 0
        return keys.slice(keys.num_rows - 1)

    def _span_of(self, column: str) -> tuple[Any, Any]:
        """Return the least and the greatest value of a column, whatever window was asked for."""
        import sqlalchemy as sa

        inner = self.query.subquery([c.name for c in self.found])
        with self.database.errors():
            found = self.connection.execute(sa.select(sa.func.min(inner.c[column]), sa.func.max(inner.c[column]))).one()
        return found[0], found[1]

    def refuse_empty(self, window: Window | None, time: str | None) -> NoReturn:
        """Say that there are no rows, and what times there are.

        :raises EmptyDataError: always.
        """
        if window is None or time is None:
            raise EmptyDataError(f"{self.given} has no rows; nothing was stored")
        first, last = self._span_of(time)
        has = f"column {time!r} goes from {first} to {last}" if first is not None else "there are no times at all"
        raise EmptyDataError(
            f"{self.given} has no rows in the window from {window.start} to {window.end}; {has}",
            window=window.to_dict(),
        )


def _record_batch(rows: list[Any], columns: list[SqlColumn], schema: Any) -> Any:
    import pyarrow as pa

    arrays = []
    for values, column, wanted in zip(zip(*rows, strict=True), columns, schema, strict=True):
        data: Any = values
        if column.convert is not None:
            data = [None if value is None else column.convert(value) for value in values]
        try:
            # A column of several types can only be one that the user gave a type.
            array = pa.array(data, column.type if column.type is not None else wanted.type)
            arrays.append(array if array.type == wanted.type else array.cast(wanted.type))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise UnsupportedError(
                f"column {column.name!r} is {column.sql} in the database, and a value of it does not fit "
                f"{wanted.type}; give another type in schema, or cast it in the query",
                column=column.name,
                type=str(wanted.type),
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@contextmanager
def open_query(
    sql: str,
    *,
    order_by: str | list[str] | None,
    parameters: Mapping[str, Any] | None = None,
    conn_id: str | None = None,
    types: Mapping[str, Any] | None = None,
) -> Iterator[SqlSource]:
    """Open a query on the database that ``MLOPS_SQL_URL`` names, in a transaction of its own.

    :param order_by: column or columns that give the rows one order.
    :param types: ``{column: type}`` that win over what the database says.
    :raises SpecError: if there is no ``order_by``, or the statement is no query.
    """
    columns = [order_by] if isinstance(order_by, str) else list(order_by or [])
    if not columns:
        raise SpecError(
            "sql needs order_by: a database gives rows in no order of its own, and the same rows in another order "
            "would be another version of the data; name the key, such as order_by='id'"
        )
    query = Query.of(sql, parameters)
    parsed = {column: parse_type(name, column) for column, name in (types or {}).items()}
    database = open_database(conn_id)
    with database.reading() as connection:
        yield SqlSource(database, connection, query, columns, parsed)
