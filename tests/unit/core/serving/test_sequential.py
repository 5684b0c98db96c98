"""Tests of a rate that are looked at after every request: how often they are wrong, and how soon they are right."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.serving.sequential import enough, evidence_above, evidence_below

LIMIT, MARGIN = 0.01, 0.05


def alarm(rate: float, limit: float, alpha: float, requests: int, seed: int) -> int | None:
    """Return after how many requests it speaks, if it is looked at after each of them."""
    chance, bad = random.Random(seed), 0
    for total in range(1, requests + 1):
        bad += chance.random() < rate
        if evidence_above(bad, total, limit) >= math.log(1 / alpha):
            return total
    return None


def test_false_alarms_stay_rare_however_often_it_is_looked_at() -> None:
    alarms = sum(alarm(LIMIT, LIMIT, 0.1, 500, seed) is not None for seed in range(300))
    # A binomial test at 0.1, looked at as often, is wrong in 75 of them.
    assert alarms <= 30


@pytest.mark.parametrize(("rate", "median"), [(1.0, 4), (0.2, 40), (0.05, 400)])
def test_a_bad_one_is_found_and_the_worse_it_is_the_sooner(rate: float, median: int) -> None:
    found = sorted(alarm(rate, LIMIT, 0.01, 2000, seed) or 9999 for seed in range(40))
    assert found[20] <= median
    assert found[-1] < 9999


@given(st.floats(0.001, 0.5), st.floats(0, 1), st.integers(0, 60))
def test_whoever_bets_against_the_truth_does_not_gain(limit: float, part: float, before: int) -> None:
    """The next request changes the fortune by nothing on average, or for the worse: what all of it rests on."""
    bad, rate = int(part * before), limit * part

    def fortune(more: int) -> float:
        return math.exp(evidence_above(bad + more, before + 1, limit))

    now = math.exp(evidence_above(bad, before, limit))
    assert rate * fortune(1) + (1 - rate) * fortune(0) <= now * (1 + 1e-9)
    assert math.isclose(limit * fortune(1) + (1 - limit) * fortune(0), now, rel_tol=1e-9)


@given(st.floats(0, 0.2), st.floats(0.01, 0.5), st.floats(0, 1), st.integers(0, 60))
def test_nor_does_who_bets_that_a_bad_one_is_good(expected: float, margin: float, part: float, before: int) -> None:
    limit, bad = expected + margin, int(part * before)
    rate = limit + (1 - limit) * part

    def fortune(more: int, total: int) -> float:
        return math.exp(evidence_below(bad + more, total, limit, expected))

    now = fortune(0, before)
    assert rate * fortune(1, before + 1) + (1 - rate) * fortune(0, before + 1) <= now * (1 + 1e-9)


def test_how_many_good_ones_are_enough() -> None:
    limit = LIMIT + MARGIN
    assert enough(limit, LIMIT, 0.05) == 58
    assert evidence_below(0, 58, limit, LIMIT) >= math.log(20) > evidence_below(0, 57, limit, LIMIT)
    # A bad one has to be made up for.
    assert evidence_below(1, 58, limit, LIMIT) < math.log(20) < evidence_below(1, 95, limit, LIMIT)


def test_where_none_may_be_bad_the_first_one_is_proof() -> None:
    assert evidence_above(0, 1000, 0.0) == 0.0
    assert evidence_above(1, 1000, 0.0) == math.inf
    assert evidence_below(1, 1000, 0.05, 0.0) == -math.inf
