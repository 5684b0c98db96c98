"""Whether one model is better than another on the same rows by more than chance: pure functions of arrays.

A difference is always *ahead*: positive where the challenger is better, whatever the direction of the metric. What is
taken for how the rows depend on each other:

clusters (a group, or a day)
    Rows of one cluster may depend on each other in any way, clusters do not. Delete-one-cluster jackknife, and
    Student's t with G - 1 degrees of freedom (Efron & Stein 1981; Cameron & Miller 2015, section VI). More than
    :data:`MAX_GROUPS` clusters are first merged at random into that many (Kott 2001, the delete-a-group jackknife).
rows
    Each row stands for itself: DeLong's test for areas under ROC curves (DeLong et al. 1988, in the form of Sun & Xu
    2014), the exact test of McNemar (1947) for accuracy, the paired bootstrap (Efron & Tibshirani 1993, chapter 13)
    for any other metric. With more than :data:`BOOTSTRAP_ROWS` rows, random groups of rows take the place of
    clusters: it is the same standard error at a fraction of the cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

#: Fewer clusters say nothing of how clusters vary.
MIN_CLUSTERS = 15
#: Groups that the jackknife leaves out one at a time, at most.
MAX_GROUPS = 40
#: Rows up to which the bootstrap draws rows.
BOOTSTRAP_ROWS = 5_000
RESAMPLES = 1_000
#: The power with which :attr:`Difference.detectable` would have been found.
POWER = 0.8

Method = Literal["delong", "mcnemar", "bootstrap", "jackknife"]
Verdict = Literal["better", "worse", "equal", "cannot tell"]


@dataclass(frozen=True)
class Difference:
    """By how much the challenger is ahead, and how sure that is.

    :param ahead: the difference of the figures, positive where the challenger is better.
    :param error: its standard error.
    :param low: bound that the true difference is above with confidence ``1 - alpha``.
    :param high: bound that it is below with confidence ``1 - alpha``.
    :param p_better: one-sided p-value of "the challenger is not better".
    :param p_worse: one-sided p-value of "the challenger is not worse".
    :param unit: what varies: ``rows``, ``days``, or the column that names the clusters.
    :param units: how many of them there are.
    :param degrees: degrees of freedom of Student's t; None: the normal distribution, or none.
    """

    ahead: float
    error: float
    low: float
    high: float
    p_better: float
    p_worse: float
    alpha: float
    method: Method
    unit: str = "rows"
    units: int = 0
    degrees: int | None = None

    def above(self, bound: float) -> bool:
        """Return whether it is shown that the true difference is above a bound."""
        return self.p_better <= self.alpha if bound == 0 else self.low > bound

    def below(self, bound: float) -> bool:
        """Return whether it is shown that the true difference is below a bound."""
        return self.p_worse <= self.alpha if bound == 0 else self.high < bound

    @property
    def equal(self) -> bool:
        """Whether the two are equal on every unit: the same predictions, by all that the metric sees."""
        return self.ahead == 0 and self.error == 0

    @property
    def verdict(self) -> Verdict:
        """What the data say of the challenger."""
        if self.equal:
            return "equal"
        return "better" if self.above(0) else "worse" if self.below(0) else "cannot tell"

    @property
    def detectable(self) -> float:
        """The smallest true difference that data like these show in four cases of five."""
        return (_quantile(1 - self.alpha, self.degrees) + _quantile(POWER, self.degrees)) * self.error

    def to_dict(self) -> dict[str, Any]:
        """Return it as it stands in a report."""
        return {
            "verdict": self.verdict,
            "ahead": self.ahead,
            "standard_error": self.error,
            "low": self.low,
            "high": self.high,
            "p_better": self.p_better,
            "p_worse": self.p_worse,
            "alpha": self.alpha,
            "detectable": self.detectable,
            "method": self.method,
            "unit": self.unit,
            "units": self.units,
        }


def _quantile(probability: float, degrees: int | None) -> float:
    from scipy import stats

    return float(stats.norm.ppf(probability) if degrees is None else stats.t.ppf(probability, degrees))


def _tested(ahead: float, error: float, alpha: float, method: Method, degrees: int | None, **more: Any) -> Difference:
    """Return the difference whose estimate over its standard error is t- or normally distributed."""
    from scipy import stats

    if error > 0:
        ratio = ahead / error
        upper = stats.norm.sf if degrees is None else lambda x: stats.t.sf(x, degrees)
        p_better, p_worse = float(upper(ratio)), float(upper(-ratio))
    else:
        p_better, p_worse = (0.5, 0.5) if ahead == 0 else (0.0, 1.0) if ahead > 0 else (1.0, 0.0)
    reach = _quantile(1 - alpha, degrees) * error
    return Difference(
        ahead, error, ahead - reach, ahead + reach, p_better, p_worse, alpha, method, degrees=degrees, **more
    )


def delong(positive: Array, mine: Array, its: Array, *, alpha: float = 0.05) -> Difference:
    """Compare two areas under the ROC curve on the same rows, which depend on nothing.

    :param positive: boolean, ``(rows,)``; both classes must be there, two rows of each at least.
    :param mine: the challenger's scores, ``(rows,)``.
    :param its: the champion's scores, ``(rows,)``.
    """
    import numpy as np

    areas, of_positive, of_negative = [], [], []
    for scores in (mine, its):
        above, below = _placements(positive, np.asarray(scores, dtype="float64"))
        areas.append(float(above.mean()))
        of_positive.append(above)
        of_negative.append(below)
    variance = float(np.var(of_positive[0] - of_positive[1], ddof=1) / len(of_positive[0]))
    variance += float(np.var(of_negative[0] - of_negative[1], ddof=1) / len(of_negative[0]))
    return _tested(areas[0] - areas[1], math.sqrt(variance), alpha, "delong", None, units=len(positive))


def _placements(positive: Array, scores: Array) -> tuple[Array, Array]:
    """Return for each positive the share of negatives that it is above, and for each negative the reverse."""
    from scipy.stats import rankdata

    up, down = scores[positive], scores[~positive]
    ranks = rankdata(scores)
    above = (ranks[positive] - rankdata(up)) / len(down)
    below = 1 - (ranks[~positive] - rankdata(down)) / len(up)
    return above, below


def mcnemar(mine_right: Array, its_right: Array, *, alpha: float = 0.05, seed: int = 0) -> Difference:
    """Compare two accuracies on the same rows: exact p-values, and an interval by the paired bootstrap.

    :param mine_right: where the challenger is right, boolean, ``(rows,)``.
    :param its_right: where the champion is.
    """
    import numpy as np
    from scipy import stats

    rows = len(mine_right)
    only_mine, only_its = int((mine_right & ~its_right).sum()), int((its_right & ~mine_right).sum())
    apart = only_mine + only_its
    # Rows are drawn by how many fall into each of the three cells: 10,000 draws cost milliseconds.
    shares = np.array([only_mine, only_its, rows - apart]) / rows
    draws = np.random.default_rng(seed).multinomial(rows, shares, size=10_000)
    resampled = (draws[:, 0] - draws[:, 1]) / rows
    low, high = np.quantile(resampled, [alpha, 1 - alpha])
    return Difference(
        ahead=(only_mine - only_its) / rows,
        error=float(resampled.std(ddof=1)) if apart else 0.0,
        low=float(low),
        high=float(high),
        p_better=float(stats.binom.sf(only_mine - 1, apart, 0.5)) if apart else 0.5,
        p_worse=float(stats.binom.sf(only_its - 1, apart, 0.5)) if apart else 0.5,
        alpha=alpha,
        method="mcnemar",
        units=rows,
    )


def bootstrap(
    ahead: Callable[[Array], float | None], rows: int, *, alpha: float = 0.05, resamples: int = RESAMPLES, seed: int = 0
) -> Difference | None:
    """Compare two models by any metric: percentiles of the difference on rows drawn with replacement.

    :param ahead: the difference on some rows, given by position and maybe more than once; None where it has no value.
    :return: None if it has a value on fewer than nine draws in ten, or not on the rows themselves.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    value = ahead(np.arange(rows))
    found = [ahead(generator.integers(0, rows, rows)) for _ in range(resamples)]
    drawn = np.array([one for one in found if one is not None])
    if value is None or len(drawn) < 0.9 * resamples:
        return None
    low, high = np.quantile(drawn, [alpha, 1 - alpha])
    return Difference(
        ahead=value,
        error=float(drawn.std(ddof=1)),
        low=float(low),
        high=float(high),
        p_better=float((1 + (drawn <= 0).sum()) / (1 + len(drawn))),
        p_worse=float((1 + (drawn >= 0).sum()) / (1 + len(drawn))),
        alpha=alpha,
        method="bootstrap",
        units=rows,
    )


def jackknife(
    ahead: Callable[[Array], float | None], clusters: Array, *, unit: str, alpha: float = 0.05, seed: int = 0
) -> Difference | None:
    """Compare two models by any metric: the difference with one cluster left out at a time.

    :param ahead: the difference on the rows of a mask, ``(rows,)``; None where it has no value.
    :param clusters: the number of each row's cluster, from 0 on, ``(rows,)``.
    :param unit: what a cluster is, for the report.
    :return: None if the difference has no value without one of the clusters: that one is then all there is.
    """
    import numpy as np

    count = int(clusters.max()) + 1
    groups, parts = clusters, count
    if count > MAX_GROUPS:
        groups, parts = merged(count, seed)[clusters], MAX_GROUPS
    value = ahead(np.ones(len(clusters), dtype=bool))
    without = [ahead(groups != part) for part in range(parts)]
    if value is None or any(one is None for one in without):
        return None
    left = np.array(without, dtype="float64")
    error = math.sqrt((parts - 1) / parts * float(((left - left.mean()) ** 2).sum()))
    return _tested(value, error, alpha, "jackknife", parts - 1, unit=unit, units=count)


def merged(count: int, seed: int = 0) -> Array:
    """Return for each of so many clusters one of :data:`MAX_GROUPS` groups of nearly equal size, at random."""
    import numpy as np

    return np.random.default_rng(seed).permutation(np.arange(count) % MAX_GROUPS)
