"""Scores of summaries of which at least one has only counts on a grid: an estimate, and what it lies between.

At the edges that both sides share, both distribution functions are known exactly. Between two of them each rises
somehow: that is all that is not known.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.drift.choice import DriftTest
from airflow_mlops.core.drift.numeric import NumericSummary
from airflow_mlops.core.drift.scores import (
    Score,
    bins_of,
    common_dtype,
    edges_between,
    from_counts,
    ks_p_value,
    norm_of,
)

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


def bounded_score(test: DriftTest, reference: NumericSummary, current: NumericSummary) -> Score:
    """Return a score that is known within bounds."""
    if test.name == "wasserstein":
        return _wasserstein(reference, current)
    if test.name == "ks":
        return _ks(reference, current)
    if test.name == "hellinger":
        return _hellinger(reference, current)
    return _binned(test, reference, current, reference.count + current.count)


def _known_at(reference: NumericSummary, current: NumericSummary) -> tuple[Array, Array, Array]:
    """Return points from the least to the greatest value, and both distribution functions just below each."""
    import numpy as np

    grids = [one.edges for one in (reference, current) if one.table is None]
    alone = len(grids) == 1 or grids[0] is grids[1]
    edges = grids[0] if alone else np.intersect1d(grids[0], grids[1], assume_unique=True)
    low, high = min(reference.low, current.low), max(reference.high, current.high)
    points = np.concatenate([[low], edges[(edges > low) & (edges < high)], [np.nextafter(high, math.inf)]])
    f, g = (one.below(points)[0] / one.count for one in (reference, current))
    return points, f, g


def _wasserstein(reference: NumericSummary, current: NumericSummary) -> Score:
    import numpy as np

    points, f, g = _known_at(reference, current)
    width = np.diff(points)
    before, after = f[:-1] - g[:-1], f[1:] - g[1:]
    turned = before * after < 0
    steps = np.abs(before) + np.abs(after)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(turned, (before**2 + after**2) / (2 * steps), steps / 2)
    most = np.maximum(np.abs(f[:-1] - g[1:]), np.abs(f[1:] - g[:-1]))
    least = np.maximum(np.maximum(f[:-1] - g[1:], g[:-1] - f[1:]), 0)
    # Whatever the shapes, the distance is not below the difference of the means.
    low = max(float(least @ width), abs(reference.mean - current.mean))
    high = max(float(most @ width), low)
    norm = norm_of(reference.std)
    return Score(min(max(float(mean @ width), low), high) / norm, low / norm, high / norm)


def _ks(reference: NumericSummary, current: NumericSummary) -> Score:
    import numpy as np

    _, f, g = _known_at(reference, current)
    least = float(np.max(np.abs(f - g)))
    most = max(float(np.max(np.maximum(np.abs(f[:-1] - g[1:]), np.abs(f[1:] - g[:-1])))), least)
    n, m = reference.count, current.count
    return Score(ks_p_value(least, n, m), ks_p_value(most, n, m), ks_p_value(least, n, m))


def _hellinger(reference: NumericSummary, current: NumericSummary) -> Score:
    """Return the score over every number of bins that there may be: it depends on how many values differ."""
    import numpy as np

    from airflow_mlops.core.drift.choice import TESTS

    low, high = min(reference.low, current.low), max(reference.high, current.high)
    dtype = common_dtype(reference, current)
    most = reference.count + current.count
    least = max(_least_distinct(one) for one in (reference, current))
    sizes = [least, *(2**power + 1 for power in range(1, 60) if least < 2**power + 1 <= most), most]
    found: dict[int, Score] = {}
    for size in sizes:
        number = bins_of(low, high, size, dtype)[2]
        if number not in found:
            found[number] = _binned(TESTS["hellinger"], reference, current, size)
    scores = list(found.values())
    return Score(
        float(np.median([one.value for one in scores])), min(one.low for one in scores), max(one.high for one in scores)
    )


def _least_distinct(one: NumericSummary) -> int:
    import numpy as np

    return one.distinct or int(np.count_nonzero(one.bins if one.bins is not None else 0))


def _binned(test: DriftTest, reference: NumericSummary, current: NumericSummary, size: int) -> Score:
    """Return a score of counts in bins whose edges lie between those of the grids."""
    import numpy as np

    edges = edges_between(
        min(reference.low, current.low), max(reference.high, current.high), size, common_dtype(reference, current)
    )
    sides = []
    for one in (reference, current):
        low, high = (bound.astype(np.float64) for bound in one.below(edges))
        low[-1] = high[-1] = one.count
        sides.append((np.maximum(low[1:] - high[:-1], 0), np.diff((low + high) / 2), high[1:] - low[:-1]))
    value = from_counts(test, sides[0][1], sides[1][1])
    shares = [[one / side.count for one in three] for side, three in ((reference, sides[0]), (current, sides[1]))]
    least, most = _between(test, shares[0], shares[1], (1 / reference.count, 1 / current.count))
    return Score(value, min(least, value), max(most, value))


def _between(test: DriftTest, p: list[Array], q: list[Array], fewest: tuple[float, float]) -> tuple[float, float]:
    """Return the least and the greatest score of shares that are known within bounds.

    Each score is a sum over bins of terms that are convex, 0 where both shares are equal and greater the further they
    are apart: the greatest is at a corner, the least where the shares come as near to each other as they may.

    :param p: least, middle and greatest share of each bin; so ``q``.
    :param fewest: the share of one row on each side, which Evidently's filling of empty bins depends on.
    """
    import numpy as np

    filled = test.name in ("psi", "kl_div")
    near_p = np.clip(q[1], p[0], p[2])
    near_q = np.clip(near_p, q[0], q[2])
    fills = [[1e-4], [1e-4]]
    if filled:
        near_p, near_q = (np.where(one == 0, 1e-4, one) for one in (near_p, near_q))
        fills = [[one / 1e6, 1e-4] for one in fewest]
    least = np.sum(_terms(test, near_p, near_q))
    count = len(near_p)
    corners = []
    for a in (p[0], p[2]):
        for b in (q[0], q[2]):
            for c in fills[0] if filled and (a == 0).any() else [0.0]:
                for d in fills[1] if filled and (b == 0).any() else [0.0]:
                    corners.append(_terms(test, np.where(a == 0, c, a), np.where(b == 0, d, b)))
    most = np.sum(np.max(corners, axis=0))
    # Kullback-Leibler is taken of shares that add up to 1 after the filling.
    slack = 2e-4 * count if test.name == "kl_div" and ((p[0] == 0) | (q[0] == 0)).any() else 0.0
    root = test.name in ("jensenshannon", "hellinger")
    low, high = max(float(least) - slack, 0.0), float(most) + slack
    return (math.sqrt(low), math.sqrt(high)) if root else (low, high)


def _terms(test: DriftTest, p: Array, q: Array) -> Array:
    """Return what each bin adds to a score, or to its square where the score is a root."""
    import numpy as np

    if test.name == "hellinger":
        return (np.sqrt(p) - np.sqrt(q)) ** 2 / 2
    if test.name == "psi":
        return (p - q) * np.log(p / q)
    if test.name == "kl_div":
        return _entropy(p, q) - p + q
    m = (p + q) / 2
    return (_entropy(p, m) + _entropy(q, m)) / 2


def _entropy(p: Array, q: Array) -> Array:
    import numpy as np

    result = np.zeros(len(p))
    there = p > 0
    result[there] = p[there] * np.log(p[there] / q[there])
    return result
