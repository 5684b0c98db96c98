"""Types of a query's columns as Arrow has them.

On Postgres they come from the description of the query, without reading a row; what Arrow has no type for is cast to
text by the server. SQLite types values, not columns, so all values are looked at, by the database. Elsewhere the
values decide.

``numeric`` becomes a double where every value of its precision survives that (up to 15 digits) and where it has no
precision, as in pandas; whole numbers of up to 18 digits become 64-bit integers; everything else is an exact decimal.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import MixedSchemaError

if TYPE_CHECKING:
    import sqlalchemy

#: Digits of any decimal number that a double gives back.
DOUBLE_DIGITS = 15
#: Digits of any whole number that 64 bits hold.
INT64_DIGITS = 18


@dataclass(frozen=True)
class SqlColumn:
    """A column of a query.

    :param type: its Arrow type; None where its values are of several.
    :param sql: what the database calls the type.
    :param cast: SQLAlchemy's type that the server casts to, or None.
    :param convert: what is done to each value that is not null, or None.
    """

    name: str
    type: Any
    sql: str
    cast: Any = None
    convert: Callable[[Any], Any] | None = None


def postgres_columns(description: Any) -> list[SqlColumn]:
    """Return the columns of a cursor's description, by their OIDs."""
    import pyarrow as pa
    import sqlalchemy as sa

    plain = {
        16: ("boolean", pa.bool_()),
        20: ("bigint", pa.int64()),
        21: ("smallint", pa.int16()),
        23: ("integer", pa.int32()),
        26: ("oid", pa.int64()),
        700: ("real", pa.float32()),
        701: ("double precision", pa.float64()),
        18: ("char", pa.string()),
        19: ("name", pa.string()),
        25: ("text", pa.string()),
        1042: ("char", pa.string()),
        1043: ("varchar", pa.string()),
        1082: ("date", pa.date32()),
        1083: ("time", pa.time64("us")),
        1114: ("timestamp", pa.timestamp("us")),
        1184: ("timestamptz", pa.timestamp("us", "UTC")),
        1186: ("interval", pa.duration("us")),
    }
    arrays = {1000: 16, 1005: 21, 1007: 23, 1016: 20, 1021: 700, 1022: 701, 1009: 25, 1014: 1042, 1015: 1043}
    arrays |= {1115: 1114, 1182: 1082, 1185: 1184}
    texts = {114: "json", 3802: "jsonb", 2950: "uuid", 869: "inet", 650: "cidr", 142: "xml", 790: "money"}
    columns = []
    for entry in description:
        name, oid = entry[0], entry[1]
        if oid in plain:
            columns.append(SqlColumn(name, plain[oid][1], plain[oid][0]))
        elif oid == 17:
            columns.append(SqlColumn(name, pa.binary(), "bytea", convert=bytes))
        elif oid in arrays:
            kind, element = plain[arrays[oid]]
            columns.append(SqlColumn(name, pa.list_(element), f"{kind}[]"))
        elif oid == 1231:
            columns.append(SqlColumn(name, pa.list_(pa.float64()), "numeric[]", cast=sa.ARRAY(sa.Double())))
        elif oid == 1700:
            columns.append(_numeric(name, *_precision(entry)))
        else:
            columns.append(SqlColumn(name, pa.string(), texts.get(oid, "text"), cast=sa.Text()))
    return columns


def _precision(entry: Any) -> tuple[int | None, int]:
    precision = getattr(entry, "precision", None)
    scale = getattr(entry, "scale", None) or 0
    # Without a precision some versions of the driver give nonsense.
    return (precision, scale) if precision and 0 < precision <= 76 and 0 <= scale <= precision else (None, 0)


def _numeric(name: str, precision: int | None, scale: int) -> SqlColumn:
    import pyarrow as pa
    import sqlalchemy as sa

    if precision is None:
        return SqlColumn(name, pa.float64(), "numeric", cast=sa.Double())
    sql = f"numeric({precision},{scale})"
    if scale == 0 and precision <= INT64_DIGITS:
        return SqlColumn(name, pa.int64(), sql, cast=sa.BigInteger())
    if precision <= DOUBLE_DIGITS:
        return SqlColumn(name, pa.float64(), sql, cast=sa.Double())
    return SqlColumn(name, (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale), sql)


def sqlite_columns(connection: sqlalchemy.Connection, query: Any, names: list[str]) -> list[SqlColumn]:
    """Return the columns of a query on SQLite, by the types of all their values."""
    import pyarrow as pa
    import sqlalchemy as sa

    kinds = ("integer", "real", "text", "blob")
    types = {"integer": pa.int64(), "real": pa.float64(), "text": pa.string(), "blob": pa.binary()}
    found: list[tuple[str, ...]] = []
    # SQLite takes 2,000 columns in a result.
    for start in range(0, len(names), 400):
        part = names[start : start + 400]
        of = [sa.func.max(sa.func.typeof(query.c[name]) == sa.literal(kind)) for name in part for kind in kinds]
        row = list(connection.execute(sa.select(*[one.label(f"k{i}") for i, one in enumerate(of)])).one())
        for i in range(len(part)):
            flags = row[4 * i : 4 * i + 4]
            found.append(tuple(kind for kind, there in zip(kinds, flags, strict=True) if there))
    columns = []
    for name, there in zip(names, found, strict=True):
        if not there:
            columns.append(SqlColumn(name, pa.null(), "null"))
        elif there == ("integer", "real"):
            columns.append(SqlColumn(name, pa.float64(), "real", convert=float))
        elif len(there) == 1:
            columns.append(SqlColumn(name, types[there[0]], there[0]))
        else:
            columns.append(SqlColumn(name, None, " and ".join(there)))
    return columns


def columns_by_value(names: list[str], batches: Iterable[list[Any]]) -> list[SqlColumn]:
    """Return columns by what their values are to Python.

    :param batches: lists of rows.
    """
    kinds: list[set[type]] = [set() for _ in names]
    digits = [[0, 0] for _ in names]
    for rows in batches:
        for i, values in enumerate(zip(*rows, strict=True)):
            kinds[i].update(set(map(type, values)))
            if decimal.Decimal in kinds[i]:
                _widen(digits[i], values)
    return [_by_value(name, kinds[i] - {type(None)}, *digits[i]) for i, name in enumerate(names)]


def _widen(digits: list[int], values: Any) -> None:
    for value in values:
        if isinstance(value, decimal.Decimal) and value.is_finite():
            _, figures, exponent = value.as_tuple()
            scale = max(0, -int(exponent))
            digits[1] = max(digits[1], scale)
            digits[0] = max(digits[0], max(len(figures) + int(exponent), 0))


def _by_value(name: str, kinds: set[type], whole: int, scale: int) -> SqlColumn:
    import pyarrow as pa

    simple: dict[type, tuple[Any, str]] = {
        bool: (pa.bool_(), "boolean"),
        int: (pa.int64(), "bigint"),
        float: (pa.float64(), "double"),
        str: (pa.string(), "text"),
        dt.date: (pa.date32(), "date"),
        dt.datetime: (pa.timestamp("us"), "timestamp"),
        dt.time: (pa.time64("us"), "time"),
        dt.timedelta: (pa.duration("us"), "interval"),
        bytes: (pa.binary(), "binary"),
    }
    if not kinds:
        return SqlColumn(name, pa.null(), "null")
    if kinds <= {int, float, decimal.Decimal} and len(kinds) > 1:
        return SqlColumn(name, pa.float64(), "double", convert=float)
    if kinds == {decimal.Decimal}:
        if whole + scale <= DOUBLE_DIGITS:
            return SqlColumn(name, pa.float64(), "numeric", convert=float)
        make = pa.decimal128 if whole + scale <= 38 else pa.decimal256
        return SqlColumn(name, make(min(whole + scale, 76), scale), "numeric")
    if kinds <= {bytes, bytearray, memoryview}:
        return SqlColumn(name, pa.binary(), "binary", convert=bytes)
    if kinds == {uuid.UUID}:
        return SqlColumn(name, pa.string(), "uuid", convert=str)
    if kinds <= {dict, list}:
        return SqlColumn(name, pa.string(), "json", convert=_as_json)
    if len(kinds) == 1 and (kind := next(iter(kinds))) in simple:
        return SqlColumn(name, simple[kind][0], simple[kind][1])
    return SqlColumn(name, None, " and ".join(sorted(one.__name__ for one in kinds)))


def _as_json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def refuse_mixed(columns: Iterable[SqlColumn], where: str) -> None:
    """Refuse columns whose values are of several types.

    :raises MixedSchemaError: naming the first, and what is in it.
    """
    for column in columns:
        if column.type is None:
            raise MixedSchemaError(
                f"column {column.name!r} of {where} holds {column.sql}; cast it in the query to one of them",
                column=column.name,
            )
