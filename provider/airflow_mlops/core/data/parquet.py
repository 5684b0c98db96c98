"""Parquet files as batches, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.arrow_types import check_names, normal_batch, normal_schema, normal_type
from airflow_mlops.core.data.places import is_s3, open_input
from airflow_mlops.core.errors import MixedSchemaError

if TYPE_CHECKING:
    import pyarrow

#: An index without a name that pandas wrote beside the columns; it is no column of the frame.
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")

#: Row groups of at most so many bytes are read ahead from S3. The columns of larger ones come through buffers that have
#: so many bytes together, each between these two sizes.
AHEAD_BYTES, BUFFERS_BYTES = 32 << 20, 64 << 20
LEAST_BUFFER, MOST_BUFFER = 64 << 10, 4 << 20


def survey(paths: list[str], given: dict[str, Any], guard: Any) -> tuple[pyarrow.Schema, int]:
    """Return the common schema of the files in normal form, and their rows; only footers are read.

    The columns stand in the order of the first file. A column that has only nulls in one file (Arrow's ``null``)
    takes its type from the others.

    :raises MixedSchemaError: if the files differ in a column or a type.
    """
    import pyarrow as pa

    first, rows = "", 0
    fields: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for path in paths:
        with guard(path):
            schema, count = _footer(path)
        rows += count
        found = {f.name: f for f in schema}
        if not first:
            first = path
            fields = dict(found)
            origin = dict.fromkeys(found, path)
        check_same_columns(list(fields), first, list(found), path)
        for name, f in found.items():
            known = fields[name].type
            if pa.types.is_null(known) and not pa.types.is_null(f.type):
                fields[name], origin[name] = f, path
            elif known != f.type and not pa.types.is_null(f.type) and name not in given:
                raise MixedSchemaError(
                    f"column {name!r} is {f.type} in {path}, but {known} in {origin[name]}; write it as one type, or "
                    f"give schema={{{name!r}: ...}}",
                    path=path,
                    column=name,
                    types=[str(known), str(f.type)],
                )
    return pa.schema([pa.field(name, given.get(name, f.type)) for name, f in fields.items()]), rows


def check_same_columns(known: list[str], first: str, found: list[str], path: str) -> None:
    """Make sure that two files have the same columns; their order may differ.

    :raises MixedSchemaError: naming the columns that only one of them has.
    """
    for name in found:
        if name not in known:
            raise MixedSchemaError(
                f"column {name!r} is in {path}, but not in {first}; all files of a source need the same columns",
                path=path,
                column=name,
                types=[None, "present"],
            )
    for name in known:
        if name not in found:
            raise MixedSchemaError(
                f"column {name!r} is in {first}, but not in {path}; all files of a source need the same columns",
                path=path,
                column=name,
                types=["present", None],
            )


def _footer(path: str) -> tuple[Any, int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_input(path) as raw, pq.ParquetFile(raw, pre_buffer=False) as file:
        kept = [f for f in file.schema_arrow if not _PANDAS_INDEX.fullmatch(f.name)]
        check_names([f.name for f in kept], path)
        return normal_schema(pa.schema(kept)), file.metadata.num_rows


def batches(
    path: str, schema: pyarrow.Schema, given: dict[str, Any], rows: int, dictionaries: tuple[str, ...] = ()
) -> Iterator[Any]:
    """Yield a file's record batches in this schema; columns of text that are among ``dictionaries`` may come as such.

    Columns come through small buffers: memory does not grow with the row groups. From S3 a row group that is not large
    comes in a few long ranges instead, or each buffer would be a request.
    """
    import pyarrow.parquet as pq

    with open_input(path) as raw:
        if not is_s3(path):
            with pq.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 18, read_dictionary=list(dictionaries)) as file:
                for batch in file.iter_batches(batch_size=rows, columns=schema.names, use_threads=True):
                    yield normal_batch(batch, _with_dictionaries(schema, batch, dictionaries))
            return
        footer = pq.read_metadata(raw)
        buffer = min(max(BUFFERS_BYTES // max(len(schema), 1), LEAST_BUFFER), MOST_BUFFER)
        for group in range(footer.num_row_groups):
            # Opened anew for each row group: what was read ahead is given back with the file.
            ahead = _bytes_of(footer.row_group(group), schema.names) <= AHEAD_BYTES
            with pq.ParquetFile(raw, metadata=footer, pre_buffer=ahead, buffer_size=0 if ahead else buffer) as file:
                for batch in file.iter_batches(
                    batch_size=rows, row_groups=[group], columns=schema.names, use_threads=True
                ):
                    yield normal_batch(batch, schema)


def _with_dictionaries(schema: pyarrow.Schema, batch: Any, names: tuple[str, ...]) -> Any:
    """Return the schema with the dictionaries that a batch brings."""
    import pyarrow as pa

    for name in names:
        found = batch.schema.field(name).type
        if pa.types.is_dictionary(found) and pa.types.is_string(found.value_type):
            schema = schema.set(schema.get_field_index(name), pa.field(name, found))
    return schema


def _bytes_of(group: Any, names: list[str]) -> int:
    """Return the bytes of a row group's columns, as they lie in the file."""
    chunks = (group.column(number) for number in range(group.num_columns))
    return sum(one.total_compressed_size for one in chunks if one.path_in_schema.partition(".")[0] in names)


__all__ = ["batches", "check_same_columns", "normal_type", "survey"]
