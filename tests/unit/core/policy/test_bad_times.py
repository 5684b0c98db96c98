"""Events that come at once, late, in the wrong order or by a wrong clock; months without any."""

from __future__ import annotations

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_mlops.core.policy.record import Decisions
from airflow_mlops.core.policy.step import decide_retraining
from airflow_mlops.core.steps import StepContext

POLICY = {
    "performance": {"metric": "roc_auc", "drop": 0.03, "windows": [2, 3]},
    "drift": {"share": 0.5, "windows": [1, 1], "action": "retrain"},
    "new_rows": 100,
    "cooldown": "14d",
}


def drift(subject: str) -> dict[str, Any]:
    window = {"start": "2026-01-01", "end": "2026-02-01"}
    return {"kind": "drift", "id": subject, "metrics": {"drift_share": 0.9}, "passed": False, "window": window}


def performance(month: int, value: float, **more: Any) -> dict[str, Any]:
    window = {"start": f"2026-{month:02}-01", "end": f"2026-{month + 1:02}-01"}
    report = {"kind": "performance", "id": f"{month}: {value}", "metrics": {"roc_auc": value}, "window": window}
    return {**report, "baseline": {"roc_auc": 0.8}, "passed": True, **more}


AT_ONCE = (drift("features"), drift("predictions"), {"kind": "new_data", "id": "file", "rows": 500})


def decide(context: StepContext, run: str, *told: dict[str, Any], clock: str, **more: Any) -> dict[str, Any]:
    own = dataclasses.replace(context, key=f"d/{run}/decide/-1", run={"dag_id": "d", "run_id": run})
    return decide_retraining(own, name="churn", policy=POLICY, reports=list(told), clock=clock, **more)


@pytest.mark.parametrize("merged", [(3,), (2, 1), (1, 2), (1, 1, 1)])
def test_two_drifts_and_new_data_within_a_second_are_one_retraining(context: StepContext, merged: tuple) -> None:
    """However Airflow merges the events into runs, and though the runs decide at the same time."""
    events = iter(AT_ONCE)
    runs = [list(itertools.islice(events, number)) for number in merged]
    with ThreadPoolExecutor(3) as pool:
        told = [
            pool.submit(decide, context, str(number), *run, clock=f"2026-02-01T00:00:00.{number}")
            for number, run in enumerate(runs)
        ]
        found = [one.result() for one in told]
    assert sorted(one["action"] for one in found)[0] == "retrain"
    assert [one["action"] for one in found].count("retrain") == 1
    assert sum(one["signals"]["counted"] for one in found) == 3
    again = decide(context, "later", *AT_ONCE, clock="2026-02-01T00:01")
    assert (again["action"] == "retrain", again["signals"]) == (False, {"counted": 0, "duplicates": 3})


def test_a_clock_that_ran_ahead_is_told_of_and_holds_until_time_has_caught_up(context: StepContext) -> None:
    assert decide(context, "1", drift("a"), clock="2026-03-01")["action"] == "retrain"
    jump = decide(context, "2", drift("b"), performance(3, 0.7), clock="2027-03-01")
    assert jump["action"] == "wait", "the drifted window is older than the retraining"
    told = decide(context, "3", performance(4, 0.7), clock="2026-05-01")
    assert told["action"] == "retrain"
    assert "The clock was set back from 2027-03-01 to 2026-05-01; the later one counts." in told["reason"]
    held = decide(context, "4", performance(5, 0.7), performance(6, 0.7), clock="2026-07-01")
    assert held["action"] == "wait", "these months began before the instant of the last retraining"
    assert [run.seq for run in Decisions(context.store, "churn").memory(4).runs] == [1, 3]
    caught_up = [performance(month, 0.7, id=f"2027-{month}") for month in (4, 5)]
    for one in caught_up:
        one["window"] = {name: instant.replace("2026", "2027") for name, instant in one["window"].items()}
    assert decide(context, "5", *caught_up, clock="2027-06-01")["action"] == "retrain"


def test_a_clock_that_goes_back_and_forth_never_opens_the_cooldown(context: StepContext) -> None:
    days = (20, 3, 25, 1, 12, 28, 2, 21)
    found = [
        decide(context, str(number), {"kind": "new_rows", "id": str(number), "rows": 500}, clock=f"2026-01-{day:02}")
        for number, day in enumerate(days)
    ]
    assert [one["action"] for one in found].count("retrain") == 1


def test_months_that_come_late_and_in_the_wrong_order_end_as_those_in_order(
    tmp_path: Any, context: StepContext
) -> None:
    months = [performance(1, 0.7), performance(2, 0.8), performance(3, 0.8), performance(4, 0.79)]
    memories = []
    for number, order in enumerate(itertools.permutations(months)):
        own = dataclasses.replace(context, store=type(context.store)(tmp_path / str(number)))
        found = [decide(own, str(run), one, clock=f"2026-06-0{run + 1}") for run, one in enumerate(order)]
        assert {one["action"] for one in found} <= {"wait"}
        memory = Decisions(own.store, "churn").memory(4).to_dict()
        memories.append({name: memory[name] for name in ("windows", "labels", "rows", "runs")})
    told = [one["told"] for memory in memories for one in memory["windows"]["performance"]]
    assert len(told) == 24 * 4
    for memory in memories:
        for one in memory["windows"]["performance"]:
            del one["told"]
    assert all(memory == memories[0] for memory in memories)


def test_windows_ahead_of_the_clock_wait_for_a_decision_of_their_time(context: StepContext) -> None:
    """A backfill of January finds the events of today; a monitor whose clock is wrong speaks of 2099."""
    wrong = {**performance(3, 0.7), "id": "2099", "window": {"start": "2099-01-01", "end": "2099-02-01"}}
    told = [performance(3, 0.7), performance(4, 0.7), wrong]
    past = decide(context, "1", performance(1, 0.8), *told, clock="2026-02-01")
    assert (past["action"], past["signals"]) == ("wait", {"counted": 1, "duplicates": 0, "ahead": 3})
    assert past["reason"].endswith(" 3 reports are on windows that begin after 2026-02-01, and left for later.")
    now = decide(context, "2", *told, clock="2026-05-01")
    assert (now["action"], now["signals"]) == ("retrain", {"counted": 2, "duplicates": 0, "ahead": 1})
    assert " 1 report is on a window that begins after 2026-05-01" in now["reason"]


def test_a_month_without_data_neither_counts_nor_breaks_the_count(context: StepContext) -> None:
    decide(context, "1", performance(1, 0.7), clock="2026-02-01")
    silent = decide(context, "2", clock="2026-03-01")
    waiting = {**performance(2, 0.0), "metrics": {}, "settled": [], "pending": []}
    empty = decide(context, "3", waiting, clock="2026-03-02")
    assert {silent["action"], empty["action"]} == {"wait"}
    found = decide(context, "4", performance(3, 0.7), clock="2026-04-01")
    assert (found["action"], found["rule"]) == ("retrain", "performance")
    assert "2 of the last 2 windows" in found["reason"]
