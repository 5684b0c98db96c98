"""Counters from what servers expose: this provider's own, and those of others."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from airflow_mlops.core.errors import CannotReachError, SpecError
from airflow_mlops.core.serving.exposition import Series, counted, fetch, place_of, samples
from airflow_mlops.core.serving.measure import Figures

#: As prometheus_client writes it for a server in FastAPI, and OpenMetrics with an exemplar.
FOREIGN = """\
# HELP http_requests_total Total number of requests by method, status and handler.
# TYPE http_requests_total counter
http_requests_total{handler="/predict",method="POST",status="2xx"} 90.0
http_requests_total{handler="/predict",method="POST",status="5xx"} 10.0 1712000000000
http_requests_total{handler="/a \\"quoted\\", {odd}\\\\path",method="GET",status="2xx"} 7.0
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{handler="/predict",le="0.1"} 60.0
http_request_duration_seconds_bucket{handler="/predict",le="0.5"} 95.0 # {trace_id="x"} 0.4 1712000000.1
http_request_duration_seconds_bucket{handler="/predict",le="+Inf"} 100.0
http_request_duration_seconds_count{handler="/predict"} 100.0
http_request_duration_seconds_sum{handler="/predict"} 20.5
process_start_time_seconds 1.7e+09
queue_size NaN
# EOF
"""


def test_a_server_of_this_provider_is_read_as_it_counts() -> None:
    figures = Figures({"server": "s", "model": 'a "b"', "version": "3", "digest": "d", "deployment": "2"})
    for status, seconds in ((200, 0.004), (200, 0.2), (500, 40.0)):
        figures.answered(status, seconds)
    found = counted(figures.text())
    assert (found["requests"], found["errors"], found["model"], found["version"]) == (3, 1, 'a "b"', "3")
    assert found["started"] == pytest.approx(figures.started, abs=0.01)
    assert [one for one in found["buckets"] if one[0] in (0.005, 0.25, None)] == [[0.005, 1], [0.25, 2], [None, 3]]


def test_a_server_of_others_is_read_by_the_names_that_most_have() -> None:
    found = counted(FOREIGN)
    assert (found["requests"], found["errors"], found["started"]) == (107, 10, 1.7e9)
    assert found["buckets"] == [[0.1, 60], [0.5, 95], [None, 100]]
    assert ("http_requests_total", {"handler": '/a "quoted", {odd}\\path', "method": "GET", "status": "2xx"}, 7.0) in [
        *samples(FOREIGN)
    ]


def test_which_series_are_meant_can_be_said() -> None:
    here = {"requests": "http_requests_total", "where": {"handler": "/predict"}}
    assert counted(FOREIGN, Series.of(here))["requests"] == 100
    text = 'bad_count 2\ntime_ms_bucket{le="50"} 4\ntime_ms_bucket{le="+Inf"} 5\ntime_ms_count 5\ntime_ms_sum 90'
    found = counted(text, Series.of({"latency": "time_ms", "errors": "bad_count"}))
    assert (found["requests"], found["errors"], found["buckets"]) == (5, 2, [[0.05, 4], [None, 5]])
    assert found["seconds"] == pytest.approx(0.09)


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({"requests": "no_such_total"}, "does not expose no_such_total. It has http_request_duration_seconds_bucket"),
        ({"request": "x"}, "series has no 'request'; did you mean 'requests'"),
        ({"code": "x"}, "series needs 'requests' or 'latency'"),
    ],
)
def test_what_is_not_there_is_said(series: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        counted(FOREIGN, Series.of(series))
    with pytest.raises(SpecError, match="1 series, none of which sounds like requests"):
        counted("up 1\n")


class _Guarded(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        wanted = {"Basic " + base64.b64encode(b"prom:s3cret").decode(), "Bearer s3cret"}
        known = self.headers.get("Authorization") in wanted and self.path == "/metrics?part=1"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(FOREIGN.encode() if known else b"no")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    """A server that wants to know who asks."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Guarded)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/metrics?part=1"
    server.shutdown()
    server.server_close()


def test_it_is_fetched_with_what_the_connection_knows(url: str) -> None:
    assert fetch(url, login="prom", password="s3cret") == fetch(url, password="s3cret") == FOREIGN
    with pytest.raises(CannotReachError, match="answers 401; check login and password") as caught:
        fetch(url, password="wr0ng")
    assert "wr0ng" not in str(caught.value)
    assert "part" not in str(caught.value)
    with pytest.raises(CannotReachError, match=r"127\.0\.0\.1:9/metrics does not answer"):
        fetch("http://user:pw@127.0.0.1:9/metrics")
    with pytest.raises(SpecError, match="need an http or https URL"):
        fetch("file:///etc/passwd")
    assert place_of("https://u:p@h.example.com/m?token=x") == "h.example.com/m"
