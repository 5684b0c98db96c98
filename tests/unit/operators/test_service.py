"""MonitorServiceOperator's shell: where it reads, what leaves as metrics, and what never does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Stats
from airflow.sdk import Asset
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_mlops.core.monitoring import history
from airflow_mlops.core.serving import places
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.exceptions import MlopsFailed, MlopsGateFailed
from airflow_mlops.operators.monitoring import MonitorServiceOperator
from servers.serving import World
from servers.serving import world as world

TEXT = """\
# TYPE http_requests_total counter
http_requests_total{status="200"} %d
http_requests_total{status="503"} %d
"""


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepContext:
    """The embedded back end."""
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "mlops"))
    return StepContext(store=LocalStore(tmp_path / "mlops" / "store"))


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What leaves as metrics."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(Stats, "gauge", lambda name, value, **_: found.update({name: value}), raising=False)
    return found


def task(run_id: str) -> Any:
    """What a task is given, as far as the operator reads it."""
    ti = SimpleNamespace(dag_id="watch", run_id=run_id, task_id="served", map_index=-1, try_number=1, pushed={})
    ti.xcom_push = lambda key, value: ti.pushed.update({key: value})
    return {"ti": ti, "dag_run": SimpleNamespace(run_type="manual"), "outlet_events": OutletEventAccessors()}


def test_servers_of_this_machine_are_found_by_the_record_of_who_serves(
    context: StepContext, world: World, gauges: dict[str, Any]
) -> None:
    world.deploy("a")
    places.beat(context.store, f"http://127.0.0.1:{world.port}", str(world.gateway.folder))
    outlet = Asset("churn_service")
    operator = MonitorServiceOperator(task_id="served", server="flights", thresholds={"requests": 3}, outlet=outlet)
    operator.execute(task("first"))
    assert gauges == {"mlops.flights.service.severity": 0}
    world.ask_all(5)
    given = task("second")
    report = operator.execute(given)
    json.dumps(report, allow_nan=False)
    assert (report["kind"], report["passed"], report["metrics"]["requests"]) == ("service", True, 5)
    assert (gauges["mlops.flights.service.requests"], gauges["mlops.flights.server.requests"]) == (5, 5)
    assert given["outlet_events"][outlet].extra["metrics"] == report["metrics"]
    assert operator.link_urls["report"].endswith("report.html")
    strict = MonitorServiceOperator(task_id="served", server="flights", thresholds={"requests": 99}, fail_on="error")
    given = task("third")
    with pytest.raises(MlopsGateFailed, match="flights: requests 0"):
        strict.execute(given)
    assert given["ti"].pushed["return_value"]["severity"] == "error"


class _Theirs(BaseHTTPRequestHandler):
    counts = (0, 0)

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Bearer t0ken-of-theirs"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write((TEXT % type(self).counts).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def theirs() -> Iterator[int]:
    """A server that this project did not start."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Theirs)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_servers_of_others_are_read_by_a_connection(
    context: StepContext, theirs: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connection = {"conn_type": "model_server", "host": "127.0.0.1", "port": theirs, "password": "t0ken-of-theirs"}
    extra = {"metrics": ["/metrics", "http://127.0.0.1:9/metrics"]}
    monkeypatch.setenv("AIRFLOW_CONN_SCORES", json.dumps({**connection, "extra": extra}))
    operator = MonitorServiceOperator(task_id="served", server_conn_id="scores", thresholds={"error_share": 0.01})
    first = operator.execute(task("first"))
    assert "read for the first time" in first["summary"]
    monkeypatch.setattr(_Theirs, "counts", (900, 100))
    second = operator.execute(task("second"))
    assert (second["severity"], second["metrics"]["error_share"]) == ("error", 0.1)
    assert "127.0.0.1:9/metrics could not be read" in second["summary"]
    (point,) = history.read(context.store, "scores", kind="service")
    assert point.figures["requests"] == 1000
    written = b"".join(map(context.store.get_bytes, context.store.keys()))
    assert "t0ken" not in json.dumps([first, second]) + caplog.text + written.decode()


def test_what_cannot_be_is_said_at_once(context: StepContext) -> None:
    with pytest.raises(ValueError, match="a service has no figure 'p95'"):
        MonitorServiceOperator(task_id="served", server="churn", thresholds={"p95": 3})
    with pytest.raises(ValueError, match="series has no 'latencies'; did you mean 'latency'"):
        MonitorServiceOperator(task_id="served", server="churn", series={"latencies": "x"})
    with pytest.raises(MlopsFailed, match="needs server, or a connection with 'metrics' in its extra"):
        MonitorServiceOperator(task_id="served").execute(task("r"))
    found = MonitorServiceOperator(task_id="served", server="churn").execute(task("r"))
    assert (found["severity"], "nobody serves models here" in found["summary"]) == ("error", True)
