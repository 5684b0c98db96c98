"""Scores of two summaries: exact where both are, else an estimate between two bounds.

Sources: Wasserstein distance as ``scipy.stats.wasserstein_distance``, divided by the population standard deviation of
the reference (at least 0.001); Kolmogorov-Smirnov as ``scipy.stats.ks_2samp``; Jensen-Shannon as
``scipy.spatial.distance.jensenshannon`` with natural logarithms; Kullback-Leibler as ``scipy.stats.entropy``; PSI,
Hellinger, chi-square and z as Evidently 0.7.23 defines them, with its bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.drift.categories import CategorySummary
from airflow_mlops.core.drift.choice import DriftTest
from airflow_mlops.core.drift.numeric import NumericSummary, Table
from airflow_mlops.core.extras import require

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

Summary: TypeAlias = NumericSummary | CategorySummary

#: A numeric column whose reference has more distinct values is counted in bins of equal width.
BINNED_FROM = 20
#: Evidently never divides by less.
LEAST_STD = 0.001
#: Up to so many values a side SciPy's p-value of Kolmogorov-Smirnov is exact.
_EXACT_KS = 10_000


@dataclass(frozen=True)
class Score:
    """A score and what it lies between; the three are equal where it is exact."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Score:
        """Return a score without error."""
        return cls(value, value, value)

    @property
    def bound(self) -> float:
        """How far the true score may be from the value; 0 where it is exact."""
        return max(self.high - self.value, self.value - self.low) if self.high > self.low else 0.0


def both_exact(reference: Summary, current: Summary) -> bool:
    """Return whether every value of both sides is known."""
    return all(
        one.known is not None if isinstance(one, CategorySummary) else one.table is not None
        for one in (reference, current)
    )


def exact_score(test: DriftTest, reference: Summary, current: Summary) -> float:
    """Return a score from all values of both sides.

    Both sides have at least one value.
    """
    if isinstance(reference, CategorySummary) or isinstance(current, CategorySummary):
        assert isinstance(reference, CategorySummary)
        assert isinstance(current, CategorySummary)
        return from_counts(test, *_aligned_categories(reference, current))
    mine, its = reference.table, current.table
    assert mine is not None
    assert its is not None
    if test.name == "wasserstein":
        return wasserstein(mine, its) / norm_of(reference.std)
    if test.name == "ks":
        return ks_p_value(ks_distance(mine, its), reference.count, current.count, (mine, its))
    values, ours, theirs = aligned(mine, its)
    if test.name == "hellinger":
        edges = sturges_edges(reference, current, len(values))
        return from_counts(test, *(histogram(table, edges) for table in (mine, its)))
    if test.binned and len(mine.values) > BINNED_FROM:
        edges = sturges_edges(reference, current, reference.count + current.count)
        return from_counts(test, *(histogram(table, edges) for table in (mine, its)))
    return from_counts(test, ours, theirs)


def from_counts(test: DriftTest, reference: Array, current: Array) -> float:
    """Return a score from counts of the same categories or bins, in the order of the categories.

    :param reference: ``(categories,)``, not all 0; so with ``current``.
    """
    import numpy as np

    p, q = reference / reference.sum(), current / current.sum()
    if test.name == "psi":
        p, q = _filled(p), _filled(q)
        return float(np.sum((p - q) * np.log(p / q)))
    if test.name == "kl_div":
        p, q = _filled(p), _filled(q)
        return float(np.sum(_relative_entropy(p / p.sum(), q / q.sum())))
    if test.name == "jensenshannon":
        m = (p + q) / 2
        return math.sqrt(max(float(np.sum(_relative_entropy(p, m)) + np.sum(_relative_entropy(q, m))), 0.0) / 2)
    if test.name == "hellinger":
        return math.sqrt(1 - min(max(float(np.sum(np.sqrt(p * q))), 0.0), 1.0))
    if test.name == "tvd":
        return float(0.5 * np.sum(np.abs(p - q)))
    if test.name == "chisquare":
        expected = reference * (current.sum() / reference.sum())
        with np.errstate(divide="ignore"):
            statistic = float(np.sum((current - expected) ** 2 / expected))
        special = require("scipy.special", "the drift test chisquare", "evidently")
        return float(special.chdtrc(len(reference) - 1, statistic)) if len(reference) > 1 else math.nan
    if test.name == "z":
        return _z_p_value(reference, current)
    raise AssertionError(test.name)


def _filled(shares: Array) -> Array:
    """Return shares with Evidently's small number in place of 0: PSI and KL divide by them."""
    import numpy as np

    least = float(shares[shares != 0].min())
    return np.where(shares == 0, least / 10**6 if least <= 0.0001 else 0.0001, shares)


def _relative_entropy(p: Array, q: Array) -> Array:
    import numpy as np

    result = np.zeros(len(p))
    there = p > 0
    result[there] = p[there] * np.log(p[there] / q[there])
    return result


def _z_p_value(reference: Array, current: Array) -> float:
    """Return the p-value of equal shares of all categories but the first."""
    n, m = float(reference.sum()), float(current.sum())
    p, q = float(reference[1:].sum()) / n, float(current[1:].sum()) / m
    pooled = (p * n + q * m) / (n + m)
    variance = pooled * (1 - pooled) * (1 / n + 1 / m)
    if variance <= 0:
        return 1.0
    special = require("scipy.special", "the drift test z", "evidently")
    return float(2 * (1 - special.ndtr(abs(p - q) / math.sqrt(variance))))


def norm_of(std: float) -> float:
    """Return what a Wasserstein distance is divided by."""
    return max(std, LEAST_STD)


def aligned(reference: Table, current: Table) -> tuple[Array, Array, Array]:
    """Return all values of both sides, and the counts of each side for them."""
    import numpy as np

    values = np.union1d(reference.values, current.values)
    counts = []
    for table in (reference, current):
        one = np.zeros(len(values), dtype=np.int64)
        one[np.searchsorted(values, table.values)] = table.counts
        counts.append(one)
    return values, counts[0], counts[1]


def _aligned_categories(reference: CategorySummary, current: CategorySummary) -> tuple[Array, Array]:
    import numpy as np

    mine, its = reference.known, current.known
    assert mine is not None
    assert its is not None
    keys = list({**mine, **its})
    try:
        keys.sort()
    except TypeError:
        keys.sort(key=lambda key: (type(key).__name__, str(key)))
    return np.array([mine.get(key, 0) for key in keys]), np.array([its.get(key, 0) for key in keys])


def wasserstein(reference: Table, current: Table) -> float:
    """Return the first Wasserstein distance: the area between the two distribution functions."""
    import numpy as np

    values, ours, theirs = aligned(reference, current)
    between = np.cumsum(ours) / ours.sum() - np.cumsum(theirs) / theirs.sum()
    return float(np.sum(np.abs(between[:-1]) * np.diff(values)))


def ks_distance(reference: Table, current: Table) -> float:
    """Return the greatest difference of the two distribution functions."""
    import numpy as np

    _, ours, theirs = aligned(reference, current)
    return float(np.max(np.abs(np.cumsum(ours) / ours.sum() - np.cumsum(theirs) / theirs.sum())))


def ks_p_value(distance: float, n: int, m: int, tables: tuple[Table, Table] | None = None) -> float:
    """Return SciPy's two-sided p-value of a Kolmogorov-Smirnov distance.

    :param tables: where both sides have few values: then it is exact.
    """
    import numpy as np

    stats = require("scipy.stats", "the drift test ks", "evidently")
    if tables is not None and max(n, m) <= _EXACT_KS:
        return float(stats.ks_2samp(*(np.repeat(one.values, one.counts) for one in tables)).pvalue)
    return float(np.clip(stats.kstwo.sf(distance, np.round(n * m / (n + m))), 0, 1))


def bins_of(low: float, high: float, size: int, dtype: str) -> tuple[float, float, int]:
    """Return the range and the number of Sturges' bins, as ``numpy.histogram_bin_edges`` has them.

    :param size: from how many values.
    """
    span = high - low
    if span == 0:
        return low - 0.5, high + 0.5, 1
    width = span / (math.log2(size) + 1.0)
    if dtype.startswith(("int", "uint")) and width < 1:
        width = 1
    return low, high, math.ceil(span / width)


def sturges_edges(reference: NumericSummary, current: NumericSummary, size: int) -> Array:
    """Return the edges of the bins that Evidently counts both sides in."""
    return edges_between(
        min(reference.low, current.low), max(reference.high, current.high), size, common_dtype(reference, current)
    )


def edges_between(low: float, high: float, size: int, dtype: str) -> Array:
    """Return the edges of Sturges' bins of a range."""
    import numpy as np

    first, last, number = bins_of(low, high, size, dtype)
    kind = dtype if dtype.startswith("float") else "float64"
    return np.linspace(first, last, number + 1, dtype=kind).astype(np.float64)


def common_dtype(reference: NumericSummary, current: NumericSummary) -> str:
    """Return numpy's type of both sides together; integers with missing values are floats in pandas."""
    import numpy as np

    names = ["float64" if one.absent and "int" in one.dtype else one.dtype for one in (reference, current)]
    return str(np.result_type(*names))


def histogram(table: Table, edges: Array) -> Array:
    """Return the counts between edges; the last bin has its upper edge."""
    import numpy as np

    return np.histogram(table.values, edges, weights=table.counts)[0]
