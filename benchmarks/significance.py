"""How often equal models are called better, and better ones found: on independent rows, and with good and bad days.

Each share is of 1,000 simulated pairs at alpha = 5%. "Equal" must stay under 5% and three standard errors of a share.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from figures import Figure, report

from airflow_mlops.core.evaluation.paired import apart
from airflow_mlops.core.evaluation.parts import area
from airflow_mlops.core.evaluation.significance import Difference, delong, jackknife, mcnemar

PAIRS = 1000
DAYS, ROWS = 28, 100
LIMIT = 0.05 + 3 * math.sqrt(0.05 * 0.95 / PAIRS)
CLUSTERS = np.repeat(np.arange(DAYS), ROWS)


def auc(random: np.random.Generator, lead: float, effect: float) -> tuple[Any, Any, Any]:
    """Return a target and two models' scores; each model separates the classes better on some days than on others."""
    positive = random.random(DAYS * ROWS) < 0.3
    signal = random.normal(size=DAYS * ROWS)
    found = []
    for more in (lead, 0.0):
        apart = np.repeat(random.normal(1 + more, effect, DAYS), ROWS)
        found.append(positive * apart + 0.8 * signal + 0.6 * random.normal(size=DAYS * ROWS))
    return positive, found[0], found[1]


def accuracy(random: np.random.Generator, lead: float, effect: float) -> tuple[Any, Any]:
    """Return where two models are right; each has good and bad days."""
    found = []
    for more in (lead, 0.0):
        chance = np.clip(random.normal(0.8 + more, effect, DAYS), 0, 1)
        found.append(random.random(DAYS * ROWS) < np.repeat(chance, ROWS))
    return found[0], found[1]


def auc_by_days(positive: Any, mine: Any, its: Any) -> Difference | None:
    """Compare areas by days."""
    return jackknife(apart(area(positive, mine, None), area(positive, its, None)), CLUSTERS, unit="days")


def accuracy_by_days(mine: Any, its: Any) -> Difference | None:
    """Compare accuracies by days."""
    ahead = mine.astype(float) - its
    return jackknife(lambda rows: float(ahead[rows].mean()), CLUSTERS, unit="days")


def share(draw: Callable[..., Any], test: Callable[..., Difference | None], lead: float, effect: float) -> float:
    """Return how often a test says "better"."""
    random = np.random.default_rng(1)
    found = [test(*draw(random, lead, effect)) for _ in range(PAIRS)]
    return sum(one is not None and one.verdict == "better" for one in found) / PAIRS


def main() -> int:
    """Print the shares; the exit code says whether those that are promised hold."""
    # The days add 15 times the variance that rows give a mean: the row-wise standard error is four times too small.
    day_effect = math.sqrt(15 * 0.8 * 0.2 / ROWS)
    most = 0.0
    print(f"Called better in 1,000 pairs, {DAYS} days of {ROWS} rows      equal   better by a little   limit for equal")
    for metric, draw, by_rows, by_days, lead, effect in (
        ("roc_auc", auc, delong, auc_by_days, 0.06, 0.5),
        ("accuracy", accuracy, mcnemar, accuracy_by_days, 0.02, day_effect),
    ):
        for rows, strength in (("independent rows", 0.0), ("good and bad days", effect)):
            for name, test, promised in (("by rows", by_rows, not strength), ("by days", by_days, True)):
                equal = share(draw, test, 0.0, strength)
                power = share(draw, test, lead * (1 + 3 * bool(strength)), strength)
                ok = equal <= LIMIT or not promised
                most = max(most, equal if promised else 0.0)
                said = f"{LIMIT:.1%} {'holds' if ok else 'MISSED'}" if promised else "none: wrong here"
                print(
                    f"  {metric:9} {rows:18} {name:8}                {equal:6.1%}   {power:6.1%}               {said}"
                )
    return report(Figure("equal models called better", 100 * most, 100 * LIMIT, "%"))


if __name__ == "__main__":
    sys.exit(main())
