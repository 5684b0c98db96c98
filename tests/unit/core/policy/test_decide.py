"""The policy: what reaches its limit, what stands against it, and what one sentence says of it."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.policy.decide import Decision, decide
from airflow_mlops.core.policy.memory import Memory
from airflow_mlops.core.policy.rules import Policy
from airflow_mlops.core.policy.signals import signals_of

START = dt.datetime(2013, 1, 1, tzinfo=dt.timezone.utc)
DAY = dt.timedelta(days=1)


def day(number: float) -> str:
    return (START + number * DAY).isoformat()


def performance(at: int, value: float | None = 0.8, length: int = 7, **more: Any) -> dict[str, Any]:
    """A report on the week that ends at a day, made on that day."""
    metrics = {} if value is None else {"roc_auc": value}
    window = {"start": day(at - length), "end": day(at)}
    return {
        "kind": "performance",
        "passed": True,
        "metrics": metrics,
        "window": window,
        "created_at": day(at),
        "baseline": {"roc_auc": 0.8},
        **more,
    }


def drift(at: int, share: float, **more: Any) -> dict[str, Any]:
    window = {"start": day(at - 7), "end": day(at)}
    return {"kind": "drift", "passed": share < 0.5, "metrics": {"drift_share": share}, "window": window, **more}


def rows(number: int, identity: str) -> dict[str, Any]:
    return {"kind": "new_rows", "id": identity, "new": {"rows": number}}


class Loop:
    """Decides again and again, as a DAG does."""

    def __init__(self, **policy: Any) -> None:
        self.policy = Policy.of(policy)
        self.memory = Memory()
        self.seq = 0

    def __call__(self, at: float, *told: dict[str, Any], **more: Any) -> Decision:
        now = START + at * DAY
        signals, passed_over = signals_of(list(told), now)
        assert passed_over == []
        self.seq += 1
        decision, after = decide(self.policy, self.memory, signals, now, seq=self.seq, **more)
        # What is remembered goes through JSON.
        self.memory = Memory.from_dict(json.loads(json.dumps(after.to_dict())))
        return decision


DROP = {"performance": {"metric": "roc_auc", "drop": 0.03, "windows": [2, 3]}}


def test_k_bad_windows_of_n_train_again_and_one_does_not() -> None:
    loop = Loop(**DROP)
    assert loop(7, performance(7, 0.76)).action == "wait"
    assert loop(14, performance(14, 0.79)).action == "wait"
    found = loop(21, performance(21, 0.75))
    assert found.action == "retrain"
    assert found.reason == (
        "Retrain, because performance was too low in 2 of the last 3 windows "
        "(2013-01-15 to 2013-01-22, roc_auc 0.75 against a limit of 0.77)."
    )
    assert [one["end"] for one in found.to_dict()["windows"]] == [day(7), day(21)]


def test_a_bad_window_that_left_the_last_n_does_not_count() -> None:
    loop = Loop(**DROP)
    for at, value in ((7, 0.7), (14, 0.8), (21, 0.8), (28, 0.7)):
        assert loop(at, performance(at, value)).action == "wait"


def test_drift_alone_warns_and_a_loss_of_performance_trains_again_by_default() -> None:
    loop = Loop(**{"performance": {"windows": [2, 3]}, "drift": {"windows": [3, 3]}})
    for at in (7, 14):
        assert loop(at, drift(at, 0.9)).action == "wait"
    found = loop(21, drift(21, 0.9))
    assert found.action == "warn"
    assert "by itself only warns" in found.reason
    loop(28, performance(28, None, passed=False))
    assert loop(35, performance(35, None, passed=False)).action == "retrain"


def test_drift_trains_again_where_the_policy_says_so() -> None:
    loop = Loop(drift={"share": 0.6, "windows": [1, 1], "action": "retrain"})
    assert loop(7, drift(7, 0.55)).action == "wait"
    assert loop(14, drift(14, 0.6)).action == "retrain"


def test_an_estimate_of_the_performance_only_warns() -> None:
    loop = Loop(**DROP)
    loop(7, performance(7, 0.7, estimated=True))
    assert loop(14, performance(14, 0.7, estimated=True)).action == "warn"
    assert loop(21, performance(21, 0.7)).action == "warn"
    assert loop(28, performance(28, 0.7)).action == "retrain"


@pytest.mark.parametrize(
    ("rule", "value", "bad"),
    [
        ({"metric": "roc_auc", "drop": 0.03}, 0.77, True),
        ({"metric": "roc_auc", "drop": 0.03}, 0.7701, False),
        ({"metric": "roc_auc", "min": 0.7}, 0.69, True),
        ({"metric": "roc_auc", "min": 0.7}, 0.7, False),
        ({"metric": "roc_auc", "drop": 0.03, "baseline": 0.9}, 0.86, True),
        ({"metric": "log_loss", "drop": 0.1, "baseline": 0.4}, 0.5, True),
        ({"metric": "log_loss", "max": 0.45}, 0.44, False),
    ],
)
def test_what_is_bad(rule: dict[str, Any], value: float, bad: bool) -> None:
    report = performance(7, value)
    report["metrics"] = {rule["metric"]: {"value": value, "low": value - 0.1, "high": value + 0.1}}
    assert (Loop(performance=rule)(7, report).action == "retrain") == bad


def test_where_there_is_no_baseline_or_no_metric_the_report_decides() -> None:
    rule = {"metric": "roc_auc", "drop": 0.03}
    assert Loop(performance=rule)(7, performance(7, 0.1, baseline=None)).action == "wait"
    assert Loop(performance=rule)(7, performance(7, 0.9, baseline=None, passed=False)).action == "retrain"
    assert Loop(performance=rule)(7, performance(7, None, passed=False)).action == "retrain"


def test_of_two_reports_on_a_window_the_later_one_holds_whatever_comes_first() -> None:
    """More labels came, or somebody mended them."""
    early = performance(7, 0.6, created_at=day(7))
    late = performance(7, 0.8, created_at=day(30))
    for told in ([early, late], [late, early]):
        loop = Loop(performance={"metric": "roc_auc", "drop": 0.03})
        assert loop(31, *told).action == "wait"


def test_windows_out_of_order_count_by_their_time() -> None:
    loop = Loop(**DROP)
    assert loop(22, performance(21, 0.7)).action == "wait"
    assert loop(23, performance(14, 0.8)).action == "wait"
    assert loop(24, performance(7, 0.7)).action == "retrain"


def test_an_event_counts_once_in_one_run_and_in_another() -> None:
    loop = Loop(new_rows=100)
    found = loop(1, rows(60, "a"), rows(60, "a"))
    assert (found.action, found.counted, found.duplicates) == ("wait", 1, 1)
    found = loop(2, rows(60, "a"))
    assert (found.counted, found.duplicates) == (0, 1)
    found = loop(3, rows(60, "a"), rows(40, "b"))
    assert (found.action, found.state and found.state["new_rows"]) == ("retrain", 100)
    assert loop(4, rows(60, "c")).action == "wait", "the count begins anew"


def test_a_dataset_that_grows_brings_what_it_grew_by() -> None:
    def dataset(end: int, number: int) -> dict[str, Any]:
        window = {"start": day(0), "end": day(end)}
        return {"kind": "dataset", "name": "d", "digest": f"sha256:{end}", "rows": number, "window": window}

    loop = Loop(new_rows=150)
    assert loop(31, dataset(31, 100)).action == "wait"
    assert loop(59, dataset(59, 149)).action == "wait"
    assert loop(90, dataset(90, 150)).action == "retrain"


def snapshot(start: int, end: int, number: int) -> dict[str, Any]:
    window = {"start": day(start), "end": day(end)}
    return {"kind": "dataset", "name": "d", "digest": f"{start}-{end}: {number}", "rows": number, "window": window}


@pytest.mark.parametrize("order", list(itertools.permutations([(0, 31), (31, 59), (59, 90)])))
def test_months_of_a_dataset_bring_their_rows_in_whatever_order_they_come(order: Any) -> None:
    loop = Loop(new_rows=1000)
    told = [loop(90, snapshot(*month, 100)).state for month in order]
    assert [one and one["new_rows"] for one in told] == [100, 200, 300]
    again = loop(91, snapshot(31, 59, 110), snapshot(0, 90, 330))
    assert again.state
    assert again.state["new_rows"] == 330, "labels that came late are ten and twenty rows more"


def test_snapshots_that_slide_over_a_dataset_bring_what_each_reaches_further() -> None:
    loop = Loop(new_rows=1000)
    told = [loop(at, snapshot(at - 30, at, 300)).state for at in (30, 40, 50)]
    assert [one and one["new_rows"] for one in told] == [300, 400, 500]


def test_a_snapshot_without_a_window_is_the_whole_dataset() -> None:
    loop = Loop(new_rows=1000)
    whole = ({"kind": "dataset", "name": "d", "digest": str(rows), "rows": rows} for rows in (100, 130, 120, 140))
    told = [loop(at, one).state for at, one in enumerate(whole)]
    assert [one and one["new_rows"] for one in told] == [100, 130, 130, 140]


def test_of_a_dataset_with_ever_more_snapshots_little_is_remembered() -> None:
    loop = Loop(new_rows=10_000)
    for at in range(200):
        found = loop(at + 1, snapshot(at, at + 1, 10))
    assert found.state
    assert found.state["new_rows"] == 2000
    assert len(loop.memory.data["d"]) == 64
    state = loop(201, snapshot(10, 20, 100), snapshot(0, 201, 2010)).state
    assert state
    assert state["new_rows"] == 2010


def test_what_an_inlet_tells_of_each_time_is_not_forgotten_and_counted_again() -> None:
    loop = Loop(new_rows=100)
    for at in range(25):
        others = (rows(0, f"{at}, {number}") for number in range(100))
        assert loop(at, rows(60, "of the inlet"), *others).action == "wait"


def test_as_many_ids_are_remembered_as_one_run_tells() -> None:
    loop = Loop(new_rows=10_000)
    told = [rows(1, str(number)) for number in range(3000)]
    assert loop(1, *told).counted == 3000
    assert loop(2, *told).counted == 0


def test_of_several_subjects_in_one_window_the_worst_holds_and_each_window_counts_once() -> None:
    loop = Loop(drift={"share": 0.5, "windows": [2, 2]})
    for at in (7, 14):
        features, predictions = drift(at, 0.9, subject="churn"), drift(at, 0.1, subject="churn-predictions")
        found = loop(at, {**features, "created_at": day(at)}, {**predictions, "created_at": day(at + 0.1)})
    assert found.action == "warn"
    assert "in 2 of the last 2 windows" in found.reason
    mended = [drift(at, 0.1, subject="churn", created_at=day(15)) for at in (7, 14)]
    assert loop(15, *mended).action == "wait", "of one subject the later report holds"


def test_of_data_that_was_looked_at_again_the_later_report_holds() -> None:
    loop = Loop(drift={"share": 0.5, "windows": [1, 1]})
    assert loop(7, drift(7, 0.9, subject="sha256:a", created_at=day(7))).action == "warn"
    assert loop(8, drift(7, 0.1, subject="sha256:b", created_at=day(8))).action == "wait"


def test_windows_that_began_before_a_retraining_speak_of_the_old_model() -> None:
    loop = Loop(**DROP)
    loop(7, performance(7, 0.7))
    assert loop(14, performance(14, 0.7)).action == "retrain"
    found = loop(21, performance(18, 0.7), performance(20, 0.7))
    assert found.action == "wait"
    assert found.state
    assert found.state["performance"]["before_last_retraining"] == 4
    loop(28, performance(28, 0.7))
    assert loop(35, performance(35, 0.7)).action == "retrain"


def test_the_cooldown_holds_and_then_the_cause_still_stands() -> None:
    loop = Loop(**DROP, cooldown="30d")
    loop(7, performance(7, 0.7))
    assert loop(14, performance(14, 0.7)).action == "retrain"
    loop(21, performance(21, 0.7))
    found = loop(28, performance(28, 0.7))
    assert (found.action, found.blocked) == ("warn", ("cooldown",))
    assert found.reason.endswith("but the cooldown after the last retraining ends on 2013-02-14.")
    assert loop(43.9).action == "warn"
    assert loop(44).action == "retrain"


def test_the_budget_holds_in_every_period_of_its_length() -> None:
    loop = Loop(new_rows=1, budget={"runs": 2, "per": "30d"})
    done = [at for at in range(90) if loop(at, rows(1, str(at))).action == "retrain"]
    assert done == [0, 1, 30, 31, 60, 61]
    assert "2 of 2 retrainings in 30 days are used" in loop(90 - 1, rows(1, "x")).reason


def test_another_policy_and_a_retraining_by_hand_do_not_forget_what_the_budget_had_given() -> None:
    loop = Loop(new_rows=1, budget={"runs": 2, "per": "30d"})
    budgeted, loop.policy = loop.policy, Policy.of({"new_rows": 1})
    assert [loop(at, rows(1, str(at))).action for at in (0, 1)] == ["retrain", "retrain"]
    loop.policy = budgeted
    assert loop(2, rows(1, "2")).blocked == ("budget",)
    assert loop(3, force=True).action == "retrain"
    assert [loop(at, rows(1, str(at))).action for at in (4, 31, 32, 33)] == ["warn", "retrain", "warn", "retrain"]


def test_a_budget_may_be_of_many_runs() -> None:
    loop = Loop(new_rows=1, budget={"runs": 300, "per": "90d"})
    assert sum(loop(at / 10, rows(1, str(at))).action == "retrain" for at in range(320)) == 300


def test_what_somebody_asks_for_is_done_at_once_and_counts() -> None:
    loop = Loop(**DROP, cooldown="30d", min_new_rows=100)
    for at in (0, 0, 1):
        found = loop(at, force=True)
        assert (found.action, found.to_dict()["rule"], found.blocked) == ("retrain", "force", ())
    assert found.reason == "Retrain, because it was asked for."
    found = loop(20, performance(10, 0.7), performance(17, 0.7))
    assert found.blocked == ("cooldown", "min_new_rows")


def test_hours_are_charged_as_estimated_until_they_are_told() -> None:
    loop = Loop(new_rows=1, budget={"hours": 10, "per": "30d", "hours_per_run": 4})
    assert [loop(at, rows(1, str(at))).action for at in range(3)] == ["retrain", "retrain", "warn"]
    told = {"kind": "retraining", "id": "end of 1", "seq": 1, "hours": 0.5}
    assert loop(3, rows(1, "3"), told).action == "retrain"
    assert "8.5 of 10 hours in 30 days are used" in loop(4, rows(1, "4")).reason


def test_too_few_new_rows_and_labels_stand_against_it() -> None:
    loop = Loop(performance={"metric": "roc_auc", "drop": 0.03}, min_new_rows=100, min_new_labels=50)
    report = performance(7, 0.7)
    report["metrics"]["labelled"] = 40
    found = loop(7, report)
    assert found.blocked == ("min_new_rows", "min_new_labels")
    assert "only 0 new rows have come, of 100 that it takes" in found.reason
    more = performance(7, 0.7, created_at=day(9))
    more["metrics"]["labelled"] = 55
    assert loop(9, more, rows(100, "a")).action == "retrain", "of a window measured again only the new labels count"


def test_the_labels_of_a_window_count_once_whoever_measures_it_and_however_often() -> None:
    loop = Loop(performance={"windows": [1, 1]}, min_new_labels=1000)

    def report(at: int, labelled: int, subject: str) -> dict[str, Any]:
        return performance(7, subject=subject, created_at=day(at), metrics={"labelled": labelled})

    for at, labelled, counted in ((8, 100, 100), (9, 50, 100), (10, 100, 100), (11, 120, 120)):
        state = loop(at, report(at, labelled, "churn"), report(at, labelled - 1, "churn-small")).state
        assert state
        assert state["new_labels"] == counted


def test_the_forced_schedule_needs_no_signal_and_no_new_rows() -> None:
    loop = Loop(max_age="30d", min_new_rows=1000)
    assert [at for at in range(100) if loop(at).action == "retrain"] == [30, 60, 90]
    loop = Loop(max_age="30d")
    assert loop(0, trained_at=START - 29 * DAY).action == "wait"
    found = loop(1, trained_at=START - 29 * DAY)
    assert found.reason == "Retrain, because the model is 30 days old and is trained again after 30 days in any case."


def test_signals_leave_the_forced_schedule_its_budget() -> None:
    """Four runs in 90 days are enough for one each 30 days, if signals do not take them."""
    loop = Loop(new_rows=1, max_age="30d", budget={"runs": 4, "per": "90d"})
    done = [at for at in range(400) if loop(at, rows(1, str(at))).action == "retrain"]
    assert all(after - before <= 30 for before, after in itertools.pairwise(done))
    assert all(sum(at < one <= at + 90 for one in done) <= 4 for at in range(-90, 400))


def test_a_clock_that_was_set_back_counts_as_the_latest() -> None:
    loop = Loop(new_rows=1, cooldown="10d")
    assert loop(20, rows(1, "a")).action == "retrain"
    found = loop(5, rows(1, "b"))
    assert found.clock == START + 20 * DAY
    assert "The clock was set back from 2013-01-21 to 2013-01-06; the later one counts." in found.reason
    assert loop(29.9, rows(1, "c")).action == "warn"
    assert loop(30).action == "retrain"


def test_what_cannot_be_read_is_passed_over_and_the_rest_counts() -> None:
    bad = performance(7, 0.7, window={"start": "soon", "end": "later"})
    signals, passed_over = signals_of([bad, {"hello": 1}, rows(5, "a"), None, []], START)
    assert [one.kind for one in signals] == ["new_rows"]
    assert len(passed_over) == 2
    assert "cannot be read" in passed_over[0]
    with pytest.raises(SpecError, match="reports are dicts"):
        signals_of("report", START)


@pytest.mark.parametrize(
    "hostile",
    [
        {"window": {"start": "0001-01-01T00:00+05:00", "end": day(7)}},
        {"created_at": "9999-12-31T23:59-05:00"},
        {"window": {"start": {}, "end": []}},
        {"window": "last week", "created_at": 1357000000},
        {"settled": [0, "x", None], "passed": False},
        {"settled": [{"window": {"start": "x", "end": "y"}, "figures": 3}] * 2},
        {"metrics": {"roc_auc": float("nan"), "labelled": float("inf")}, "baseline": {"roc_auc": "0.8"}},
        {"metrics": [], "baseline": 3, "subject": {}, "report_uri": 3.5},
        {"kind": "new_rows", "new": {"rows": "many"}, "rows": -5},
        {"kind": "dataset", "rows": True, "name": None},
        {"kind": "retraining", "seq": "1", "hours": float("inf")},
        {"kind": ["drift"]},
    ],
)
def test_whatever_an_event_holds_the_others_of_its_run_count(hostile: dict[str, Any]) -> None:
    now = START + 7 * DAY
    signals, _ = signals_of([{**performance(7, 0.7), **hostile}, rows(5, "a")], now)
    decision, memory = decide(Policy.of({**DROP, "new_rows": 5, "min_new_labels": 0}), Memory(), signals, now)
    assert decision.action == "retrain"
    json.dumps([decision.to_dict(), memory.to_dict()], allow_nan=False)


def test_signals_are_found_where_events_carry_them() -> None:
    report = performance(7, 0.7)
    for told in (
        report,
        {"report": report},
        {"reports": [report]},
        {"from_trigger": True, "payload": report},
        {"from_rest_api": True, "signals": [report, report]},
        [[report]],
    ):
        signals, _ = signals_of(told, START)
        assert {one.id for one in signals} == {signals_of(report, START)[0][0].id}


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"perfomance": {}}, "no 'perfomance'; did you mean 'performance'"),
        ({"performance": {"metric": "roc_auc"}}, "needs 'drop', 'min' or 'max'"),
        ({"performance": {"drop": 0.1}}, "needs the 'metric'"),
        ({"performance": {"metric": "roc_auc", "max": 0.1}}, "roc_auc takes min"),
        ({"performance": {"windows": [3, 2]}}, "k bad ones of the last n"),
        ({"drift": {"share": 1.5}}, "above 0 and at most 1"),
        ({"drift": {"action": "panic"}}, "'retrain' or 'warn'"),
        ({"new_rows": 0}, "whole number of 1 or more"),
        ({"new_rows": True}, "must be a number"),
        ({"cooldown": "two weeks"}, "cooldown: 'two weeks' is not a duration"),
        ({"budget": {"runs": 4}}, "needs 'per'"),
        ({"budget": {"hours": 4, "per": "1d"}}, "needs 'hours_per_run'"),
        ({"max_age": "7d", "cooldown": "14d"}, "longer than its max_age"),
        ({"max_age": "30d", "budget": {"runs": 2, "per": "90d"}}, "3 retrainings in 90 days at max_age 30 days"),
        ({"cooldown": "99999w"}, "100 years at most"),
        ([], "must be a dict"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(policy: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Policy.of(policy)


def test_numbers_may_be_text_as_a_template_renders_them() -> None:
    found = Policy.of({"new_rows": "500", "performance": {"metric": "roc_auc", "drop": "0.03", "windows": ["2", "3"]}})
    assert found.new_rows == 500
    assert found.performance
    assert (found.performance.drop, found.performance.k) == (0.03, 2)


def test_each_window_that_a_monitor_settled_counts_and_one_that_waits_does_not() -> None:
    loop = Loop(**DROP)
    report = performance(14, 0.7)
    first = {"window": performance(7)["window"], "severity": "error", "figures": {"roc_auc": 0.7}, "labelled": 40}
    second = {"window": report["window"], "severity": "error", "figures": {"roc_auc": 0.7}, "labelled": 60}
    report["metrics"]["labelled"] = 60
    waiting = {**performance(21, None), "settled": [], "estimated": True}
    signals, passed_over = signals_of(waiting, START)
    assert (signals, len(passed_over)) == ([], 1)
    found = loop(14, {**report, "settled": [first, second]})
    assert (found.action, found.counted) == ("retrain", 2)
    assert found.state
    assert found.state["new_labels"] == 100, "of both windows"


def _random_policy(draw: random.Random) -> dict[str, Any]:
    policy: dict[str, Any] = {
        "performance": {"metric": "roc_auc", "drop": 0.03, "windows": [draw.randint(1, 2), 3]},
        "drift": {"share": 0.5, "windows": [1, draw.randint(1, 3)], "action": draw.choice(["warn", "retrain"])},
        "new_rows": draw.randint(50, 500),
        "cooldown": f"{draw.choice([0, 3, 10])}d",
    }
    if draw.random() < 0.7:
        policy["max_age"] = f"{draw.choice([10, 20, 45])}d"
    if draw.random() < 0.8:
        age = int(policy.get("max_age", "90d")[:-1])
        per = draw.choice([20, 60])
        policy["budget"] = {"runs": -(-per // age) + draw.randint(0, 2), "per": f"{per}d"}
    if draw.random() < 0.3:
        policy["min_new_rows"] = draw.randint(1, 100)
    return policy


def _random_event(draw: random.Random, at: int, known: list[dict[str, Any]]) -> dict[str, Any]:
    if known and draw.random() < 0.3:
        return draw.choice(known)
    end = at - draw.randint(0, 20)
    made = draw.choice(
        [
            lambda: performance(end, draw.choice([0.7, 0.8])),
            lambda: drift(end, draw.choice([0.1, 0.9]), subject=draw.choice([None, "churn", "churn-predictions"])),
            lambda: snapshot(end - draw.randint(1, 9), end, draw.randint(1, 200)),
            lambda: rows(draw.randint(1, 200), f"rows {len(known)}"),
        ]
    )()
    known.append(made)
    return made


def check_history(seed: int, steps: int = 10) -> None:
    """One random history: events late, out of order, doubled and merged, a clock that jumps, gaps."""
    draw = random.Random(seed)
    given = _random_policy(draw)
    policy = Policy.of(given)
    memory = Memory()
    known: list[dict[str, Any]] = []
    done: list[dt.datetime] = []
    told, counted, clock = set(), 0, 0
    first: dt.datetime | None = None
    for seq in range(1, steps + 1):
        clock += draw.choice([0, 1, 2, 5, 9, 20, -15])
        now = START + clock * DAY
        events = [_random_event(draw, clock, known) for _ in range(draw.choice([0, 1, 1, 2, 4]))]
        signals, _ = signals_of(events, now)
        before = memory
        decision, memory = decide(policy, memory, signals, now, seq=seq)
        assert decide(policy, before, signals, now, seq=seq) == (decision, memory), "the same inputs, the same decision"
        told |= {one.id for one in signals}
        counted += decision.counted
        first = first or decision.clock
        due = decision.clock - (done[-1] if done else first)
        if decision.action == "retrain":
            assert not done or decision.clock - done[-1] >= policy.cooldown, "never in the cooldown"
            done.append(decision.clock)
        elif policy.max_age is not None:
            assert due < policy.max_age, "the forced schedule is held whenever it is asked"
        if policy.budget and policy.budget.runs is not None:
            within = [one for one in done if one > decision.clock - policy.budget.per]
            assert len(within) <= policy.budget.runs, "never more than the budget"
    assert counted == len(told) == len(memory.seen), "every event is counted once"


def test_ten_thousand_random_histories() -> None:
    for seed in range(10_000):
        check_history(seed)


@given(seed=st.integers(10_000, 2**32), steps=st.integers(1, 40))
def test_any_history(seed: int, steps: int) -> None:
    check_history(seed, steps)
