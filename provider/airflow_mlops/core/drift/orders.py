"""Numbers that keep an order: where one is never above the other in a row, two columns that were swapped are seen.

Two columns whose distributions overlap (a temperature and its dew point, a net and a gross price, a start and an end)
may be swapped without either looking strange. What gives them away is their order. It is learnt only of columns that
move together and keep it in every block of the reference. Two that happen to lie apart for a season cross in another,
but then they lie close: a row counts as swapped only if it is on the wrong side by :data:`FAR` of their usual gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.drift.blocks import plain_values

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

    Array: TypeAlias = np.ndarray[Any, Any]

#: Columns that are looked at, and pairs of them that are counted, those that move together most.
MOST_COLUMNS, MOST_PAIRS = 300, 100
#: Rows of a batch that candidates are chosen by, and that say whether two columns move together.
SAMPLE = 1_000
#: Share of the rows that may be on the wrong side in any block of the reference.
KEPT = 0.01
#: Share of a window's rows that are on the wrong side, by so much of the median gap of the reference, beyond which two
#: columns are swapped. Of columns that were, more than half of the rows are unless their gap has become smaller.
BROKEN, FAR = 0.2, 0.75
#: Rank correlation (Spearman) from which on two columns move together.
TOGETHER = 0.7
#: Rows with both values that a block or window must have.
LEAST_ROWS = 200


@dataclass(frozen=True)
class Order:
    """Two columns that keep an order.

    :param worst: share of rows on the wrong side in the worst block of the reference.
    :param gap: the median of how far apart they are.
    """

    low: str
    high: str
    worst: float
    gap: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return dict(vars(self))


class Orders:
    """Counts rows that break orders, by block.

    :param names: numeric columns to find orders of; or:
    :param known: those that were learnt.
    """

    def __init__(self, blocks: int, names: list[str] | None = None, known: list[Order] | None = None) -> None:
        import numpy as np

        self.blocks = blocks
        self.names = (names or [])[:MOST_COLUMNS]
        self.pairs = None if known is None else [(one.low, one.high) for one in known]
        self.margins = {(one.low, one.high): FAR * one.gap for one in known or []}
        self.together: dict[tuple[str, str], list[float]] = {}
        self.gaps: dict[tuple[str, str], list[float]] = {}
        self.rows: dict[tuple[str, str], Array] = {}
        self.broken: dict[tuple[str, str], Array] = {}
        self._zero = np.zeros(blocks, dtype=np.int64)

    def add(self, batch: pyarrow.RecordBatch, block: Array) -> None:
        """Count one batch; the first one says which orders there may be."""
        import numpy as np

        learning = not self.margins
        if self.pairs is None:
            self.pairs = _candidates({name: _sample(batch.column(name)) for name in self.names})
        columns = {name: _numbers(batch.column(name)) for name in {name for pair in self.pairs for name in pair}}
        for pair in self.pairs:
            low, high = (columns[name] for name in pair)
            both = ~(np.isnan(low) | np.isnan(high))
            wrong = both & (low - high > self.margins.get(pair, 0.0))
            self.rows[pair] = self.rows.get(pair, self._zero) + np.bincount(block[both], minlength=self.blocks)
            self.broken[pair] = self.broken.get(pair, self._zero) + np.bincount(block[wrong], minlength=self.blocks)
            if learning and both.any():
                self.gaps.setdefault(pair, []).append(float(np.median((high - low)[both])))
                step = max(1, len(low) // SAMPLE)
                self.together.setdefault(pair, []).append(_together(low[::step], high[::step]))

    def kept(self, least_blocks: int) -> list[Order]:
        """Return the orders that every block keeps.

        :param least_blocks: blocks with enough rows that there must be.
        """
        import numpy as np

        found = []
        for pair, rows in self.rows.items():
            enough = rows >= LEAST_ROWS
            if int(enough.sum()) < least_blocks or float(np.mean(self.together[pair])) < TOGETHER:
                continue
            worst, gap = float(np.max(self.broken[pair][enough] / rows[enough])), float(np.median(self.gaps[pair]))
            if worst <= KEPT and gap > 0:
                found.append(Order(*pair, worst, gap))
        return found

    def broken_by(self) -> dict[str, tuple[float, str]]:
        """Return, by column, the largest share of a window's rows that look swapped, and the other column of them."""
        found: dict[str, tuple[float, str]] = {}
        for (low, high), rows in self.rows.items():
            if rows.sum() < LEAST_ROWS:
                continue
            share = float(self.broken[low, high].sum() / rows.sum())
            for name, other in ((low, high), (high, low)):
                if name not in found or share > found[name][0]:
                    found[name] = (share, other)
        return found


def _candidates(columns: dict[str, Array]) -> list[tuple[str, str]]:
    """Return the pairs of columns, the lower one first, that may keep an order and overlap."""
    import numpy as np

    names = [name for name, values in columns.items() if np.isfinite(values).sum() >= 50]
    ranges = {name: np.nanquantile(columns[name], [0.01, 0.99]) for name in names}
    found = []
    for one in names:
        for other in names:
            if one == other or ranges[one][1] < ranges[other][0]:
                continue
            with np.errstate(invalid="ignore"):
                both = ~(np.isnan(columns[one]) | np.isnan(columns[other]))
                low, high = columns[one][both], columns[other][both]
            if len(low) < 50 or (low > high).mean() > 2 * KEPT or (low < high).mean() < 0.5:
                continue
            together = _together(low, high)
            if together >= TOGETHER - 0.2:  # a batch may be of one season, in which less moves
                found.append((together, one, other))
    return [(one, other) for _, one, other in sorted(found, reverse=True)[:MOST_PAIRS]]


def _together(one: Array, other: Array) -> float:
    """Return the rank correlation of two columns."""
    import numpy as np

    both = ~(np.isnan(one) | np.isnan(other))
    if both.sum() < 50:
        return 0.0
    ranks = [_ranks(values[both]) for values in (one, other)]
    if any(each.std() == 0 for each in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Array) -> Array:
    import numpy as np

    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    upper = np.cumsum(counts)
    ranks: Array = (upper - (counts - 1) / 2)[place]
    return ranks


def _sample(column: pyarrow.Array) -> Array:
    return _numbers(column)[:: max(1, len(column) // SAMPLE)]


def _numbers(column: pyarrow.Array) -> Array:
    """Return a column as floats, NaN where there is no value."""
    import numpy as np

    values, there = plain_values(column, ordered=True)
    found = np.full(len(there), np.nan)
    found[there] = values
    return found
