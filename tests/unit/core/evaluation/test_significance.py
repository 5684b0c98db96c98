"""The tests of significance, held against their definitions and other implementations of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from airflow_mlops.core.evaluation.significance import (
    MAX_GROUPS,
    bootstrap,
    delong,
    jackknife,
    mcnemar,
    merged,
)


def scores(rows: int, seed: int = 0, apart: float = 0.5) -> tuple[Any, Any, Any]:
    """Return a target and the scores of two models that are equally good and much alike."""
    random = np.random.default_rng(seed)
    positive = random.random(rows) < 0.3
    signal = positive + random.normal(size=rows)
    return positive, signal + apart * random.normal(size=rows), signal + apart * random.normal(size=rows)


def delong_by_definition(positive: Any, mine: Any, its: Any) -> tuple[float, float]:
    """Return the difference and its standard error, pair by pair as the paper of 1988 has them (equations 2 to 4)."""
    tens, ones, areas = [], [], []
    for score in (mine, its):
        up, down = score[positive][:, None], score[~positive][None, :]
        kernel = (up > down) + 0.5 * (up == down)
        tens.append(kernel.mean(axis=1))
        ones.append(kernel.mean(axis=0))
        areas.append(kernel.mean())
    covariance = np.cov(tens) / positive.sum() + np.cov(ones) / (~positive).sum()
    contrast = np.array([1, -1])
    return areas[0] - areas[1], math.sqrt(contrast @ covariance @ contrast)


@given(st.integers(5, 120), st.integers(0, 10_000), st.booleans())
def test_delong_is_its_definition(rows: int, seed: int, ties: bool) -> None:
    positive, mine, its = scores(rows, seed)
    positive[:4] = [True, True, False, False]
    if ties:
        mine, its = mine.round(), its.round(1)
    ahead, error = delong_by_definition(positive, mine, its)

    found = delong(positive, mine, its)

    assert found.ahead == pytest.approx(ahead, abs=1e-12)
    assert found.ahead == pytest.approx(roc_auc_score(positive, mine) - roc_auc_score(positive, its), abs=1e-12)
    assert found.error == pytest.approx(error, abs=1e-9)
    if error > 1e-6:
        assert found.p_better == pytest.approx(stats.norm.sf(ahead / error), abs=1e-9)
        assert found.low == pytest.approx(ahead - stats.norm.ppf(0.95) * error, abs=1e-9)


#: Albumin, total protein and the K-G score (10 minus it) of 43 patients, and whether surgery helped: the data of DeLong
#: et al. 1988, as the SAS/STAT User's Guide has them in "Comparing Receiver Operating Characteristic Curves".
PATIENTS = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1   3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0   3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1   3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0   2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def test_delong_is_what_is_published_of_the_papers_own_data() -> None:
    albumin, protein, score, helped = np.array(PATIENTS.split(), dtype=float).reshape(-1, 4).T
    for test, ahead, error, low, high, chi_square, p in (
        (protein, -0.0780, 0.1046, -0.2830, 0.1271, 0.5554, 0.4561),
        (albumin, 0.0108, 0.0953, -0.1761, 0.1976, 0.0127, 0.9102),
    ):
        found = delong(helped == 1, test, -score, alpha=0.025)
        assert (found.ahead, found.error) == pytest.approx((ahead, error), abs=5e-5)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
        assert (found.ahead / found.error) ** 2 == pytest.approx(chi_square, abs=5e-5)
        assert 2 * min(found.p_better, found.p_worse) == pytest.approx(p, abs=5e-5)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_mcnemar_is_that_of_statsmodels(rows: list[tuple[bool, bool]]) -> None:
    mine, its = np.array(rows).T
    table = [[(mine & its).sum(), (mine & ~its).sum()], [(~mine & its).sum(), (~mine & ~its).sum()]]

    found = mcnemar(mine, its)

    assert found.ahead == pytest.approx(mine.mean() - its.mean())
    two_sided = min(1.0, 2 * min(found.p_better, found.p_worse))
    assert two_sided == pytest.approx(float(reference_mcnemar(table, exact=True).pvalue), abs=1e-9)


def test_the_interval_of_accuracy_is_that_of_scipys_bootstrap() -> None:
    random = np.random.default_rng(1)
    mine, its = random.random(400) < 0.8, random.random(400) < 0.75
    reference = stats.bootstrap(
        (mine, its),
        lambda a, b: a.mean() - b.mean(),
        paired=True,
        vectorized=False,
        n_resamples=4000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(2),
    )

    found = mcnemar(mine, its)

    # Monte-Carlo error: half a dozen standard errors of a quantile of 4,000 draws.
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.005)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.005)
    assert found.error == pytest.approx(reference.standard_error, rel=0.1)


def test_the_bootstrap_of_any_metric_is_scipys() -> None:
    truth, mine, its = np.random.default_rng(3).normal(size=(3, 300))

    def ahead(y: Any, a: Any, b: Any) -> float:
        return float(np.sqrt(np.mean((y - b) ** 2)) - np.sqrt(np.mean((y - a) ** 2)))

    reference = stats.bootstrap(
        (truth, mine, its),
        ahead,
        paired=True,
        vectorized=False,
        n_resamples=4000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(4),
    )

    found = bootstrap(lambda rows: ahead(truth[rows], mine[rows], its[rows]), 300, resamples=4000)

    assert found is not None
    assert found.ahead == pytest.approx(ahead(truth, mine, its))
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.01)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.01)
    assert found.error == pytest.approx(reference.standard_error, rel=0.1)


def test_the_jackknife_of_means_of_equal_clusters_is_the_t_test_of_their_means() -> None:
    random = np.random.default_rng(5)
    clusters = np.repeat(np.arange(20), 30)
    ahead = random.normal(0.1, 1, 600) + np.repeat(random.normal(0, 0.3, 20), 30)
    reference = stats.ttest_1samp(ahead.reshape(20, 30).mean(axis=1), 0, alternative="greater")

    found = jackknife(lambda rows: float(ahead[rows].mean()), clusters, unit="days")

    assert found is not None
    assert found.p_better == pytest.approx(reference.pvalue, abs=1e-9)
    assert found.error == pytest.approx(ahead.reshape(20, 30).mean(axis=1).std(ddof=1) / math.sqrt(20), abs=1e-9)
    assert found.low == pytest.approx(reference.confidence_interval(0.95).low, abs=1e-9)
    assert (found.unit, found.units, found.degrees) == ("days", 20, 19)


def test_many_clusters_are_merged_whole_and_evenly() -> None:
    groups = merged(1003)
    assert sorted(set(np.bincount(groups))) == [25, 26]
    assert len(np.bincount(groups)) == MAX_GROUPS
    random = np.random.default_rng(6)
    ahead = random.normal(0.02, 1, 50_000)

    found = jackknife(lambda rows: float(ahead[rows].mean()), np.arange(50_000), unit="rows")

    assert found is not None
    assert found.units == 50_000
    assert found.error == pytest.approx(ahead.std() / math.sqrt(50_000), rel=0.35)


def test_equal_models_are_equal_and_nothing_is_shown() -> None:
    positive, mine, _ = scores(200)
    right = mine > 1
    for found in (
        delong(positive, mine, mine),
        mcnemar(right, right),
        jackknife(lambda rows: 0.0, np.arange(200) // 10, unit="days"),
    ):
        assert found is not None
        assert (found.verdict, found.ahead, found.low, found.high) == ("equal", 0, 0, 0)
        assert not found.above(0)
        assert not found.below(0)


def test_a_metric_without_a_value_on_a_part_of_the_rows_is_no_difference() -> None:
    clusters = np.repeat(np.arange(15), 10)
    assert jackknife(lambda rows: None if not rows[0] else 0.1, clusters, unit="days") is None
    assert bootstrap(lambda rows: None if 0 not in rows else 0.1, 50) is None


@pytest.mark.parametrize(("shift", "verdict"), [(1.0, "better"), (-1.0, "worse"), (0.0, "cannot tell")])
def test_the_verdict_says_which_way(shift: float, verdict: str) -> None:
    positive, mine, its = scores(2000, seed=8)
    found = delong(positive, mine + shift * positive, its)
    assert found.verdict == verdict
    assert found.above(0) == (verdict == "better")
    assert found.below(0) == (verdict == "worse")
    assert found.to_dict()["verdict"] == verdict


def test_the_detectable_difference_is_found_in_four_cases_of_five() -> None:
    random = np.random.default_rng(9)
    clusters = np.repeat(np.arange(30), 5)
    error = 1 / math.sqrt(30)
    wanted = (stats.t.ppf(0.95, 29) + stats.t.ppf(0.8, 29)) * error
    hits = 0
    for _ in range(500):
        ahead = np.repeat(random.normal(wanted, 1, 30), 5)
        found = jackknife(lambda rows, ahead=ahead: float(ahead[rows].mean()), clusters, unit="days")
        assert found is not None
        hits += found.verdict == "better"
    assert hits / 500 == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 500))


PAIRS = 1000
#: Three standard errors of a share of 5% among so many.
LIMIT = 0.05 + 3 * math.sqrt(0.05 * 0.95 / PAIRS)


def share_better(difference: Any, seed: int) -> float:
    random = np.random.default_rng(seed)
    found = [difference(random) for _ in range(PAIRS)]
    return sum(one.verdict == "better" for one in found) / PAIRS


def test_on_rows_that_depend_on_nothing_equal_models_seldom_win() -> None:
    def pair(random: Any) -> Any:
        positive, mine, its = scores(500, int(random.integers(1 << 40)))
        return delong(positive, mine, its)

    def accuracy(random: Any) -> Any:
        return mcnemar(random.random(500) < 0.8, random.random(500) < 0.8)

    assert share_better(pair, 10) <= LIMIT
    assert share_better(accuracy, 11) <= LIMIT


def test_a_day_effect_makes_winners_of_rows_and_not_of_days() -> None:
    """Each model has good and bad days: the row-wise standard error is four times too small."""
    days, rows = 28, 100
    clusters = np.repeat(np.arange(days), rows)
    # The days add 15 times the variance that rows give a mean, p (1 - p) / n: four times the standard error.
    effect = math.sqrt(15 * 0.8 * 0.2 / rows)

    def right(random: Any) -> Any:
        chance = np.clip(random.normal(0.8, effect, days), 0, 1)
        return random.random(days * rows) < np.repeat(chance, rows)

    def by_rows(random: Any) -> Any:
        return mcnemar(right(random), right(random))

    def by_days(random: Any) -> Any:
        ahead = right(random).astype(float) - right(random)
        return jackknife(lambda one: float(ahead[one].mean()), clusters, unit="days")

    assert share_better(by_rows, 12) > 0.25
    assert share_better(by_days, 12) <= LIMIT
