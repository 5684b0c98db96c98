"""What type a column has, under every name that people write for it.

The same column is ``int64`` to Arrow, ``int64`` or (with nulls) ``float64`` to pandas, ``int`` to Python; text is
``object`` to pandas 2, ``str`` to pandas 3, ``string`` to Arrow. Great Expectations compares with pandas' name alone,
so that an upgrade of pandas, or the first null, reads as schema skew. Here a column answers to all of its names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_mlops.core.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    import pandas

_WIDTHS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")

#: Name that a user may write, in lower case -> the trait that a column must have.
_NAMES: dict[str, str] = {name: name for name in _WIDTHS} | {
    name: trait
    for trait, names in {
        "integer": ("int", "integer", "integral"),
        "int8": ("tinyint",),
        "int16": ("smallint", "short"),
        "int64": ("bigint", "long", "int_"),
        "floating": ("float", "floating", "real", "float_"),
        "float16": ("halffloat",),
        "float64": ("double", "double precision"),
        "number": ("number", "numeric"),
        "string": ("str", "string", "large_string", "string_view", "utf8", "text", "varchar", "char", "stringdtype"),
        "object": ("object", "object_", "o"),
        "bool": ("bool", "bool_", "boolean"),
        "timestamp": ("datetime", "timestamp", "datetime64"),
        "timestamp with zone": ("datetimetz", "datetime64tz", "timestamptz", "datetimetzdtype"),
        "date": ("date", "date32", "date64", "date32[day]", "date64[ms]"),
        "time": ("time", "time32", "time64", "time32[s]", "time32[ms]", "time64[us]", "time64[ns]"),
        "duration": ("timedelta", "timedelta64", "duration"),
        "decimal": ("decimal", "decimal128", "decimal256"),
        "category": ("category", "categorical", "dictionary", "categoricaldtype", "categoricaldtypetype"),
        "binary": ("bytes", "binary", "large_binary", "blob"),
        "list": ("list", "large_list", "array"),
        "struct": ("struct", "dict", "map"),
        "null": ("null", "none"),
    }.items()
    for name in names
}
#: Names with parameters, which a column must have literally.
_LITERAL = re.compile(
    r"(decimal(128|256)?\(|list<|large_list<|struct<|map<|dictionary<|fixed_size_|period|interval|sparse|complex)"
)
_INSTANT = re.compile(r"(?:datetime64|timestamp)\[\w+(?:,\s*(?:tz=)?(?P<zone>[^\]]+))?\]")
_DURATION = re.compile(r"(?:timedelta64|duration)\[\w+\]")

#: Arrow's type name, up to its parameters -> traits.
_ARROW: dict[str, tuple[str, ...]] = {
    **{name: (name, "integer", "number") for name in _WIDTHS if "int" in name},
    "halffloat": ("float16", "floating", "number"),
    "float": ("float32", "floating", "number"),
    "double": ("float64", "floating", "number"),
    "string": ("string", "object"),
    "large_string": ("string", "object"),
    "string_view": ("string", "object"),
    "bool": ("bool",),
    "date32": ("date", "object"),
    "date64": ("date", "object"),
    "time32": ("time", "object"),
    "time64": ("time", "object"),
    "duration": ("duration",),
    "decimal": ("decimal", "number", "object"),
    "decimal128": ("decimal", "number", "object"),
    "decimal256": ("decimal", "number", "object"),
    "binary": ("binary", "object"),
    "large_binary": ("binary", "object"),
    "list": ("list", "object"),
    "large_list": ("list", "object"),
    "struct": ("struct", "object"),
    "map": ("struct", "object"),
    "null": ("null", "any"),
}
#: What :func:`pandas.api.types.infer_dtype` says of an object column -> traits.
_INFERRED: dict[str, tuple[str, ...]] = {
    "string": ("string", "object"),
    "boolean": ("bool", "object"),
    "integer": ("integer", "number", "object"),
    "floating": ("floating", "number", "object"),
    "decimal": ("decimal", "number", "object"),
    "date": ("date", "object"),
    "datetime": ("timestamp", "object"),
    "time": ("time", "object"),
    "timedelta": ("duration", "object"),
    "bytes": ("binary", "object"),
    "empty": ("null", "any", "object"),
}


@dataclass(frozen=True)
class ColumnType:
    """The type of one column.

    :param name: what to call it in a message: Arrow's name where it is known, else pandas'.
    :param traits: everything that it is; ``any`` where no value is there to contradict.
    """

    name: str
    traits: frozenset[str]

    def answers_to(self, names: Iterable[str]) -> bool:
        """Return whether one of the names that a user wrote is a name of this type."""
        return "any" in self.traits or any(_trait_of(name) in self.traits for name in names)

    @property
    def is_instant(self) -> bool:
        """Whether the column holds instants as pandas stores them."""
        return "datetime64" in self.traits


def check_name(name: object) -> None:
    """Refuse a type name that no column can have.

    :raises SpecError: naming the nearest one that is known.
    """
    if not isinstance(name, str) or _trait_of(name) is None:
        raise SpecError(
            "a type goes by Arrow's, pandas' or Python's name (int64, float64, string, bool, timestamp, date, "
            "category, ...; int and float are of any width), and there is none "
            f"called {name!r}{did_you_mean(str(name).lower(), _NAMES)}"
        )


def column_type(column: pandas.Series, arrow: str | None = None) -> ColumnType:
    """Return the type of a column.

    :param arrow: its type in the file that it was read from, as Arrow writes it; nulls make pandas forget it.
    """
    from pandas.api.types import infer_dtype

    dtype = str(column.dtype)
    # An object column is read value by value only where no schema says what it holds.
    inferred = infer_dtype(column, skipna=True) if dtype == "object" and arrow is None else None
    traits = {_plain(dtype), *_pandas_traits(dtype)}
    if arrow is not None:
        traits |= {_plain(arrow), *_arrow_traits(arrow)}
    if inferred is not None:
        traits |= {"object", *_INFERRED.get(inferred, ())}
        name = inferred if inferred in _INFERRED and inferred != "empty" else "object"
    else:
        name = dtype
    return ColumnType(arrow or name, frozenset(traits))


def sql_type(arrow: str | None, sql: str) -> ColumnType:
    """Return the type of a database's column.

    :param arrow: what a snapshot of it has; None where its values are of several types.
    :param sql: what the database calls it.
    """
    traits = {_plain(sql)} | ({"object"} if arrow is None else {_plain(arrow), *_arrow_traits(arrow)})
    if sql.startswith("numeric"):
        traits |= {"decimal", "number"}
    return ColumnType(arrow or sql, frozenset(traits))


def _plain(name: str) -> str:
    name = name.strip().lower()
    for prefix in ("numpy.", "np.", "pandas.", "pd.", "builtins."):
        name = name.removeprefix(prefix)
    return re.sub(r"\[(pyarrow|python|pyarrow_numpy)\]$", "", name)


def _trait_of(name: str) -> str | None:
    plain = _plain(name)
    if plain in _NAMES:
        return _NAMES[plain]
    if match := _INSTANT.fullmatch(plain):
        return f"timestamp in {match['zone'].strip()}" if match["zone"] else "timestamp without zone"
    if _DURATION.fullmatch(plain):
        return "duration"
    return plain if _LITERAL.match(plain) else None


def _pandas_traits(dtype: str) -> set[str]:
    plain = _plain(dtype)
    if plain == "category":
        return {"category"}
    if plain in ("str", "string", "large_string"):
        return {"string", "object"}
    if plain == "boolean":
        return {"bool"}
    if match := _INSTANT.fullmatch(plain):
        # pandas' own instants; Arrow-backed ones compare by Arrow's rules.
        own = {"datetime64"} if plain.startswith("datetime64") else set()
        return own | _instant_traits(match["zone"])
    if _DURATION.fullmatch(plain):
        return {"duration"}
    return set(_ARROW.get(plain, ())) | {"float32": set(_ARROW["float"]), "float64": set(_ARROW["double"])}.get(
        plain, set()
    )


def _arrow_traits(name: str) -> set[str]:
    plain = _plain(name)
    if match := _INSTANT.fullmatch(plain):
        return _instant_traits(match["zone"])
    if plain.startswith("dictionary<"):
        values = re.match(r"dictionary<values=([^,]+)", plain)
        return {"category"} | (_arrow_traits(values[1]) if values else set())
    return set(_ARROW.get(re.split(r"[\[(<]", plain)[0], ()))


def _instant_traits(zone: str | None) -> set[str]:
    if zone is None:
        return {"timestamp", "timestamp without zone"}
    return {"timestamp", "timestamp with zone", f"timestamp in {zone.strip()}"}
