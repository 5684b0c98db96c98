"""Thresholds learnt from the reference's own blocks: quiet where nothing changes, loud where something breaks."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.drift import blocks, learn
from airflow_mlops.core.drift.learning import Learned, judge_window, learn_reference
from airflow_mlops.core.errors import SpecError

ORDERED = {"age": True, "pay": True, "code": False, "paid": True, "seen": True}


def people(rng: np.random.Generator, weeks: int, start: int = 0, rows: int = 1_000) -> pd.DataFrame:
    """Return weeks of rows whose distribution moves a little from one week to the next."""
    parts = []
    for week in range(start, start + weeks):
        move = rng.normal(0, 0.1)
        frame = pd.DataFrame({"age": rng.integers(18, 80, rows)})
        frame["pay"] = rng.lognormal(7 + move, 0.5, rows).round(3)
        frame["code"] = rng.choice(["a", "b", "c", "d"], rows, p=[0.4, 0.3, 0.2, 0.1])
        frame["paid"] = rng.random(rows) < 0.3 + move / 10
        frame["pay"] = frame["pay"].mask(rng.random(rows) < 0.02)
        moment = pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(days=7 * week)
        frame["seen"] = moment + pd.to_timedelta(rng.integers(0, 7 * 86_400, rows), unit="s")
        parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def opened(frame: pd.DataFrame, size: int = 700) -> Any:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return lambda names: table.select(names).to_batches(max_chunksize=size)


@pytest.fixture(scope="module")
def learned() -> Learned:
    frame = people(np.random.default_rng(0), 12)
    ordered = {name: ORDERED[name] for name in ("age", "pay", "code", "paid")}
    return learn_reference(opened(frame), ordered, time="seen", length=dt.timedelta(days=7), rows=len(frame))


def drifted(learned: Learned, frame: pd.DataFrame) -> dict[str, str]:
    found = judge_window(learned, opened(frame))
    return {name: str(finding.about) for name, finding in found.items() if finding.drifted}


def test_blocks_are_as_long_as_the_windows(learned: Learned) -> None:
    assert (learned.blocks, learned.unit) == (12, "7 days")
    assert learned.columns["age"].rows == pytest.approx(1_000, abs=5)


def test_weeks_like_the_references_own_are_no_drift() -> None:
    """One window in 520 is put up with; 3 of 100 would come of a rate six times that in one test of ninety."""
    alarms = 0
    ordered = {name: ORDERED[name] for name in ("age", "pay", "code", "paid")}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        frame = people(rng, 12)
        learned = learn_reference(
            opened(frame, 12_000), ordered, time="seen", length=dt.timedelta(days=7), rows=len(frame)
        )
        alarms += sum(bool(drifted(learned, people(rng, 1, start=20 + week))) for week in range(10))
    assert alarms <= 3


@pytest.mark.parametrize(
    ("column", "change", "about"),
    [
        ("pay", lambda frame: frame["pay"] * 1.609, "distribution"),
        ("pay", lambda frame: frame["pay"].mask(frame.index % 5 == 0), "missing"),
        ("age", lambda frame: frame["age"] * 0.7, "novel"),
        ("age", lambda frame: frame["age"] * 12, "distribution"),
        ("code", lambda frame: frame["code"].replace("a", "A"), "novel"),
        ("code", lambda frame: frame["code"].replace("b", "d"), "distribution"),
        ("paid", lambda frame: ~frame["paid"], "distribution"),
    ],
)
def test_what_breaks_is_found(learned: Learned, column: str, change: Any, about: str) -> None:
    frame = people(np.random.default_rng(2), 1, start=30)
    assert drifted(learned, frame.assign(**{column: change(frame)})) == {column: about}


def test_a_sentinel_on_both_sides_hides_nothing() -> None:
    rng = np.random.default_rng(3)
    reference = pd.DataFrame({"x": rng.normal(0, 1, 8_000)})
    reference.loc[::1000, "x"] = 1e12
    learned = learn_reference(opened(reference), {"x": True}, rows=len(reference))
    moved = pd.DataFrame({"x": rng.normal(1, 1, 2_000)})
    moved.loc[0, "x"] = 1e12
    assert drifted(learned, moved) == {"x": "distribution"}


def test_a_tiny_scale_is_a_scale() -> None:
    rng = np.random.default_rng(4)
    reference = pd.DataFrame({"x": 5 + rng.normal(0, 2e-5, 8_000)})
    learned = learn_reference(opened(reference), {"x": True}, rows=len(reference))
    assert drifted(learned, pd.DataFrame({"x": 5 + rng.normal(0, 2e-5, 1_000)})) == {}
    assert drifted(learned, pd.DataFrame({"x": 5 + 1e-4 + rng.normal(0, 2e-5, 1_000)})) == {"x": "distribution"}


def test_a_small_window_does_not_alarm_by_chance_alone() -> None:
    """Fifty categories and few rows: Evidently's default alarms on nearly every such window."""
    rng = np.random.default_rng(5)
    names = np.array([f"c{n}" for n in range(50)])
    reference = pd.DataFrame({"x": rng.choice(names, 50_000)})
    learned = learn_reference(opened(reference, 5_000), {"x": False}, rows=len(reference))
    alarms = [drifted(learned, pd.DataFrame({"x": rng.choice(names, 250)})) for _ in range(100)]
    assert sum(bool(alarm) for alarm in alarms) <= 2


def test_a_window_of_too_few_rows_is_not_judged(learned: Learned) -> None:
    found = judge_window(learned, opened(people(np.random.default_rng(6), 1, rows=50)))
    assert {finding.skipped for finding in found.values()} == {"50 rows, and 200 are needed"}
    assert not any(finding.drifted for finding in found.values())


def test_an_empty_window_is_not_judged(learned: Learned) -> None:
    found = judge_window(learned, opened(people(np.random.default_rng(6), 1).iloc[:0]))
    assert all(finding.skipped for finding in found.values())


def test_a_column_that_lost_all_its_values_is_found(learned: Learned) -> None:
    frame = people(np.random.default_rng(7), 1, start=30)
    assert drifted(learned, frame.assign(pay=np.nan)) == {"pay": "missing"}


def test_an_outage_in_the_reference_does_not_excuse_the_next() -> None:
    frame = people(np.random.default_rng(8), 12)
    frame.loc[frame.index[3_000:3_500], "pay"] = np.nan
    learned = learn_reference(opened(frame), {"pay": True}, time="seen", length=dt.timedelta(days=7), rows=len(frame))
    later = people(np.random.default_rng(9), 1, start=30)
    assert drifted(learned, later.assign(pay=later["pay"].mask(later.index % 5 == 0))) == {"pay": "missing"}


def test_a_short_reference_is_refused() -> None:
    frame = people(np.random.default_rng(10), 3)
    with pytest.raises(SpecError, match="has only 3 of 7 days: give a longer reference, shorter blocks"):
        learn_reference(opened(frame), {"age": True}, time="seen", length=dt.timedelta(days=7), rows=len(frame))
    with pytest.raises(SpecError, match="500 rows has only 2 of 200 rows or more: give a longer reference, or"):
        learn_reference(opened(frame[:500]), {"age": True}, rows=500)


def test_an_unknown_sensitivity_is_refused() -> None:
    frame = people(np.random.default_rng(10), 4)
    with pytest.raises(SpecError, match="low, normal, high"):
        learn_reference(opened(frame), {"age": True}, rows=len(frame), sensitivity="max")  # type: ignore[arg-type]


def test_a_higher_sensitivity_never_has_a_higher_threshold() -> None:
    frame = people(np.random.default_rng(11), 8)
    levels = [
        learn_reference(opened(frame), {"pay": True, "code": False}, rows=len(frame), sensitivity=each)
        for each in ("low", "normal", "high")
    ]
    for column in ("pay", "code"):
        for about in ("distribution", "missing", "novel"):
            found = [level.columns[column].thresholds[about] for level in levels]
            assert found == sorted(found, reverse=True)


def test_what_was_learnt_survives_json(learned: Learned) -> None:
    again = Learned.from_dict(json.loads(json.dumps(learned.to_dict())))
    frame = people(np.random.default_rng(12), 1, start=30)
    assert judge_window(again, opened(frame)) == judge_window(learned, opened(frame))


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 3_000), kind=st.sampled_from(["discrete", "many numbers", "many categories"]))
def test_how_rows_come_in_batches_changes_nothing(size: int, kind: str) -> None:
    rng = np.random.default_rng(13)
    drawn: Any = rng.integers(0, 30, 6_000) if kind == "discrete" else rng.integers(0, 5_000, 6_000)
    ordered = kind != "many categories"
    frame = pd.DataFrame({"x": drawn if ordered else drawn.astype(str)})
    whole = learn_reference(opened(frame, 6_000), {"x": ordered}, rows=6_000)
    found = judge_window(whole, opened(frame[:1_000], size))["x"]
    assert found == judge_window(whole, opened(frame[:1_000], 6_000))["x"]
    assert not found.drifted


def test_times_booleans_and_dictionaries_are_counted() -> None:
    table = pa.table(
        {
            "when": pa.array([dt.datetime(2024, 1, 1), None, dt.datetime(2024, 1, 2)], pa.timestamp("us")),
            "day": pa.array([dt.date(2024, 1, 1), dt.date(2024, 1, 1), None]),
            "flag": pa.array([True, None, False]),
            "name": pa.array(["a", "b", None]).dictionary_encode(),
            "number": pa.array([1.0, float("inf"), float("nan")]),
        }
    )
    ordered = {"when": True, "day": True, "flag": True, "name": False, "number": True}
    counters = blocks.tallies(ordered, 1)
    blocks.count(table.to_batches(), counters, lambda batch: np.zeros(batch.num_rows, dtype=np.int64))
    assert {name: int(tally.missing[0]) for name, tally in counters.items()} == {
        "when": 1,
        "day": 1,
        "flag": 1,
        "name": 1,
        "number": 2,
    }
    assert counters["day"].values.keys() == {1704067200.0}
    assert counters["name"].values.keys() == {"a", "b"}


def test_hellinger_is_zero_for_equal_and_one_for_disjoint_shares() -> None:
    assert learn.hellinger_squared(np.array([1, 2]), np.array([10, 20])) == pytest.approx(0, abs=1e-12)
    assert learn.hellinger_squared(np.array([1, 0]), np.array([0, 5])) == 1
    assert learn.hellinger_squared(np.array([0, 0]), np.array([0, 5])) == 1
    half = learn.hellinger_squared(np.array([1, 1]), np.array([1, 0]))
    assert half == pytest.approx(1 - np.sqrt(0.5))


def weather(rng: np.random.Generator, weeks: int, warmer: float = 0.0, rows: int = 1_000) -> pd.DataFrame:
    """Return weeks with a temperature that is never below the dew point, humidity that happens to be above both."""
    parts = []
    for week in range(weeks):
        temp = rng.normal(10 + 5 * np.sin(week) + warmer, 8, rows)
        frame = pd.DataFrame({"temp": temp, "dew": temp - rng.gamma(2, 2, rows)})
        frame["humid"] = rng.normal(75, 8, rows)
        frame["sensor"] = temp + rng.normal(0, 1, rows)
        moment = pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(days=7 * week)
        frame["seen"] = moment + pd.to_timedelta(rng.integers(0, 7 * 86_400, rows), unit="s")
        parts.append(frame.mask(rng.random((rows, 5)) < [0.05, 0.05, 0, 0, 0]))
    return pd.concat(parts, ignore_index=True)


def test_two_columns_that_were_swapped_are_told_by_their_order() -> None:
    rng = np.random.default_rng(3)
    frame = weather(rng, 10)
    names = ["temp", "dew", "humid", "sensor"]
    learned = learn_reference(
        opened(frame), dict.fromkeys(names, True), time="seen", length=dt.timedelta(days=7), rows=len(frame)
    )
    assert [(one.low, one.high) for one in learned.orders] == [("dew", "temp")]
    week = weather(rng, 1)
    assert drifted(learned, week) == {}
    swapped = week.assign(temp=week["dew"], dew=week["temp"])
    assert drifted(learned, swapped) == {"temp": "order", "dew": "order"}
    again = Learned.from_dict(json.loads(json.dumps(learned.to_dict())))
    found = judge_window(again, opened(swapped))
    assert found == judge_window(learned, opened(swapped))
    assert found["temp"].beside == "dew"
    assert 0.3 < found["temp"].scores["order"] < 1
    # Summer is above the humidity of winter, and no order is broken: the two never moved together.
    summer = judge_window(learned, opened(weather(rng, 1, warmer=65)))
    assert {finding.about for finding in summer.values() if finding.drifted} == {"distribution"}
