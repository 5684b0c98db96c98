"""What is kept of a categorical column: how often each category occurs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.drift.vectors import vector

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

#: A column with more categories is free text or a key, and is not scored.
MOST_CATEGORIES = 100_000


@dataclass
class CategorySummary:
    """A categorical column of one dataset.

    :param rows: all rows.
    :param counts: ``{category: rows}``; None once there are too many.
    """

    rows: int = 0
    missing: int = 0
    counts: dict[Any, int] | None = field(default_factory=dict)
    _dictionary: Any = None
    _codes: Any = None

    kind = "categorical"

    def add(self, array: Any) -> None:
        """Take in the next rows: an Arrow array of strings, booleans, numbers or dates, or a dictionary of them."""
        import numpy as np
        import pyarrow as pa

        self.rows += len(array)
        self.missing += array.null_count
        if self.counts is None or array.null_count == len(array):
            return
        if pa.types.is_dictionary(array.type):
            codes = array.indices.drop_null() if array.indices.null_count else array.indices
            found = np.bincount(vector(codes), minlength=len(array.dictionary))
            if self._dictionary is not None and _same(self._dictionary, array.dictionary):
                self._codes += found
                return
            self._flush()
            self._dictionary, self._codes = array.dictionary, found
            return
        counted = array.drop_null().value_counts()
        self._take(counted.field("values"), vector(counted.field("counts")))

    def _flush(self) -> None:
        """Put the counts by codes into the counts by category."""
        if self._dictionary is None:
            return
        dictionary, codes, self._dictionary, self._codes = self._dictionary, self._codes, None, None
        self._take(dictionary, codes)

    def _take(self, values: Any, counts: Array) -> None:
        if self.counts is None:
            return
        known, absent = self.counts, 0
        for value, number in zip(values.to_pylist(), counts.tolist(), strict=True):
            if value is None or value != value:
                absent += number
            elif number:
                known[value] = known.get(value, 0) + number
        # Of a plain array the nulls are counted already; a null among a dictionary's values is not, nor is NaN.
        self.missing += absent
        if len(known) > MOST_CATEGORIES:
            self.counts = None

    @property
    def known(self) -> dict[Any, int] | None:
        """``{category: rows}``, or None if there are too many."""
        self._flush()
        return self.counts

    @property
    def count(self) -> int:
        """Rows with a category."""
        self._flush()
        return self.rows - self.missing

    @property
    def absent(self) -> int:
        """Rows without one."""
        self._flush()
        return self.missing

    @property
    def distinct(self) -> int | None:
        """How many categories there are, or None if too many."""
        return None if (known := self.known) is None else len(known)

    def merge(self, other: CategorySummary) -> CategorySummary:
        """Return the summary of the rows of both."""
        mine, its = self.known, other.known
        result = CategorySummary(rows=self.rows + other.rows, missing=self.missing + other.missing)
        if mine is None or its is None:
            result.counts = None
        else:
            result.counts = {key: mine.get(key, 0) + its.get(key, 0) for key in {**mine, **its}}
            if len(result.counts) > MOST_CATEGORIES:
                result.counts = None
        return result


def _same(one: Any, other: Any) -> bool:
    return one is other or (len(one) == len(other) and bool(one.equals(other)))
