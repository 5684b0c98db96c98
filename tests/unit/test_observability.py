"""Figures leave by Airflow's own metrics: a StatsD on a local socket hears them."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator

import pytest

from airflow_mlops.observability import emit, emit_report

WAIT = 60.0


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A UDP socket that Airflow's metrics go to, set up as a task's process does it."""
    stats = pytest.importorskip("airflow.sdk.observability.stats", reason="Airflow 3.1 sets its metrics up otherwise")
    from airflow.sdk.observability.metrics import stats_utils

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(WAIT)
        for name, value in {
            "STATSD_ON": "True",
            "STATSD_HOST": "127.0.0.1",
            "STATSD_PORT": str(server.getsockname()[1]),
            "STATSD_PREFIX": "airflow",
        }.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name}", value)
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
        yield server
        monkeypatch.undo()
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)


def heard(server: socket.socket, count: int) -> set[str]:
    """Return what so many datagrams say."""
    return {server.recv(4096).decode() for _ in range(count)}


def test_figures_are_gauges_and_verdicts_are_counted(statsd: socket.socket) -> None:
    figures = {"roc_auc": 0.71, "rows": 1200, "f1": None, "log_loss": math.nan, "share of nulls": 0}
    emit("churn.eu:7", "performance", figures, severity="warning")
    assert heard(statsd, 5) == {
        "airflow.mlops.churn_eu.performance.roc_auc:0.71|g",
        "airflow.mlops.churn_eu.performance.rows:1200|g",
        "airflow.mlops.churn_eu.performance.share_of_nulls:0|g",
        "airflow.mlops.churn_eu.performance.severity:1|g",
        "airflow.mlops.churn_eu.performance.windows.warning:1|c",
    }


def test_a_report_sends_its_metrics_under_its_kind(statsd: socket.socket) -> None:
    emit_report({"kind": "drift", "metrics": {"drift_share": 0.4}, "severity": "ok"}, "churn")
    assert "airflow.mlops.churn.drift.drift_share:0.4|g" in heard(statsd, 3)


def test_without_a_subject_or_a_back_end_nothing_is_sent_and_nothing_fails() -> None:
    emit_report({"kind": "drift", "metrics": {"drift_share": 0.4}, "severity": "ok"}, None)
    emit("churn", "drift", {"drift_share": 0.4}, severity="ok")
