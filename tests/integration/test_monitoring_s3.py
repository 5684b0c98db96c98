"""Monitoring on a store that goes away for a while: a retry ends with one point."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_mlops.core import s3
from airflow_mlops.core.errors import CannotReachError
from airflow_mlops.core.monitoring import history
from airflow_mlops.core.store import open_store
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
