"""What is kept of a numeric column: exact where its values fit into memory, else counts on a grid.

Either way rows, missing values, extremes, mean and variance are exact, and two summaries merge into one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.drift.grid import Grid, grid_for
from airflow_mlops.core.drift.vectors import vector

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

#: A dataset of at most so many rows is kept exactly.
SMALL_ROWS = 65_536
#: A column with at most so many distinct values is kept exactly, whatever its length.
MANY = 1000
#: Values that are gathered before they are counted.
_CHUNK = 131_072
#: Values from which it is told whether a column has many.
_PROBE = 8192


@dataclass(frozen=True)
class Table:
    """Distinct values, ascending, and how often each occurs."""

    values: Array
    counts: Array


@dataclass
class NumericSummary:
    """A numeric column of one dataset.

    :param keep: how many distinct values may be kept; beyond, counts are taken on a grid.
    :param rows: all rows.
    :param missing: nulls and NaN.
    :param infinite: infinities; they count as missing in every score, as in Evidently.
    :param count: the finite values.
    :param dtype: numpy's name of the column's type; Evidently's bins depend on it.
    """

    keep: int = MANY
    dtype: str = "float64"
    rows: int = 0
    missing: int = 0
    infinite: int = 0
    count: int = 0
    low: float = math.inf
    high: float = -math.inf
    shift: float | None = None
    total: float = 0.0
    squares: float = 0.0
    grid: Grid | None = None
    #: Edges of what was merged from grids that differ.
    own_edges: Array | None = None
    bins: Array | None = None
    _table: Table | None = None
    _pending: list[Table] = field(default_factory=list)
    _waiting: int = 0

    kind = "numeric"

    # -- taking values in ---------------------------------------------------------------------------------------------

    def add(self, array: Any) -> None:
        """Take in the next rows: an Arrow array of any numeric, temporal, decimal or boolean type."""
        self.rows += len(array)
        if array.null_count:
            self.missing += array.null_count
            array = array.drop_null()
        if len(array):
            self.add_values(as_floats(array))

    def add_values(self, values: Array) -> None:
        """Take in values, float64, that are not null; they are not counted as rows here."""
        import numpy as np

        low, high = values.min(), values.max()
        if not (math.isfinite(low) and math.isfinite(high)):
            absent = np.isnan(values)
            self.missing += int(absent.sum())
            finite = np.isfinite(values)
            self.infinite += int(len(values) - finite.sum() - absent.sum())
            values = values[finite]
            if not len(values):
                return
            low, high = values.min(), values.max()
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        self.count += len(values)
        if self.shift is None:
            self.shift = float(values[:_PROBE].mean()) if math.isfinite(float(high) - float(low)) else 0.0
        apart = values - self.shift
        self.total += float(apart.sum())
        # Not np.dot: BLAS threads of its own stand in the way of ours, and take seven times as long.
        self.squares += float(np.einsum("i,i->", apart, apart))
        if self.bins is not None:
            self.bins += self._counts(values)
            return
        fresh = self.keep < SMALL_ROWS and self._table is None and not self._pending
        if fresh and len(np.unique(values[:_PROBE])) > self.keep:
            # Far more values than can be kept are seen at once, and never sorted.
            self.bins = self._to_grid(grid_for(values)) + self._counts(values)
            return
        self._pending.append(counted(values))
        self._waiting += len(self._pending[-1].values)
        if self._waiting > _CHUNK or (self.keep < SMALL_ROWS and self._waiting > 8 * self.keep):
            self._settle()

    def _counts(self, values: Array) -> Array:
        import numpy as np

        if self.grid is not None:
            return self.grid.counts(values)
        assert self.own_edges is not None
        places = np.searchsorted(self.own_edges, values, side="right")
        return np.bincount(places, minlength=len(self.own_edges) + 1)

    def _settle(self) -> None:
        """Put what is waiting into the table; give the table up if it has too many values."""
        if not self._pending:
            return
        tables = [*([self._table] if self._table else []), *self._pending]
        self._pending, self._waiting = [], 0
        self._table = merged(tables)
        if len(self._table.values) > self.keep:
            table = self._table
            grid = grid_for(_spread(table))
            self.bins = self._to_grid(grid) + grid.weighted(table.values, table.counts)

    def _to_grid(self, grid: Grid) -> Array:
        import numpy as np

        self.grid, self._table = grid, None
        return np.zeros(len(grid.edges()) + 1, dtype=np.int64)

    # -- what is known ------------------------------------------------------------------------------------------------

    @property
    def table(self) -> Table | None:
        """All values with their counts, or None where only counts on a grid are kept."""
        import numpy as np

        self._settle()
        if self.bins is None and self._table is None:
            return Table(np.empty(0), np.empty(0, dtype=np.int64))
        return self._table

    @property
    def edges(self) -> Array:
        """The edges of the bins."""
        if self.own_edges is not None:
            return self.own_edges
        assert self.grid is not None
        return self.grid.edges()

    @property
    def mean(self) -> float:
        """Mean of the finite values."""
        return (self.shift or 0.0) + self.total / self.count if self.count else math.nan

    @property
    def std(self) -> float:
        """Population standard deviation of the finite values."""
        if not self.count:
            return math.nan
        if table := self.table:
            import numpy as np

            apart = table.values - np.average(table.values, weights=table.counts)
            return math.sqrt(float(np.average(apart * apart, weights=table.counts)))
        return math.sqrt(max(self.squares / self.count - (self.total / self.count) ** 2, 0.0))

    @property
    def absent(self) -> int:
        """Rows without a finite value."""
        return self.rows - self.count

    @property
    def distinct(self) -> int | None:
        """How many different values there are, or None where it is only known that they are many."""
        return len(table.values) if (table := self.table) is not None else None

    def below(self, points: Array) -> tuple[Array, Array]:
        """Return how many values are below each point, at least and at most.

        :param points: ascending, finite.
        """
        import numpy as np

        if table := self.table:
            sums = np.concatenate([[0], np.cumsum(table.counts)])
            exact = sums[np.searchsorted(table.values, points, side="left")]
            return exact, exact
        edges, sums = self._known()
        at_least = sums[np.searchsorted(edges, points, side="right") - 1]
        at_most = sums[np.searchsorted(edges, points, side="left")]
        outside = (points <= self.low) | (points > self.high)
        exact = np.where(points <= self.low, 0, self.count)
        return np.where(outside, exact, at_least), np.where(outside, exact, at_most)

    def _known(self) -> tuple[Array, Array]:
        """Return edges, and how many values lie below each; the first and the last are infinite."""
        import numpy as np

        assert self.bins is not None
        edges = np.concatenate([[-np.inf], self.edges, [np.inf]])
        return edges, np.concatenate([[0], np.cumsum(self.bins)])

    def on_a_grid(self) -> NumericSummary:
        """Return the same with counts on a grid in place of all values."""
        table = self.table
        assert table is not None
        grid = grid_for(_spread(table))
        result = dataclasses.replace(self, keep=MANY, _pending=[], _waiting=0)
        result.bins = result._to_grid(grid) + grid.weighted(table.values, table.counts)
        return result

    def with_table(self, table: Table) -> NumericSummary:
        """Return the same with all values."""
        return dataclasses.replace(self, keep=max(MANY, len(table.values)), _table=table, _pending=[], _waiting=0)

    # -- two into one -------------------------------------------------------------------------------------------------

    def merge(self, other: NumericSummary) -> NumericSummary:
        """Return the summary of the rows of both."""
        import numpy as np

        if not other.count or not self.count:
            base = self if self.count else other
            return dataclasses.replace(
                base,
                rows=self.rows + other.rows,
                missing=self.missing + other.missing,
                infinite=self.infinite + other.infinite,
                _pending=list(base._pending),
                bins=None if base.bins is None else base.bins.copy(),
            )
        shift = self.shift or 0.0
        moved = (other.shift or 0.0) - shift
        result = NumericSummary(
            keep=max(self.keep, other.keep),
            dtype=str(np.result_type(self.dtype, other.dtype)),
            rows=self.rows + other.rows,
            missing=self.missing + other.missing,
            infinite=self.infinite + other.infinite,
            count=self.count + other.count,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            shift=shift,
            total=self.total + other.total + moved * other.count,
            squares=self.squares + other.squares + 2 * moved * other.total + moved * moved * other.count,
        )
        mine, its = self.table, other.table
        if mine is not None and its is not None:
            result.keep = SMALL_ROWS if result.rows <= SMALL_ROWS else MANY
            result._pending = [mine, its]
            result._waiting = len(mine.values) + len(its.values)
            result._settle()
        elif mine is not None or its is not None:
            gridded, exact = (other, mine) if its is None else (self, its)
            assert gridded.bins is not None
            assert exact is not None
            result.grid, result.own_edges = gridded.grid, gridded.own_edges
            places = np.searchsorted(gridded.edges, exact.values, side="right")
            added = np.bincount(places, weights=exact.counts, minlength=len(gridded.bins)).astype(np.int64)
            result.bins = gridded.bins + added
        elif self.grid is not None and self.grid == other.grid:
            assert self.bins is not None
            result.grid, result.bins = self.grid, self.bins + other.bins
        else:
            edges = np.intersect1d(self.edges, other.edges, assume_unique=True)
            result.own_edges = edges
            result.bins = self._onto(edges) + other._onto(edges)
        return result

    def _onto(self, edges: Array) -> Array:
        """Return the counts between some of the edges."""
        import numpy as np

        known, sums = self._known()
        at = sums[np.searchsorted(known, edges, side="left")]
        return np.diff(np.concatenate([[0], at, [self.count]]))


def as_floats(array: Any) -> Array:
    """Return an Arrow array without nulls as float64; times are seconds, dates days."""
    import numpy as np
    import pyarrow as pa

    kind, types = array.type, pa.types
    if types.is_decimal(kind) or types.is_boolean(kind) or types.is_float16(kind):
        array = array.cast(pa.uint8() if types.is_boolean(kind) else _wide(kind))
        return np.asarray(vector(array), dtype=np.float64)
    if types.is_timestamp(kind) or types.is_time(kind) or types.is_duration(kind):
        whole = vector(array.view(pa.int64() if kind.bit_width == 64 else pa.int32()))
        return np.asarray(whole / {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit])
    if types.is_date(kind):
        array = array.cast(pa.date32()).view(pa.int32())
    return np.asarray(vector(array), dtype=np.float64)


def _wide(kind: Any) -> Any:
    import pyarrow as pa

    return pa.float64() if pa.types.is_decimal(kind) else pa.float32()


def numpy_name(kind: Any) -> str:
    """Return the name of numpy's type that pandas gives a column of an Arrow type: where Evidently's bins depend on it.

    What has no integer or short type of its own is ``float64``.
    """
    import pyarrow as pa

    if pa.types.is_integer(kind):
        return str(kind)
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return f"float{kind.bit_width}"
    return "float64"


def counted(values: Array) -> Table:
    """Return the distinct values and their counts; integers of a small range without sorting."""
    import numpy as np

    if not len(values):
        return Table(values, np.empty(0, dtype=np.int64))
    low, high = float(values.min()), float(values.max())
    if high - low < 4096:
        whole = values.astype(np.int64) if abs(low) < 2**52 and abs(high) < 2**52 else None
        if whole is not None and np.array_equal(whole, values):
            first = int(low)
            counts = np.bincount(whole - first)
            places = np.flatnonzero(counts)
            return Table((places + first).astype(np.float64), counts[places])
    found, counts = np.unique(values, return_counts=True)
    return Table(found, counts)


def merged(tables: list[Table]) -> Table:
    """Return one table of several."""
    import numpy as np

    if len(tables) == 1:
        return tables[0]
    values, places = np.unique(np.concatenate([one.values for one in tables]), return_inverse=True)
    counts = np.bincount(places, weights=np.concatenate([one.counts for one in tables]), minlength=len(values))
    return Table(values, counts.astype(np.int64))


def _spread(table: Table) -> Array:
    """Return some thousand values that stand for a table, each as often as it occurs."""
    import numpy as np

    total = int(table.counts.sum())
    ranks = np.linspace(0, total - 1, min(total, 65_536)).astype(np.int64)
    return table.values[np.searchsorted(np.cumsum(table.counts), ranks, side="right")]
