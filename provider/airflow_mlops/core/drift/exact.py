"""Further passes over single columns: they settle exactly what counts on a grid could not, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.drift.choice import DriftTest
from airflow_mlops.core.drift.numeric import NumericSummary, Table, as_floats, counted, merged
from airflow_mlops.core.drift.scores import aligned, from_counts, ks_p_value, norm_of, sturges_edges

if TYPE_CHECKING:
    import numpy as np

    from airflow_mlops.core.drift.reading import Opened

    Array: TypeAlias = np.ndarray[Any, Any]

#: Values of both sides that are in memory at once.
VALUES_AT_ONCE = 2_000_000


def settle(
    tests: Mapping[str, DriftTest],
    reference: tuple[Opened, Mapping[str, Any]],
    current: tuple[Opened, Mapping[str, Any]],
) -> dict[str, float]:
    """Return exact scores of numeric columns.

    :param tests: the score of each column.
    :param reference: the dataset, and the summaries of its columns.
    """
    scores, sizes = {}, {}
    for name, test in tests.items():
        if test.name in ("wasserstein", "ks", "hellinger"):
            found = _Ordered((reference[0], reference[1][name]), (current[0], current[1][name]), name)
            found.run()
            if test.name == "hellinger":
                sizes[name] = found.distinct
            else:
                scores[name] = found.wasserstein if test.name == "wasserstein" else found.ks
        else:
            sizes[name] = reference[1][name].count + current[1][name].count
    edges = {name: sturges_edges(reference[1][name], current[1][name], size) for name, size in sizes.items()}
    if edges:
        ours, theirs = (count_between(opened, edges) for opened, _ in (reference, current))
        scores |= {name: from_counts(tests[name], ours[name], theirs[name]) for name in edges}
    return scores


def count_between(opened: Opened, edges: Mapping[str, Array]) -> dict[str, Array]:
    """Return the counts of columns between edges, from one pass over them."""
    import numpy as np

    total = {name: np.zeros(len(one) - 1, dtype=np.int64) for name, one in edges.items()}
    for batch in opened.batches(list(edges)):
        for name, one in edges.items():
            total[name] += np.histogram(finite(batch.column(name)), one)[0]
    return total


def finite(array: Any) -> Array:
    """Return the finite values of an Arrow array as float64."""
    import numpy as np

    values = as_floats(array.drop_null() if array.null_count else array)
    good = np.isfinite(values)
    return values if good.all() else values[good]


class _Ordered:
    """A walk over all values of both sides in ascending order, some at a time.

    :param reference: the dataset, and the summary of the column.
    """

    def __init__(self, reference: tuple[Opened, NumericSummary], current: tuple[Opened, NumericSummary], name: str):
        self.sides = (reference, current)
        self.name = name
        self.area = self.greatest = 0.0
        self.distinct = 0
        self.tables: tuple[Table, Table] | None = None
        self._last: float | None = None
        self._between = 0.0
        self._done = [0, 0]

    def run(self) -> None:
        """Walk."""
        import numpy as np

        parts = list(self._parts())
        for low, high in parts:
            tables = [self._values(opened, low, high) for opened, _ in self.sides]
            if len(parts) == 1:
                self.tables = (tables[0], tables[1])
            values, ours, theirs = aligned(*tables)
            if not len(values):
                continue
            self.distinct += len(values)
            n, m = (summary.count for _, summary in self.sides)
            between = (self._done[0] + np.cumsum(ours)) / n - (self._done[1] + np.cumsum(theirs)) / m
            if self._last is not None:
                self.area += abs(self._between) * float(values[0] - self._last)
            self.area += float(np.sum(np.abs(between[:-1]) * np.diff(values)))
            self.greatest = max(self.greatest, float(np.max(np.abs(between))))
            self._last, self._between = float(values[-1]), float(between[-1])
            self._done = [self._done[0] + int(ours.sum()), self._done[1] + int(theirs.sum())]

    def _parts(self) -> Iterator[tuple[float, float]]:
        """Yield ranges that hold few enough values, ascending."""
        import numpy as np

        summaries = [summary for _, summary in self.sides]
        if sum(one.count for one in summaries) <= VALUES_AT_ONCE:
            yield -np.inf, np.inf
            return
        edges = next(one.edges for one in summaries if one.table is None)
        below = summaries[0].below(edges)[1] + summaries[1].below(edges)[1]
        start, done = -np.inf, 0
        while True:
            place = int(np.searchsorted(below, done + VALUES_AT_ONCE, side="right")) - 1
            if place < 0 or float(edges[place]) <= start:
                place += 1
            if place >= len(edges):
                yield start, np.inf
                return
            yield start, float(edges[place])
            start, done = float(edges[place]), int(below[place])

    def _values(self, opened: Opened, low: float, high: float) -> Table:
        import numpy as np

        tables, waiting = [counted(np.empty(0))], 0
        for batch in opened.batches([self.name]):
            values = finite(batch.column(self.name))
            if low != -np.inf or high != np.inf:
                values = values[(values >= low) & (values < high)]
            if len(values):
                tables.append(counted(values))
                waiting += len(tables[-1].values)
                if waiting > 2 * VALUES_AT_ONCE:
                    tables, waiting = [merged(tables)], 0
        return merged(tables)

    @property
    def wasserstein(self) -> float:
        """The normed Wasserstein distance."""
        return self.area / norm_of(self.sides[0][1].std)

    @property
    def ks(self) -> float:
        """The p-value of the Kolmogorov-Smirnov test."""
        return ks_p_value(self.greatest, self.sides[0][1].count, self.sides[1][1].count, self.tables)
