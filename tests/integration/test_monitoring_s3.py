"""Monitoring on a store that goes away for a while: a retry ends with one point."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core import s3
from airflow_mlops.core.drift.step import detect_drift
from airflow_mlops.core.errors import CannotReachError
from airflow_mlops.core.monitoring import history
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import Store, open_store
from servers.s3 import Proxy, S3Server

MARCH = {"start": "2013-03-01", "end": "2013-04-01"}


def test_while_the_store_is_away_recording_fails_so_that_a_retry_helps(
    s3_server: S3Server, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    uri = f"s3://{s3_server.bucket()}/p"
    store = open_store(uri, replace(s3_server.access, endpoint_url=s3_proxy.url, uri=uri))
    history.record(store, "churn", {"end": "2013-03-01", "length": "28d"}, {"roc_auc": 0.7}, "performance")
    away = s3_proxy.fail("PUT", "/p/history", "slow_down", times=10_000)
    with pytest.raises(CannotReachError) as raised:
        history.record(store, "churn", MARCH, {"roc_auc": 0.6}, "performance")
    assert raised.value.retryable
    assert away.hit
    s3_proxy.faults.clear()
    for _ in range(2):
        history.record(store, "churn", MARCH, {"roc_auc": 0.6}, "performance")
    assert [point.figures["roc_auc"] for point in history.read(store, "churn")] == [0.7, 0.6]
    for number in range(history.LOOSE):
        history.record(store, "churn", {"end": f"2013-05-01T{number % 24:02d}:00", "length": "1h"}, {"n": number}, "x")
    assert len(list(store.keys("history"))) < history.LOOSE
    assert len(history.read(store, "churn", kind="performance")) == 2


@pytest.fixture
def watched(s3_server: S3Server, s3_proxy: Proxy, tmp_path: Path) -> Any:
    """A window of orders, and what runs a drift check of it on a store behind the proxy."""
    day = pd.date_range("2013-03-01", periods=600, freq="h")
    frame = pd.DataFrame({"at": day, "x": np.arange(600.0), "c": ["a", "b", "c"] * 200})
    frame.to_parquet(tmp_path / "now.parquet")
    frame.assign(x=frame["x"] + 300).to_parquet(tmp_path / "before.parquet")
    uri = f"s3://{s3_server.bucket()}/p"
    access = replace(s3_server.access, uri=uri)
    near = open_store(uri, access)
    far = open_store(uri, replace(access, endpoint_url=s3_proxy.url))
    near.put_json("warm", {})

    def run() -> dict[str, Any]:
        context = StepContext(store=far, key="etl/r1/drift/-1", run={"dag_id": "etl", "run_id": "r1"})
        return detect_drift(
            context,
            current=str(tmp_path / "now.parquet"),
            reference=[str(tmp_path / "before.parquet"), {"history": 2}],
            subject="orders",
            roles={"time": "at"},
            window=MARCH,
        )

    return run, near


def state(store: Store) -> dict[str, Any]:
    """What a check leaves, without instants."""
    points = [(point.window["start"], point.figures["drift_share"]) for point in history.read(store, "orders")]
    kept = {folder: sorted(store.keys(folder)) for folder in ("reports", "drift")}
    return {"points": points, **kept}


def test_a_store_that_comes_back_while_a_drift_check_waits_for_it_costs_nothing(
    watched: Any, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, near = watched
    began: list[threading.Timer] = []

    def away(name: str) -> None:
        if name == "drift.measured" and not began:
            s3_proxy.stop()
            began.append(threading.Timer(1, s3_proxy.start))
            began[0].start()

    monkeypatch.setattr("airflow_mlops.core.drift.step.crash_point", away)
    report = run()
    began[0].join()
    first = state(near)
    assert report["metrics"]["drifted_columns"] == 1
    assert len(first["points"]) == len(first["drift"]) == 1
    assert run()["metrics"] == report["metrics"]
    assert state(near) == first


@pytest.mark.parametrize("point", ["drift.measured", "drift.remembered"])
def test_a_store_that_stays_away_fails_a_drift_check_so_that_a_retry_helps(
    watched: Any, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """As a minute without it does, once all attempts are used up."""
    run, near = watched
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    s3._client.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            "airflow_mlops.core.drift.step.crash_point", lambda name: s3_proxy.stop() if name == point else None
        )
        with pytest.raises(CannotReachError, match="does not answer") as raised:
            run()
    assert raised.value.retryable
    assert "secret" not in str(raised.value).lower()
    s3_proxy.start()
    report = run()
    once = state(near)
    assert report["metrics"]["drifted_columns"] == 1
    assert len(once["points"]) == len(once["drift"]) == 1
    run()
    assert state(near) == once
