"""From verdicts on windows to incidents: opened, updated, resolved; and to whom."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.alerts import delivery
from airflow_mlops.core.alerts.incidents import Stream
from airflow_mlops.core.alerts.step import alert
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.steps import StepContext, run_step
from airflow_mlops.core.store import LocalStore


def report(day: int, severity: str = "ok", kind: str = "performance", **more: Any) -> dict[str, Any]:
    """A verdict on one day of March."""
    names = more.pop("names", ["roc_auc"] if severity != "ok" else [])
    return {
        "schema": 1,
        "kind": kind,
        "passed": severity != "error",
        "severity": severity,
        "summary": f"{kind} is {severity} on day {day}",
        "failures": [{"name": name} for name in names],
        "window": {"start": f"2026-03-{day:02d}", "end": f"2026-03-{day + 1:02d}"},
        "subject": "churn:7",
        "report_uri": f"file:///reports/etl/{kind}/{day}/report.html",
        **more,
    }


def events(context: StepContext, topic: str = "performance", about: str = "churn") -> list[tuple[str, int, str]]:
    return [(one["event"], one["number"], one["channel"]) for one in Stream(context.store, about, topic).events()]


def judge(context: StepContext, *severities: str, start: int = 1, **more: Any) -> list[str]:
    """Judge one window after another; return what became of it each time."""
    found = []
    for day, severity in enumerate(severities, start):
        sensitivity = more.pop("sensitivity", None) or "normal"
        result = alert(context, reports=[report(day, severity, **more)], sensitivity=sensitivity)
        more["sensitivity"] = sensitivity
        found.append(",".join(one["event"] for one in result["incidents"]))
    return found


def test_one_incident_is_opened_updated_and_resolved_once_each(context: StepContext) -> None:
    assert judge(context, "ok", "warning", "warning", "error", "error", "ok", "ok") == [
        "", "opened", "", "updated", "", "resolved", "",
    ]  # fmt: skip
    assert events(context) == [("opened", 1, "digest"), ("updated", 1, "alert"), ("resolved", 1, "alert")]
    last = Stream(context.store, "churn", "performance").events()[-1]
    assert (last["since"], last["bad_windows"], last["worst"]) == ("2026-03-02T00:00:00+00:00", 4, "error")
    # The next one is another one.
    assert judge(context, "error", start=9) == ["opened"]
    assert events(context)[-1] == ("opened", 2, "alert")


def test_what_fails_beside_it_is_news_and_the_same_is_not(context: StepContext) -> None:
    for day, names in enumerate((["roc_auc"], ["roc_auc"], ["roc_auc", "north"], ["north"]), 1):
        alert(context, reports=report(day, "error", names=names))
    assert [one["event"] for one in Stream(context.store, "churn", "performance").events()] == ["opened", "updated"]


@pytest.mark.parametrize(
    ("kind", "sensitivity", "severities", "expected"),
    [
        ("drift", "normal", ("error", "ok", "error"), ["", "", "opened"]),
        ("drift", "normal", ("error", "ok", "ok", "error"), ["", "", "", ""]),
        ("drift", "high", ("error",), ["opened"]),
        ("drift", "low", ("error", "error", "error"), ["", "", "opened"]),
        ("drift", {"drift": [1, 1]}, ("error",), ["opened"]),
        ("validation", "normal", ("error", "ok"), ["opened", "resolved"]),
        ("performance", "low", ("error", "error", "ok", "ok"), ["", "opened", "", "resolved"]),
        ("model_test", "low", ("error",), ["opened"]),
        ("deployment", "normal", ("error",), ["opened"]),
    ],
)
def test_sensitivity_says_how_many_bad_windows_it_takes(
    context: StepContext, kind: str, sensitivity: Any, severities: tuple[str, ...], expected: list[str]
) -> None:
    assert judge(context, *severities, kind=kind, sensitivity=sensitivity) == expected


def test_severity_and_topic_say_who_is_told(context: StepContext) -> None:
    predicted = [{"name": "score", "role": "prediction"}]
    for day in (1, 2):
        reports = [
            report(day, "error", kind="validation"),
            report(day, "error", kind="drift", names=["distance", "carrier"]),
            report(day, "warning", kind="performance", estimated=True),
        ]
        alert(context, reports={"kind": "x", "passed": True, "subject": "y"} if day > 9 else [reports, None, []])
    alert(context, reports=report(3, "error", kind="drift", failures=predicted), sensitivity="high")
    topics = {stream: events(context, stream)[-1][2] for stream in ("validation", "drift", "prediction_drift")}
    assert topics == {"validation": "alert", "drift": "digest", "prediction_drift": "alert"}
    assert events(context, "estimated_performance") == [("opened", 1, "digest")]
    alert(context, reports=report(4, "error", kind="model_test"), channels={"model_test": "digest"})
    assert events(context, "model_test") == [("opened", 1, "digest")]


def test_a_drift_report_has_three_topics(context: StepContext) -> None:
    """As DetectDriftOperator writes its failures."""
    failures = [
        {"kind": "column", "column": "carrier", "severity": "error", "message": "gone"},
        {"kind": "drift", "column": "distance", "severity": "warning", "value": 0.3},
        {"kind": "drift", "column": "score", "severity": "error", "value": 0.4},
    ]
    alert(context, reports=report(1, "error", kind="drift", failures=failures), sensitivity="high")
    found = {one: events(context, one)[0][2] for one in ("drift", "prediction_drift", "broken_data")}
    assert found == {"drift": "digest", "prediction_drift": "alert", "broken_data": "alert"}
    assert Stream(context.store, "churn", "broken_data").events()[0]["names"] == ["carrier"]
    alert(context, reports=report(2, "warning", kind="drift", failures=failures[1:2]), sensitivity="high")
    assert [events(context, one)[-1][0] for one in found] == ["opened", "resolved", "resolved"]
    alert(context, reports=report(3, kind="drift"), sensitivity="high")
    assert events(context, "drift")[-1][0] == "resolved"


def test_an_old_window_judged_late_neither_opens_nor_resolves(context: StepContext) -> None:
    judge(context, "error", "error", start=10)
    assert judge(context, "ok", start=5) == [""]
    assert judge(context, "ok", start=12) == ["resolved"]
    assert judge(context, "error", start=6) == [""]


def test_a_window_judged_anew_counts_once_and_may_bring_the_incident_back(context: StepContext) -> None:
    assert judge(context, "error", sensitivity={"performance": [2, 3]}) == [""]
    assert judge(context, "error", sensitivity={"performance": [2, 3]}) == [""], "the same window again"
    assert judge(context, "error", start=2) == ["opened"]
    assert judge(context, "ok", start=3) == ["resolved"]
    assert judge(context, "error", start=3) == ["opened"], "labels that came late made it bad after all"


def test_reports_of_one_run_about_one_thing_are_one_incident(context: StepContext) -> None:
    two = [report(1, "warning", kind="validation", names=["a"]), report(1, "error", kind="validation", names=["b"])]
    result = alert(context, reports=two)
    (one,) = result["incidents"]
    assert (one["severity"], one["names"], one["summary"]) == ("error", ["b", "a"], "validation is error on day 1")


def test_what_it_is_about_is_the_subject_else_the_task(context: StepContext) -> None:
    digest = f"sha256:{'0' * 64}"
    assert alert(context, reports=report(1, "error", subject=digest))["incidents"][0]["about"] == "flights/step"
    assert alert(context, reports=report(1, "error"))["incidents"][0]["about"] == "churn"
    assert alert(context, reports=report(1, "error"), subject="team a/b")["incidents"][0]["about"] == "team a/b"


def test_a_report_without_a_window_stands_at_its_runs_moment(context: StepContext) -> None:
    for day, severity in ((1, "error"), (2, "ok")):
        run = dataclasses.replace(context, run={**context.run, "run_id": f"r{day}"})
        alert(run, reports=report(day, severity, window=None), moment=f"2026-03-{day:02d}T06:00:00Z")
    # The task of the first run cleared: its window again, which is not the last one.
    run = dataclasses.replace(context, run={**context.run, "run_id": "r1"})
    alert(run, reports=report(1, "error", window=None), moment="2026-03-01T06:00:00Z")
    assert [one[0] for one in events(context)] == ["opened", "resolved"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reports": "{{ ti.xcom_pull('x') }}"}, "render_template_as_native_obj"),
        ({"reports": {"rows": 3}}, "no 'kind'"),
        ({"reports": [3]}, "got a int"),
        ({"reports": [], "sensitivity": "loud"}, "low, normal, high"),
        ({"reports": [], "sensitivity": {"drift": [3, 2]}}, "k <= n"),
        ({"reports": [], "sensitivity": {"performanc": "low"}}, "did you mean 'performance'"),
        ({"reports": [], "channels": {"drift": "sms"}}, "'alert' or 'digest'"),
    ],
)
def test_what_cannot_be_is_refused(context: StepContext, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("(", r"\(")):
        alert(context, **arguments)


def test_nothing_to_judge_is_said_so(store: LocalStore) -> None:
    result = run_step({"step": "alert", "args": {"reports": [None, [], ""]}, "store": store.uri})
    assert (result["summary"], result["incidents"]) == ("There was no report to judge.", [])


def test_runs_at_once_make_each_event_once(context: StepContext) -> None:
    """Twelve runs that see the same window, behind one barrier."""
    barrier, errors = threading.Barrier(12), []

    def run(number: int) -> None:
        barrier.wait()
        try:
            ours = dataclasses.replace(context, key=f"flights/r{number}/alert/-1")
            alert(ours, reports=report(1, "error"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not errors
    assert events(context) == [("opened", 1, "alert")]


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["ok", "warning", "error"]), min_size=1, max_size=12),
    st.sampled_from(["low", "normal", "high"]),
    st.data(),
)
def test_whatever_comes_is_told_in_pairs_and_again_brings_nothing(
    tmp_path_factory: pytest.TempPathFactory, severities: list[str], sensitivity: str, data: st.DataObject
) -> None:
    context = StepContext(store=LocalStore(tmp_path_factory.mktemp("store")), run={"dag_id": "d", "task_id": "t"})
    out: list[tuple[str, int]] = []

    def tell() -> None:
        stream = Stream(context.store, "churn", "performance")
        tally = delivery.Tally()
        delivery.tell_alerts(
            context, [stream], ["chat"], lambda _, one: out.append((one["event"], one["number"])), mute_until=None,
            tally=tally,
        )  # fmt: skip

    for day, severity in enumerate(severities, 1):
        for _ in range(data.draw(st.integers(1, 2))):
            alert(context, reports=report(day, severity), sensitivity=sensitivity)
            tell()
    before = list(out)
    for day, severity in enumerate(severities, 1):
        alert(context, reports=report(day, severity), sensitivity=sensitivity)
        tell()
    assert out == before, "the same runs again tell nothing"
    open_now = 0
    for event, number in out:
        if event == "resolved":
            assert number == open_now
            open_now = 0
        else:
            assert open_now in (0, number)
            open_now = number
