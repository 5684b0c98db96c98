"""Parquet files as batches, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.arrow_types import check_names, normal_batch, normal_schema, normal_type
from airflow_mlops.core.errors import MixedSchemaError

if TYPE_CHECKING:
    import pyarrow

#: An index without a name that pandas wrote beside the columns; it is no column of the frame.
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


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

    with pq.ParquetFile(path, pre_buffer=False) as file:
        kept = [f for f in file.schema_arrow if not _PANDAS_INDEX.fullmatch(f.name)]
        check_names([f.name for f in kept], path)
        return normal_schema(pa.schema(kept)), file.metadata.num_rows


def batches(path: str, schema: pyarrow.Schema, given: dict[str, Any], rows: int) -> Iterator[Any]:
    """Yield a file's record batches in this schema.

    Read-ahead is off and columns come through small buffers: memory does not grow with the row groups.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(batch_size=rows, columns=schema.names, use_threads=True):
            yield normal_batch(batch, schema)


__all__ = ["batches", "check_same_columns", "normal_type", "survey"]
