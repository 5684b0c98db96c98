"""Who is told what, once; digests, muting, and notifiers that fail."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from airflow_mlops.core.alerts import delivery
from airflow_mlops.core.alerts.incidents import Stream
from airflow_mlops.core.alerts.step import alert
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.steps import StepContext

FUTURE = (dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=2)).isoformat()


class Inbox:
    """What each notifier was told."""

    def __init__(self, context: StepContext, *notifiers: str) -> None:
        self.context, self.notifiers = context, notifiers or ("chat",)
        self.got: list[tuple[str, str]] = []
        self.broken: set[str] = set()

    def send(self, notifier: str, event: dict[str, Any]) -> None:
        if notifier in self.broken:
            raise OSError("no route")
        self.got.append((notifier, delivery.event_id(event)))

    def tell(self, topic: str = "performance", key: str | None = None, mute_until: Any = None) -> delivery.Tally:
        context = dataclasses.replace(self.context, key=key) if key else self.context
        tally = delivery.Tally()
        streams = [Stream(context.store, "churn", topic)]
        delivery.tell_alerts(context, streams, self.notifiers, self.send, mute_until=mute_until, tally=tally)
        return tally

    def digest(self, *topics: str, every: str = "7d", mute_until: Any = None) -> delivery.Tally:
        tally = delivery.Tally()
        streams = [Stream(self.context.store, "churn", topic) for topic in topics]
        delivery.make_digest(self.context, streams, "flights/alert", every=every, mute_until=mute_until)
        delivery.tell_digests(
            self.context, "flights/alert", self.notifiers, self.send, mute_until=mute_until, tally=tally
        )
        return tally


def judge(context: StepContext, day: int, severity: str, kind: str = "performance", name: str = "x") -> None:
    failures = [{"name": name}] if severity != "ok" else []
    window = {"start": f"2026-03-{day:02d}", "end": f"2026-03-{day + 1:02d}"}
    report = {"kind": kind, "passed": severity == "ok", "severity": severity, "summary": "s", "failures": failures}
    alert(context, reports={**report, "window": window}, subject="churn", sensitivity="high")


def test_a_notifier_that_failed_is_told_alone_and_of_the_latest(context: StepContext) -> None:
    inbox = Inbox(context, "mail", "chat")
    inbox.broken = {"chat"}
    judge(context, 1, "error")
    assert inbox.tell().failed == {"chat": "no route"}
    assert inbox.tell().failed == {"chat": "no route"}
    assert inbox.got == [("mail", "churn/performance/1/1")]
    judge(context, 2, "error", name="another")
    inbox.broken = set()
    inbox.tell(key="another/run/alert/-1")
    assert inbox.got[1:] == [("mail", "churn/performance/1/2"), ("chat", "churn/performance/1/2")]


def test_the_end_is_told_to_whom_the_beginning_was(context: StepContext) -> None:
    inbox = Inbox(context, "mail", "chat")
    inbox.broken = {"chat"}
    judge(context, 1, "error")
    inbox.tell()
    judge(context, 2, "ok")
    inbox.broken = set()
    inbox.tell()
    assert inbox.got == [("mail", "churn/performance/1/1"), ("mail", "churn/performance/1/2")]


def test_a_resolution_that_was_not_told_is_told_before_the_next_incident(context: StepContext) -> None:
    inbox = Inbox(context)
    judge(context, 1, "error")
    inbox.tell()
    judge(context, 2, "ok")
    judge(context, 3, "error")
    inbox.tell()
    assert [known for _, known in inbox.got] == [f"churn/performance/{n}" for n in ("1/1", "1/2", "2/3")]


@pytest.mark.parametrize("mute", [FUTURE, {"performance": FUTURE}], ids=["all", "one topic"])
def test_muted_it_is_recorded_and_told_afterwards_if_it_is_not_over(context: StepContext, mute: Any) -> None:
    inbox = Inbox(context)
    judge(context, 1, "error")
    judge(context, 2, "ok")
    judge(context, 3, "error")
    inbox.tell(mute_until=mute)
    assert inbox.got == []
    inbox.tell(mute_until="2026-01-01")
    assert inbox.got == [("chat", "churn/performance/2/3")]


def test_a_mute_that_is_no_instant_is_refused() -> None:
    with pytest.raises(SpecError, match="not an instant"):
        delivery.muted("tomorrow")
    assert not delivery.muted("")
    assert not delivery.muted({"drift": FUTURE}, "performance")


def test_what_another_run_is_telling_is_left_to_it_until_its_claim_runs_out(
    context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox(context)
    judge(context, 1, "error")

    def die(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(inbox, "send", die)
    with pytest.raises(SystemExit):
        inbox.tell(key="a/r1/alert/-1")
    monkeypatch.undo()
    assert inbox.tell(key="a/r2/alert/-1").busy == ["churn/performance/1/1"]
    assert inbox.got == []
    # The task itself, tried again, goes on at once.
    inbox.tell(key="a/r1/alert/-1")
    assert len(inbox.got) == 1
    judge(context, 2, "error", name="y")
    monkeypatch.setattr(inbox, "send", die)
    monkeypatch.setenv(delivery.CLAIM_VARIABLE, "-1")
    with pytest.raises(SystemExit):
        inbox.tell(key="a/r1/alert/-1")
    monkeypatch.undo()
    inbox.tell(key="a/r2/alert/-1")
    assert len(inbox.got) == 2


def test_a_digest_collects_and_comes_no_more_often_than_it_should(context: StepContext) -> None:
    inbox = Inbox(context)
    judge(context, 1, "error", kind="drift", name="a")
    judge(context, 1, "warning", kind="validation")
    assert inbox.digest("drift", "validation").told == [{"notifier": "chat", "id": "digest/flights/alert/1"}]
    judge(context, 2, "error", kind="drift", name="b")
    judge(context, 3, "error", kind="drift", name="c")
    assert inbox.digest("drift", "validation").told == []
    assert inbox.digest("drift", "validation", every="0s").told[0]["id"] == "digest/flights/alert/2"
    assert inbox.digest("drift", "validation", every="0s").told == [], "nothing new"
    second = context.store.get_json(
        "alert_digests/flights_alert-" + _digest_of("flights/alert") + "/00000002/digest.json"
    )
    assert [(one["topic"], one["event"], one["names"]) for one in second["items"]] == [
        ("drift", "updated", ["c", "b", "a"])
    ], "of one incident the latest"


def _digest_of(scope: str) -> str:
    from airflow_mlops.core.store import safe_name

    return safe_name(scope).rpartition("-")[2]


def test_a_digest_that_was_not_taken_is_told_again(context: StepContext) -> None:
    inbox = Inbox(context)
    judge(context, 1, "warning")
    assert inbox.digest("performance", mute_until=FUTURE).told == []
    inbox.broken = {"chat"}
    assert inbox.digest("performance").failed == {"chat": "no route"}
    inbox.broken = set()
    assert len(inbox.digest("performance").told) == 1
    assert inbox.got == [("chat", "digest/flights/alert/1")]
