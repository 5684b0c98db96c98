"""One form for every Arrow type, whatever the writer chose.

The same values come as ``dictionary`` or plain, ``large_string`` or ``string``, milliseconds or microseconds,
depending on who wrote the file. Snapshots and digests see the normal form only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError, UnsupportedError, did_you_mean

if TYPE_CHECKING:
    import pyarrow

#: Spellings of UTC that become ``UTC``.
_UTC = {"utc", "z", "+00:00", "-00:00", "etc/utc", "gmt", "etc/gmt", "zulu", "etc/zulu", "universal"}

#: Names that users write for types, beside Arrow's own.
_ALIASES = {
    "int": "int64",
    "integer": "int64",
    "float": "float64",
    "double": "float64",
    "boolean": "bool",
    "str": "string",
    "text": "string",
    "date": "date32",
    "date32[day]": "date32",
    "date64[ms]": "date64",
    "timestamp": "timestamp[us]",
    "datetime": "timestamp[us]",
    "halffloat": "float16",
}


def normal_type(value: Any, column: str) -> Any:
    """Return the normal form of an Arrow type.

    Dictionaries and extension types become their values' type, large and view types the plain ones, seconds and
    milliseconds microseconds, every list one of variable length with the child ``element``. What a snapshot cannot
    hold is refused.

    :param column: for the message.
    :raises UnsupportedError: for unions, run-end encoded values and intervals.
    """
    import pyarrow as pa

    types = pa.types
    if isinstance(value, pa.BaseExtensionType):
        return normal_type(value.storage_type, column)
    if types.is_dictionary(value):
        return normal_type(value.value_type, column)
    if types.is_large_string(value) or types.is_string_view(value):
        return pa.string()
    if types.is_large_binary(value) or types.is_binary_view(value):
        return pa.binary()
    if types.is_timestamp(value):
        zone = "UTC" if value.tz is not None and value.tz.lower() in _UTC else value.tz
        return pa.timestamp("ns" if value.unit == "ns" else "us", zone)
    if types.is_time32(value):
        return pa.time32("ms")
    if types.is_date64(value):
        return pa.date32()
    if types.is_decimal(value) and value.bit_width < 128:
        return pa.decimal128(value.precision, value.scale)
    if _is_list(value):
        return pa.list_(pa.field("element", normal_type(value.value_type, column)))
    if types.is_map(value):
        return pa.map_(normal_type(value.key_type, column), normal_type(value.item_type, column))
    if types.is_struct(value):
        return pa.struct([pa.field(f.name, normal_type(f.type, column)) for f in value])
    if types.is_union(value) or types.is_run_end_encoded(value) or types.is_interval(value):
        raise UnsupportedError(
            f"column {column!r} has the Arrow type {value}, which a dataset cannot hold; convert it to a plain type "
            "in what writes the file",
            column=column,
            type=str(value),
        )
    return value


def _is_list(value: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(
        types.is_list(value)
        # Parquet cannot give back a null in a list of fixed size.
        or types.is_fixed_size_list(value)
        or types.is_large_list(value)
        or types.is_list_view(value)
        or types.is_large_list_view(value)
    )


def normal_schema(schema: pyarrow.Schema) -> pyarrow.Schema:
    """Return the schema with every type in normal form, all columns nullable, without metadata.

    :raises SpecError: if two columns have the same name, or there is none.
    """
    import pyarrow as pa

    check_names(schema.names)
    return pa.schema([pa.field(f.name, normal_type(f.type, f.name)) for f in schema])


def check_names(names: list[str], where: str = "the data") -> None:
    """Refuse columns of the same name: whichever one a later step took, it would be a guess.

    :raises SpecError: naming the columns.
    """
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        listed = ", ".join(repr(name) for name in twice[:5])
        raise SpecError(
            f"{where} has more than one column named {listed}; column names must differ: rename them in the source",
            columns=twice[:20],
        )


def normal_batch(batch: Any, schema: pyarrow.Schema) -> Any:
    """Return a record batch or table with the columns and the types of a normal schema.

    :param batch: has at least the schema's columns, each of a type that has this normal form, or ``null``.
    :raises UnsupportedError: if a value does not fit the normal type, such as a date beyond the range.
    """
    import pyarrow as pa

    arrays = [_cast(batch.column(field.name), field) for field in schema]
    make = pa.Table.from_arrays if isinstance(batch, pa.Table) else pa.RecordBatch.from_arrays
    return make(arrays, schema=schema)


def _cast(array: Any, field: Any) -> Any:
    import pyarrow as pa

    if array.type == field.type:
        return array
    try:
        return array.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UnsupportedError(
            f"column {field.name!r} cannot be turned from {array.type} into {field.type}: a value does not fit, or "
            "Arrow has no such conversion",
            column=field.name,
            type=str(array.type),
        ) from error


def parse_type(name: Any, column: str) -> Any:
    """Return the Arrow type of a name such as ``"int64"``, ``"date"`` or ``"timestamp[us, tz=UTC]"``.

    :raises SpecError: if there is no such type.
    """
    import pyarrow as pa

    text = str(name).strip()
    match = re.fullmatch(r"timestamp\[(s|ms|us|ns), *tz=([^\]]+)\]", text)
    if match:
        return normal_type(pa.timestamp(match[1], match[2]), column)
    match = re.fullmatch(r"decimal(?:128)?\((\d+), *(-?\d+)\)", text)
    if match:
        return pa.decimal128(int(match[1]), int(match[2]))
    text = text.lower()
    try:
        return normal_type(pa.type_for_alias(_ALIASES.get(text, text)), column)
    except ValueError as error:
        known = ["int64", "float64", "double", "bool", "string", "date", "timestamp", "timestamp[us, tz=UTC]"]
        raise SpecError(
            f"schema: column {column!r} has the unknown type {name!r}{did_you_mean(text, known)} "
            f"Types: {', '.join(known)} and Arrow's other names",
            column=column,
        ) from error
