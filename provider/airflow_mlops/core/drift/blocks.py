"""Count a dataset's columns block by block in one pass, in bounded memory: what thresholds are learnt from.

A column's values are kept by value up to :data:`DISTINCT` different ones. A number that has more is counted in bins
between quantiles of a sample of the reference; a category that has more in groups by a hash of its value.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.drift.vectors import mask, vector
from airflow_mlops.core.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

    Array: TypeAlias = np.ndarray[Any, Any]

#: Different values of a column that are told apart.
DISTINCT = 2_000
#: Groups that the values of a category with more of them are counted in.
GROUPS = 256
#: Numbers that the quantiles of a column are taken from.
SAMPLE = 50_000
#: Bins between quantiles of the reference.
BINS = 20


@dataclass
class Tally:
    """One column, counted in blocks.

    :param ordered: whether its values have an order (numbers, times), so that bins may hold neighbours together.
    :param rows: rows by block.
    :param missing: rows by block without a value (null, NaN or infinite).
    :param values: ``{value: rows by block}``, while there are no more than :data:`DISTINCT`; else empty.
    :param groups: rows by block and hash group, of a category with more values.
    :param sample: of a number with more values; its bins are counted in a second pass.
    """

    ordered: bool
    rows: Array
    missing: Array
    values: dict[Any, Array] = field(default_factory=dict)
    groups: Array | None = None
    sample: list[Array] = field(default_factory=list)
    many: bool = False

    def add(self, column: pyarrow.Array, block: Array) -> None:
        """Count one batch of the column; ``block`` is the block of each row."""
        import numpy as np

        blocks = len(self.rows)
        values, there = plain_values(column, self.ordered)
        self.rows += np.bincount(block, minlength=blocks)
        self.missing += np.bincount(block[~there], minlength=blocks)
        block = block[there]
        if self.many and self.ordered:
            self._take(values)
            return
        unique, code = _unique(values, self.ordered)
        counts = np.bincount(block * max(len(unique), 1) + code, minlength=blocks * max(len(unique), 1))
        counts = counts.reshape(blocks, -1)[:, : len(unique)]
        if self.many:
            self._group(unique, counts)
            return
        for position, value in enumerate(unique):
            if value in self.values:
                self.values[value] += counts[:, position]
            else:
                self.values[value] = counts[:, position].copy()
        if len(self.values) > DISTINCT:
            self._overflow()

    def _overflow(self) -> None:
        """Keep the values no longer apart."""
        import numpy as np

        self.many = True
        values = list(self.values)
        counts = np.array([self.values[value] for value in values]).T
        self.values = {}
        if self.ordered:
            self._take(np.repeat(np.array(values, dtype=float), counts.sum(0)))
        else:
            self.groups = np.zeros((len(self.rows), GROUPS), dtype=np.int64)
            self._group(values, counts)

    def _group(self, values: Any, counts: Array) -> None:
        import numpy as np

        assert self.groups is not None
        where = np.array([group_of(value) for value in values], dtype=np.int64)
        for block in range(len(self.groups)):
            np.add.at(self.groups[block], where, counts[block])

    def _take(self, values: Array) -> None:
        """Keep an evenly spread part of these values, and half of what there is when that grows too large."""
        step = max(1, len(values) // 2_000)
        self.sample.append(values[::step].copy())
        if sum(len(part) for part in self.sample) > SAMPLE:
            self.sample = [part[::2].copy() for part in self.sample]


@dataclass
class Binned:
    """One number, counted in given bins by block.

    :param edges: ascending; a value belongs to the bin of the first edge that is not below it, else to the last one.
    """

    edges: Array
    rows: Array
    missing: Array
    counts: Array

    @classmethod
    def empty(cls, edges: Array, blocks: int) -> Binned:
        """Return one without rows."""
        import numpy as np

        zero = np.zeros(blocks, dtype=np.int64)
        return cls(edges, zero, zero.copy(), np.zeros((blocks, len(edges) + 1), dtype=np.int64))

    def add(self, column: pyarrow.Array, block: Array) -> None:
        """Count one batch of the column."""
        import numpy as np

        values, there = plain_values(column, ordered=True)
        blocks, bins = self.counts.shape
        self.rows += np.bincount(block, minlength=blocks)
        self.missing += np.bincount(block[~there], minlength=blocks)
        where = block[there] * bins + np.searchsorted(self.edges, values, side="left")
        self.counts += np.bincount(where, minlength=blocks * bins).reshape(blocks, bins)


def count(
    batches: Iterable[pyarrow.RecordBatch],
    counters: dict[str, Any],
    block_of: Callable[[Any], Array],
    whole: Sequence[Any] = (),
) -> None:
    """Let each column's counter count all batches.

    :param block_of: takes a record batch, returns the block of each row.
    :param whole: counters of whole batches.
    """
    for batch in batches:
        if batch.num_rows:
            block = block_of(batch)
            for name, counter in counters.items():
                counter.add(batch.column(name), block)
            for one in whole:
                one.add(batch, block)


def tallies(ordered: dict[str, bool], blocks: int) -> dict[str, Tally]:
    """Return an empty tally for each column; ``ordered`` says of each whether its values have an order."""
    import numpy as np

    return {
        name: Tally(is_ordered, np.zeros(blocks, dtype=np.int64), np.zeros(blocks, dtype=np.int64))
        for name, is_ordered in ordered.items()
    }


def group_of(value: Any) -> int:
    """Return the hash group of a category; the same in every process."""
    return zlib.crc32(str(value).encode("utf-8", "surrogatepass")) % GROUPS


def sign_of(value: Any) -> int:
    """Return a number that stands for a category, which cannot be read from it; the same in every process."""
    return int.from_bytes(hashlib.blake2b(str(value).encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big")


def plain_values(column: pyarrow.Array, ordered: bool) -> tuple[Any, Array]:
    """Return a column's values without the missing ones, as floats or as an Arrow array, and which rows have one.

    Times and dates are seconds since 1970, booleans 0 and 1.

    :raises SpecError: for a column whose values cannot be counted, such as lists.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    there = mask(pc.is_valid(column))
    if not ordered:
        return column.drop_null(), there
    try:
        if pa.types.is_date(kind):
            column = column.cast(pa.timestamp("s"))
        elif pa.types.is_time(kind):
            column = column.cast(pa.time64("us")).cast(pa.int64())
        elif pa.types.is_duration(kind):
            column = column.cast(pa.int64())
        if pa.types.is_timestamp(column.type):
            unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
            values = vector(column.cast(pa.int64())) / unit
        else:
            values = vector(column.cast(pa.float64(), safe=False))
    except pa.ArrowException as error:
        raise SpecError(f"a column of type {kind} has no values that can be counted as numbers") from error
    there = there & np.isfinite(values)
    return values[there], there


def _unique(values: Any, ordered: bool) -> tuple[Any, Array]:
    """Return the different values, and for each value the position of its own."""
    import numpy as np

    if ordered:
        unique, code = np.unique(values, return_inverse=True)
        return unique.tolist(), code
    encoded = values.dictionary_encode()
    return encoded.dictionary.to_pylist(), vector(encoded.indices).astype(np.int64)
