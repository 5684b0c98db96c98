"""What a service did in a window: from counters of real servers behind a real gateway, and of servers of others."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from airflow_mlops.core import faults, reports
from airflow_mlops.core.alerts.step import alert
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.monitoring import history, readings, service
from airflow_mlops.core.monitoring.readings import Readings, between, merged, quantile
from airflow_mlops.core.monitoring.service import monitor_service, tail
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from servers.serving import Behaviour, Killed, World
from servers.serving import world as world

NOW = dt.datetime.now(dt.timezone.utc)


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    """A task without MLflow."""
    run = {"dag_id": "etl", "run_id": "r", "task_id": "service", "map_index": -1}
    return StepContext(store=LocalStore(tmp_path / "store"), key="etl/r/service/-1", run=run)


def window(hours: int) -> dict[str, str]:
    """The window of one hour that ends so many hours after the tests began."""
    end = NOW + dt.timedelta(hours=hours)
    return {"start": (end - dt.timedelta(hours=1)).isoformat(), "end": end.isoformat()}


def source(
    requests: int, errors: int = 0, slow: int = 0, started: float | None = 1.0, name: str = "a"
) -> dict[str, Any]:
    """What one server has counted: of its requests some took up to 0.1, some up to 1 second."""
    buckets = [[0.1, requests - slow], [1.0, requests], [None, requests]]
    known = {"name": name, "role": "server", "started": started, "version": "1", "model": "m", "deployment": "1"}
    return {**known, "requests": requests, "errors": errors, "buckets": buckets}


def reading(*sources: dict[str, Any], at: float = 100.0) -> dict[str, Any]:
    return {"at": at, "boundary": dt.datetime.fromtimestamp(at, dt.timezone.utc).isoformat(), "sources": [*sources]}


def test_a_window_is_the_difference_of_two_readings() -> None:
    found = between(reading(source(10, 1, 2)), reading(source(110, 5, 12), at=150.0))
    assert (found["all"]["requests"], found["all"]["errors"], found["seconds"]) == (100, 4, 50.0)
    assert found["all"]["buckets"] == [[0.0, 0.1, 90], [0.1, 1.0, 10], [1.0, None, 0]]
    figures = service.figures_of(found["all"], found["seconds"])
    assert (figures["throughput"], figures["error_share"]) == (2.0, 0.04)
    assert figures["latency_p95_ms"] == pytest.approx(550)


@pytest.mark.parametrize(
    ("before", "after", "requests", "restarted"),
    [
        ([source(50)], [source(7)], 7, ["a"]),  # it went back
        (
            [source(5)],
            [source(7, started=120.0)],
            7,
            ["a"],
        ),  # it went on past where it was, and says that it began anew
        ([source(5, started=None)], [source(7, started=None)], 2, []),
        ([source(5)], [source(9), source(3, started=120.0, name="b")], 7, []),  # a new one
        ([source(5)], [source(9), source(3, started=20.0, name="b")], 4, []),  # it was there, and nobody read it
    ],
)
def test_counters_that_begin_anew(before: Any, after: Any, requests: int, restarted: list[str]) -> None:
    found = between(reading(*before), reading(*after, at=150.0))
    assert (found["all"]["requests"], found["restarted"]) == (requests, restarted)
    assert found["unseen"] == (["b"] if requests == 4 else [])


def test_quantiles_are_within_their_bucket() -> None:
    values = np.random.default_rng(0).gamma(2, 0.05, 5000)
    ends = [0.05, 0.1, 0.2, 0.5]
    counts = np.histogram(values, [0, *ends, np.inf])[0].tolist()
    buckets = [list(one) for one in zip([0.0, *ends], [*ends, None], counts, strict=True)]
    for share in (0.5, 0.95):
        found = quantile(buckets, share)
        true = float(np.quantile(values, share))
        (inside,) = [one for one in buckets if one[0] <= true < (one[1] or 99)]
        assert inside[0] <= found <= inside[1]
    assert quantile([], 0.5) is None
    # Of servers with other buckets, by those that both have.
    assert merged([buckets, [[0.0, 0.1, 5], [0.1, None, 5]]]) == [
        [0.0, 0.1, counts[0] + counts[1] + 5],
        [0.1, None, sum(counts[2:]) + 5],
    ]


@pytest.mark.parametrize(("bad", "total", "share"), [(2, 10, 0.01), (30, 1000, 0.01), (70, 1000, 0.05), (1, 1, 0.01)])
def test_how_far_beyond_chance_is_exact(bad: int, total: int, share: float) -> None:
    assert tail(bad, total, share) == pytest.approx(stats.binom.sf(bad - 1, total, share), rel=1e-9)


def run(context: StepContext, at: int, *sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"server": "theirs", "counted": [*sources], "window": window(at), **more}
    return monitor_service(context, **given)


LIMITS = {"latency_p95_ms": 200, "error_share": 0.01}


@pytest.mark.parametrize(
    ("errors", "slow", "severity", "said"),
    [
        (2, 40, "ok", "theirs holds; 1,000 requests"),
        (12, 0, "warning", "error_share 0.012 (≤ 0.01; within chance)"),
        (40, 0, "error", "error_share 0.04 (≤ 0.01)"),
        # They may have taken 150 ms: the bucket does not tell.
        (0, 60, "warning", "latency_p95_ms 250 (≤ 200; within chance)"),
    ],
)
def test_a_threshold_is_broken_beyond_chance(
    context: StepContext, errors: int, slow: int, severity: str, said: str
) -> None:
    first = run(context, 0, source(100), thresholds=LIMITS)
    assert (first["passed"], first["metrics"]) == (True, {})
    assert "read for the first time" in first["summary"]
    found = run(context, 1, source(1100, errors, slow), thresholds=LIMITS)
    assert (found["severity"], found["passed"]) == (severity, severity != "error")
    assert said in found["summary"]
    (point,) = history.read(context.store, "theirs", kind="service")
    assert (point.version, point.severity, point.figures["requests"]) == ("1", severity, 1000)
    (server,) = history.read(context.store, "theirs", kind="server")
    assert server.figures == point.figures
    # Read again by a retry, and by whoever clears the task later: the same window, whatever is counted by then.
    again = run(context, 1, source(9000, 99), thresholds=LIMITS)
    assert again["metrics"] == found["metrics"]
    assert len(history.read(context.store, "theirs")) == 2


def test_a_missed_reading_makes_the_next_window_longer(context: StepContext) -> None:
    run(context, 0, source(100))
    # The windows in between were not read.
    found = run(context, 3, source(400))
    assert found["metrics"]["requests"] == 300
    assert "as a reading before it was missed" in found["summary"]
    late = monitor_service(context, server="theirs", counted=[source(999)], window=window(-10))
    assert "It ended before anybody read the counters" in late["summary"]
    assert (late["severity"], late["metrics"]) == ("ok", {})


def test_a_window_that_nobody_read_is_a_warning(context: StepContext) -> None:
    first = Readings(context.store, "theirs")
    old = window(-60)
    first.take(old["start"], lambda: {"sources": [source(1)], "missing": [], "at": time.time() - 61 * 3600}, "")
    found = monitor_service(context, server="theirs", counted=[source(9)], window=old)
    assert (found["severity"], found["passed"]) == ("warning", True)
    assert "Nobody read the counters at its end; the next window that is read holds" in found["summary"]


def test_without_a_window_it_is_what_is_since_the_last_reading(context: StepContext) -> None:
    given: dict[str, Any] = {"server": "theirs", "subject": "churn"}
    monitor_service(context, **given, counted=[source(10)])
    assert monitor_service(context, **given, counted=[source(20)])["metrics"] == {}  # a retry of the same task
    later = dataclasses.replace(context, key="etl/later/service/-1")
    found = monitor_service(later, **given, counted=[source(30)])
    assert (found["metrics"]["requests"], found["subject"]) == (20, "churn")
    (point,) = history.read(context.store, "churn", kind="service")
    assert point.window == found["window"]


@pytest.mark.parametrize("point", faults.CRASH_POINTS["monitor_service"])
def test_killed_anywhere_it_ends_as_one_clean_run(
    context: StepContext, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(here: str) -> None:
        if here == point:
            raise Killed(here)

    run(context, 0, source(100))
    for module in (readings, service, history, reports):
        monkeypatch.setattr(module, "crash_point", crash)
    with pytest.raises(Killed):
        run(context, 1, source(200))
    monkeypatch.undo()
    found = run(context, 1, source(500))
    # What the first try had read stands.
    assert found["metrics"]["requests"] == 100
    assert [one.figures["requests"] for one in history.read(context.store, "theirs")] == [100, 100]


def test_a_real_gateway_and_what_is_behind_it(context: StepContext, world: World) -> None:
    world.deploy("a")
    place = {"backend": "processes", "gateway": str(world.gateway.folder)}
    given: dict[str, Any] = {"server": "flights", "place": place, "thresholds": {"error_share": 0.01}}
    monitor_service(context, **given, window=window(0))
    assert world.ask_all(20) == [(200, 1)] * 20
    found = monitor_service(context, **given, window=window(1))
    assert (found["metrics"]["requests"], found["metrics"]["error_share"], found["severity"]) == (20, 0.0, "ok")
    assert 0 < found["metrics"]["latency_p50_ms"] < 30_000
    assert [(one["name"], one["figures"]["requests"]) for one in found["servers"]] == [("deployment 1", 20)]

    # The gateway begins anew, and another server takes over that fails: both are told of what they have counted since.
    world.process.close()
    world.process.ensure()
    world.fleet.behaviour = Behaviour(fails=True)
    world.deploy("b")
    assert {status for status, _ in world.ask_all(10)} == {500}
    found = monitor_service(context, **given, window=window(2))
    assert (found["metrics"]["requests"], found["metrics"]["error_share"], found["severity"]) == (10, 1.0, "error")
    assert "gateway began anew" in found["summary"]
    assert [(one["name"], one["figures"]["error_share"]) for one in found["servers"]] == [("deployment 2", 1.0)]

    # Nobody answers: that is what a monitor is there to find. It is one incident, of the service.
    world.process.close()
    service_down = monitor_service(context, **given, window=window(3))
    assert service_down["severity"] == "error"
    assert "flights cannot be read" in service_down["summary"]
    told = alert(context, reports=[found, service_down])
    assert [(one["about"], one["topic"], one["channel"]) for one in told["incidents"]] == [
        ("flights", "service", "alert")
    ]
    world.process.ensure()
    with pytest.raises(SpecError, match="knows no server 'flight'; did you mean 'flights'"):
        monitor_service(context, **{**given, "server": "flight"}, window=window(4))


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"latency_p96_ms": 3}, "a service has no figure 'latency_p96_ms'; did you mean 'latency_p9"),
        ({"error_share": "low"}, "'error_share' takes a number or"),
        ({"throughput": {"least": 1}}, "'throughput' takes a number or"),
        ([1], "thresholds is like"),
    ],
)
def test_thresholds_that_cannot_be(thresholds: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        service.check_thresholds(thresholds)
