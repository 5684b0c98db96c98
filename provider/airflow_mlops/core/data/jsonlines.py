"""JSON lines as batches: one object a line, with one schema for all lines of all files.

Two passes over blocks of whole lines: the first finds each column's type over everything, the second reads with it.
A key that a line lacks is null.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.arrow_types import normal_type
from airflow_mlops.core.data.places import open_text
from airflow_mlops.core.errors import CorruptDataError, MixedSchemaError, MlopsError

if TYPE_CHECKING:
    import pyarrow

#: Bytes that are parsed at a time, up to the end of the line.
BLOCK = 4 << 20


def survey(paths: list[str], given: dict[str, Any], guard: Any) -> tuple[pyarrow.Schema, int]:
    """Return the columns in the order of their first appearance with the types that all values bear, and the rows.

    :raises MixedSchemaError: if a column has, say, numbers at one place and text at another.
    """
    import pyarrow as pa

    fields: dict[str, Any] = {}
    origin: dict[str, str] = {}
    rows = 0
    for path in paths:
        with guard(path):
            for block in _blocks(path):
                table = _parse(path, block, pa.schema([pa.field(n, k) for n, k in given.items()]))
                rows += table.num_rows
                for field in table.schema:
                    kind = normal_type(field.type, field.name)
                    if field.name in given:
                        kind = given[field.name]
                    known = fields.get(field.name, pa.null())
                    merged = _merge(known, kind)
                    if merged is None:
                        raise MixedSchemaError(
                            f"column {field.name!r} is {kind} in {path}, but {known} before that, in "
                            f"{origin[field.name]}; write it as one type",
                            path=path,
                            column=field.name,
                            types=[str(known), str(kind)],
                        )
                    if merged != known or field.name not in fields:
                        fields[field.name], origin[field.name] = merged, path
    return pa.schema([pa.field(name, kind) for name, kind in fields.items()]), rows


def batches(path: str, schema: pyarrow.Schema, given: dict[str, Any], rows: int) -> Iterator[Any]:
    """Yield a file's record batches in this schema."""
    for block in _blocks(path):
        yield from _parse(path, block, schema, only=True).to_batches(max_chunksize=rows)


def _blocks(path: str) -> Iterator[bytes]:
    """Yield a file in blocks of whole lines, without blank ones at the end."""
    with open_text(path) as file:
        first = True
        while block := file.read(BLOCK):
            block += file.readline()
            if first:
                block = block.removeprefix(b"\xef\xbb\xbf")
                if block.lstrip()[:1] == b"[":
                    raise CorruptDataError(
                        f"{path} holds one JSON array; JSON lines have one object on each line: "
                        "pandas.read_json(...).to_json(..., orient='records', lines=True)",
                        path=path,
                    )
                first = False
            if block.strip():
                yield block


def _parse(path: str, block: bytes, schema: Any, only: bool = False) -> Any:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    try:
        table = arrow_json.read_json(
            io.BytesIO(block),
            read_options=arrow_json.ReadOptions(block_size=len(block) + 1),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=schema if len(schema) else None,
                unexpected_field_behavior="ignore" if only else "infer",
            ),
        )
    except pa.ArrowInvalid as error:
        raise _explain(path, str(error), schema.names) from error
    return table.select(schema.names) if only else table


def _explain(path: str, message: str, typed: list[str]) -> MlopsError:
    """Return the error for what Arrow says, without the value that it may quote."""
    changed = re.search(r"Column\(/(.+?)\) changed from", message)
    if changed and changed[1].split("/")[0] in typed:
        message = "conversion"
    elif changed:
        return MixedSchemaError(
            f"column {changed[1]!r} in {path} has values of different types, such as numbers and text; write it as one",
            path=path,
            column=changed[1],
        )
    if re.search(r"(?i)conversion|couldn't parse", message):
        return CorruptDataError(f"{path} has values that are not of the type that schema= gives", path=path)
    if "specified twice" in message:
        return CorruptDataError(f"{path} has an object with the same key twice", path=path)
    return CorruptDataError(
        f"{path} cannot be read as JSON lines: a line is not a JSON object, or the file ends early", path=path
    )


def _merge(known: Any, found: Any) -> Any:
    """Return the type that holds values of both, or None."""
    import pyarrow as pa

    types = pa.types
    if known == found or types.is_null(found):
        return known
    if types.is_null(known):
        return found
    numbers = (pa.int64(), pa.float64())
    if known in numbers and found in numbers:
        return pa.float64()
    texts = [t for t in (known, found) if types.is_string(t) or types.is_timestamp(t)]
    if len(texts) == 2:
        return pa.string()
    if types.is_list(known) and types.is_list(found):
        element = _merge(known.value_type, found.value_type)
        return None if element is None else pa.list_(pa.field("element", element))
    if types.is_struct(known) and types.is_struct(found):
        return _merge_structs(known, found)
    return None


def _merge_structs(known: Any, found: Any) -> Any:
    import pyarrow as pa

    merged = {field.name: field.type for field in known}
    for field in found:
        kind = _merge(merged.get(field.name, pa.null()), field.type)
        if kind is None:
            return None
        merged[field.name] = kind
    return pa.struct([pa.field(name, kind) for name, kind in merged.items()])
