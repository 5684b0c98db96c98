"""Whether a table has rows that were not there at the last look, by a column that grows.

A look counts the rows from a :class:`Mark` on and moves the mark to the greatest value of the column. Rows that share
the greatest value with older ones are told apart by their number; rows that are committed late, with a smaller value
than others before them, are found within ``overlap``. Where rows were deleted the mark goes back to what is left.
"""

from __future__ import annotations

import datetime as dt
import decimal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.data.sql import Query
from airflow_mlops.core.errors import MissingColumnError, SpecError, UnsupportedError
from airflow_mlops.core.vocabulary import SCHEMA, parse_duration

if TYPE_CHECKING:
    from airflow_mlops.core.data.sql_connection import Database

KIND = "new_rows"
#: JSON name of each type that a watermark column may have, and how its text is read.
_TYPES: dict[str, tuple[type, Any]] = {
    "datetime": (dt.datetime, dt.datetime.fromisoformat),
    "date": (dt.date, dt.date.fromisoformat),
    "integer": (int, int),
    "decimal": (decimal.Decimal, decimal.Decimal),
    "number": (float, float),
    "text": (str, str),
}


@dataclass(frozen=True)
class Mark:
    """What was seen of a table.

    :param watermark: the greatest value of the column; None: nothing was seen.
    :param start: from here on the rows that were there are known by their number; None: only rows above the watermark
        are new.
    :param rows: how many rows there were from ``start`` on.
    :param deletions: looks that found fewer rows than before: rows that come then, and make the table look as it did,
        are told of under another id.
    """

    watermark: Any = None
    start: Any = None
    rows: int = 0
    deletions: int = 0

    @classmethod
    def of(cls, value: Any) -> Mark:
        """Read what :meth:`to_dict` wrote, an event or result that holds it, a value of the column, or nothing.

        :raises SpecError: for a dict that is none of these.
        """
        if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
            return cls()
        if not isinstance(value, dict):
            return cls(value)
        mark = value.get("mark", value)
        try:
            watermark = _read(mark["watermark"])
            return cls(watermark, _read(mark["start"]), int(mark["rows"]), int(mark.get("deletions", 0)))
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise SpecError(
                "since must be a value of the column, or what a NewRowsSensor returned ({'id', 'mark', ...})"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        found = {"watermark": _written(self.watermark), "start": _written(self.start), "rows": self.rows}
        return {**found, "deletions": self.deletions} if self.deletions else found


def _written(value: Any) -> Any:
    if value is None:
        return None
    for name, (kind, _) in _TYPES.items():
        if isinstance(value, kind) and not isinstance(value, bool):
            return {"type": name, "value": value.isoformat() if isinstance(value, dt.date) else str(value)}
    raise UnsupportedError(
        f"the watermark column has values of type {type(value).__name__}; it must hold numbers, times or text"
    )


def _read(value: Any) -> Any:
    return None if value is None else _TYPES[value["type"]][1](value["value"])


def query_of(database: Database, table: str | None, sql: str | None) -> Query:
    """Return the statement whose rows are counted.

    :raises SpecError: unless exactly one of the two is given, or for what is no table and no query.
    """
    if bool(table) == bool(sql):
        raise SpecError("give either table='schema.name' or sql='select ...'")
    return Query.of(sql) if sql else Query.of_table(str(table), database)


def look(database: Database, query: Query, column: str, mark: Mark, overlap: str | float | None) -> tuple[Mark, int]:
    """Return the mark as it is now and how many new rows there are, seen at one instant; less than 0: some are gone.

    :param overlap: how far below the watermark late rows are looked for: a duration for a column of times, else a
        number; None: not at all.
    :raises SpecError: if the overlap does not go with the column's type.
    """
    import sqlalchemy as sa

    rows = query.subquery([column])
    value = rows.c[column]

    def counted(connection: Any, condition: Any) -> tuple[int, Any]:
        statement = sa.select(sa.func.count(value), sa.func.max(value)).select_from(rows)
        number, most = connection.execute(statement if condition is None else statement.where(condition)).one()
        return int(number), most

    known, since = mark.rows, None
    if mark.start is not None:
        since = value >= mark.start
    elif mark.watermark is not None:
        since, known = value > mark.watermark, 0
    try:
        with database.reading() as connection:
            number, most = counted(connection, since)
            gone = mark.deletions + (number < known)
            if most is None and mark.start is not None:
                # All that was counted is gone: what is left ends further down.
                _, most = counted(connection, None)
                gone = mark.deletions + 1
            if most is None:
                return replace(mark, rows=0) if mark.start is None else Mark(deletions=gone), -known
            start = _below(most, overlap)
            if start != mark.start:
                return Mark(most, start, counted(connection, value >= start)[0], gone), number - known
            return Mark(most, start, number, gone), number - known
    except MissingColumnError as error:
        raise MissingColumnError(f"{database.where}: {error.message}", column=column) from error


def _below(value: Any, overlap: str | float | None) -> Any:
    if overlap is None or overlap == "":
        return value
    if isinstance(value, dt.date):
        return value - parse_duration(overlap)
    if isinstance(value, (int, float, decimal.Decimal)):
        try:
            below = type(value)(overlap)
        except (TypeError, ValueError, ArithmeticError):
            below = type(value)(-1)
        if below < 0:
            raise SpecError(f"overlap must be a number as the column is, and not below 0; got {overlap!r}")
        return value - below  # type: ignore[operator]
    raise SpecError("overlap needs a column of numbers or times; cast a column of text in sql, or leave overlap out")


def place_of(database: Database, table: str | None, sql: str | None, column: str, overlap: Any) -> str:
    """Return what a mark is of: with another table, column or overlap it does not count."""
    return digests.of_json([database.where, table, sql, column, overlap])


def arrival(place: str, table: str | None, column: str, before: Mark, now: Mark, new: int) -> dict[str, Any]:
    """Return what came; its id is the same whenever the same rows are seen."""
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "id": digests.of_json([place, now.to_dict()]),
        "table": table,
        "column": column,
        "watermark": str(now.watermark),
        "previous": None if before.watermark is None else str(before.watermark),
        "new": {"rows": new},
        "mark": now.to_dict(),
    }
