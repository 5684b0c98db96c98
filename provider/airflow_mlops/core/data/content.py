"""The digest of a dataset's logical content.

Two datasets have the same digest if and only if they have the same columns (names, order, types in normal form) and
the same rows in the same order, whatever the files, row groups, chunks and encodings. See ADR 0003.

Each column is one or more streams of bytes, each with its own SHA-256, so that neither chunk nor batch borders show:
the validity of each row, the lengths of strings and lists, the values. Values under a null count as zero, every NaN
as the same NaN.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.data.arrow_types import normal_batch, normal_schema

#: Stands in every digest: another definition of the digest gets another name.
VERSION = "airflow-mlops-dataset-1"


class ContentDigest:
    """A running digest over the batches of one dataset.

    :param schema: the dataset's schema in normal form.
    """

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.rows = 0
        self._columns = [_column(field.type) for field in schema]

    def update(self, batch: Any) -> None:
        """Add the next rows: a record batch or table in normal form."""
        for future in self.submit(batch, None):
            future.result()

    def submit(self, batch: Any, pool: Executor | None) -> list[Future[None]]:
        """Add the next rows, each column by itself in a pool of threads.

        The batch counts once all futures are done; the caller waits for them before it submits the next one.
        """
        self.rows += batch.num_rows
        return [_run(pool, column.add, batch.column(i)) for i, column in enumerate(self._columns)]

    def digest(self) -> str:
        """Return ``sha256:<hex>`` of everything added so far."""
        header = {
            "version": VERSION,
            "rows": self.rows,
            "columns": [[field.name, str(field.type)] for field in self.schema],
        }
        total = hashlib.sha256(json.dumps(header, ensure_ascii=False).encode())
        for column in self._columns:
            column.finish(total)
        return digests.PREFIX + total.hexdigest()


def _run(pool: Executor | None, function: Any, argument: Any) -> Future[None]:
    if pool is not None:
        return pool.submit(function, argument)
    future: Future[None] = Future()
    future.set_result(function(argument))
    return future


def digest_of(batches: Iterable[Any], schema: Any) -> str:
    """Return the digest of batches or tables that have this schema, in whatever form their types are."""
    normal = normal_schema(schema)
    digest = ContentDigest(normal)
    for batch in batches:
        digest.update(normal_batch(batch, normal))
    return digest.digest()


class _Column:
    """The streams of one column, or of one child of a nested column."""

    def __init__(self) -> None:
        self.validity = hashlib.sha256()
        self.children: list[_Column] = []

    def add(self, column: Any) -> None:
        """Add an array or chunked array."""
        for array in getattr(column, "chunks", (column,)):
            if len(array):
                self._add_validity(array)
                self._add_values(array)

    def _add_validity(self, array: Any) -> None:
        import pyarrow.compute as pc

        if array.null_count == 0:
            ones = memoryview(_ONES)
            for start in range(0, len(array), len(ones)):
                self.validity.update(ones[: min(len(ones), len(array) - start)])
        else:
            self.validity.update(pc.is_valid(array).cast("uint8").to_numpy().tobytes())

    def _add_values(self, array: Any) -> None:
        """Add what is below the validity; the null type has nothing there."""

    def finish(self, total: Any) -> None:
        """Add the digests of all streams to the total, in a fixed order."""
        total.update(self.validity.digest())
        for child in self.children:
            child.finish(total)


_ONES = b"\x01" * 65536


class _Fixed(_Column):
    """Values of a fixed width: numbers, dates, times, decimals, fixed-size binary."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.values = hashlib.sha256()
        self.width = kind.bit_width // 8
        self.float_name = {16: "float16", 32: "float32", 64: "float64"}[kind.bit_width] if _is_float(kind) else None

    def _add_values(self, array: Any) -> None:
        import numpy as np

        data = memoryview(array.buffers()[1]).cast("B")
        data = data[array.offset * self.width : (array.offset + len(array)) * self.width]
        if array.null_count:
            import pyarrow.compute as pc

            values = np.frombuffer(data, dtype=np.uint8).reshape(len(array), self.width).copy()
            values[pc.is_null(array).to_numpy(zero_copy_only=False)] = 0
            data = memoryview(values.reshape(-1))
        if self.float_name:
            floats = np.frombuffer(data, dtype=self.float_name)
            missing = np.isnan(floats)
            if missing.any():
                floats = floats.copy()
                floats[missing] = np.nan
                data = memoryview(floats).cast("B")
        self.values.update(data)

    def finish(self, total: Any) -> None:
        total.update(self.values.digest())
        super().finish(total)


class _Bool(_Column):
    """Booleans, a byte each."""

    def __init__(self) -> None:
        super().__init__()
        self.values = hashlib.sha256()

    def _add_values(self, array: Any) -> None:

        values = array.fill_null(False) if array.null_count else array
        self.values.update(values.cast("uint8").to_numpy().tobytes())

    def finish(self, total: Any) -> None:
        total.update(self.values.digest())
        super().finish(total)


class _Lengths(_Column):
    """What has a length in each row: the stream of lengths, null counting as 0."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths = hashlib.sha256()

    def _add_lengths(self, array: Any) -> None:
        import numpy as np

        offsets = _offsets(array)
        self.lengths.update(np.diff(offsets).astype("<i8").tobytes())

    def finish(self, total: Any) -> None:
        total.update(self.lengths.digest())
        super().finish(total)


class _Bytes(_Lengths):
    """Strings and binary: lengths, then all bytes one after another."""

    def __init__(self, empty: str | bytes) -> None:
        super().__init__()
        self.values = hashlib.sha256()
        self.empty = empty

    def _add_values(self, array: Any) -> None:
        if array.null_count:
            array = array.fill_null(self.empty)
        self._add_lengths(array)
        data = array.buffers()[2]
        if data is not None:
            offsets = _offsets(array)
            self.values.update(memoryview(data)[int(offsets[0]) : int(offsets[-1])])

    def finish(self, total: Any) -> None:
        total.update(self.values.digest())
        super().finish(total)


class _List(_Lengths):
    """Lists and maps: lengths, then the elements of all rows as a column of their own."""

    def __init__(self, child: Any, element_type: Any) -> None:
        super().__init__()
        self.children = [child]
        self.element_type = element_type

    def _add_values(self, array: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_map(array.type):
            array = array.cast(pa.list_(pa.field("element", self.element_type)))
        lengths = pc.if_else(pc.is_valid(array), pc.list_value_length(array), 0)
        self.lengths.update(lengths.cast("int64").to_numpy().tobytes())
        self.children[0].add(array.flatten())


class _Struct(_Column):
    """Structs: a column for each field; what is under a null struct is null."""

    def __init__(self, children: list[_Column]) -> None:
        super().__init__()
        self.children = children

    def _add_values(self, array: Any) -> None:
        for child, values in zip(self.children, array.flatten(), strict=True):
            child.add(values)


def _offsets(array: Any) -> Any:
    import numpy as np

    offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)
    return offsets[array.offset : array.offset + len(array) + 1]


def _is_float(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind))


def _column(kind: Any) -> _Column:
    import pyarrow as pa

    types = pa.types
    if types.is_null(kind):
        return _Column()
    if types.is_boolean(kind):
        return _Bool()
    if types.is_string(kind) or types.is_binary(kind):
        return _Bytes("" if types.is_string(kind) else b"")
    if types.is_map(kind):
        entry = pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])
        return _List(_column(entry), entry)
    if types.is_list(kind):
        return _List(_column(kind.value_type), kind.value_type)
    if types.is_struct(kind):
        return _Struct([_column(field.type) for field in kind])
    return _Fixed(kind)
