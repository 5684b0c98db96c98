"""Incidents with the store on S3: opened once by two tasks at once, and not lost while S3 is away."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from airflow_mlops.core import s3
from airflow_mlops.core.alerts import delivery
from airflow_mlops.core.alerts.incidents import Stream
from airflow_mlops.core.alerts.step import alert
from airflow_mlops.core.errors import CannotReachError
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import open_store
from servers.s3 import Proxy, S3Server


def report(day: int, severity: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "performance",
        "passed": severity == "ok",
        "severity": severity,
        "summary": "roc_auc is 0.61, 0.12 below the baseline",
        "failures": [],
        "window": {"start": f"2026-03-{day:02d}", "end": f"2026-03-{day + 1:02d}"},
        "subject": "churn:7",
    }


def test_two_tasks_at_once_make_and_tell_one_incident(s3_server: S3Server) -> None:
    uri = f"s3://{s3_server.bucket()}/p"
    told: list[str] = []

    def judge(key: str, day: int, severity: str) -> None:
        store = open_store(uri, replace(s3_server.access, uri=uri))
        context = StepContext(store=store, key=key, run={"dag_id": "watch", "run_id": key, "task_id": "alert"})
        alert(context, reports=[report(day, severity)], subject="churn")
        delivery.tell_alerts(
            context,
            [Stream(store, "churn", "performance")],
            ["mail"],
            lambda name, event: told.append(f"{event['event']} {event['number']}"),
            mute_until=None,
            tally=delivery.Tally(),
        )

    def both(day: int, severity: str) -> None:
        racers = [threading.Thread(target=judge, args=(f"run/{n}", day, severity)) for n in (1, 2)]
        for one in racers:
            one.start()
        for one in racers:
            one.join()

    both(1, "error")
    judge("run/1", 1, "error")
    both(2, "ok")

    store = open_store(uri, replace(s3_server.access, uri=uri))
    events = [(one["event"], one["number"]) for one in Stream(store, "churn", "performance").events()]
    assert events == [("opened", 1), ("resolved", 1)]
    assert told == ["opened 1", "resolved 1"]


def test_while_s3_is_away_a_retry_helps_and_nothing_is_lost(
    s3_server: S3Server, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    uri = f"s3://{s3_server.bucket()}/p"
    store = open_store(uri, replace(s3_server.access, endpoint_url=s3_proxy.url, uri=uri))
    context = StepContext(store=store, key="run/1", run={"dag_id": "watch", "run_id": "1", "task_id": "alert"})
    away = s3_proxy.fail("PUT", "/p/", "slow_down", times=10_000)
    with pytest.raises(CannotReachError) as raised:
        alert(context, reports=[report(1, "error")], subject="churn")
    assert raised.value.retryable
    assert away.hit
    s3_proxy.faults.clear()
    for _ in range(2):
        alert(context, reports=[report(1, "error")], subject="churn")
    assert [one["event"] for one in Stream(store, "churn", "performance").events()] == ["opened"]
