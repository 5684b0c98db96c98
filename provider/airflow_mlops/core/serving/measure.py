"""Figures of a model server for Prometheus, and the ASGI application that takes them."""

from __future__ import annotations

import bisect
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

#: Upper ends of the latency histogram, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Message = Mapping[str, Any]
App = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class Figures:
    """Counters of one process; safe to use from several threads.

    :param identity: labels of what serves.
    """

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self.identity = {key: "" if value is None else str(value) for key, value in identity.items()}
        self.started = time.time()
        self.in_flight = 0
        self.answers: dict[int, int] = {}
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.counters: dict[str, int] = {"predicted_rows": 0, "captured_rows": 0, "capture_dropped_rows": 0}
        self._lock = threading.Lock()

    def answered(self, status: int, seconds: float) -> None:
        """Count one answer of ``/invocations``."""
        with self._lock:
            self.answers[status] = self.answers.get(status, 0) + 1
            self.buckets[bisect.bisect_left(BUCKETS, seconds)] += 1
            self.seconds += seconds

    def add(self, name: str, count: int) -> None:
        """Add to one of the counters."""
        with self._lock:
            self.counters[name] += count

    def text(self) -> str:
        """Return all of it in Prometheus' text format."""
        with self._lock:
            answers, buckets, counters = dict(self.answers), list(self.buckets), dict(self.counters)
            seconds, in_flight = self.seconds, self.in_flight
        labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in self.identity.items())
        lines = [
            "# HELP mlops_model_info What this process serves.",
            "# TYPE mlops_model_info gauge",
            f"mlops_model_info{{{labels}}} 1",
            "# HELP mlops_requests_total Answers of /invocations.",
            "# TYPE mlops_requests_total counter",
            *(f'mlops_requests_total{{code="{code}"}} {count}' for code, count in sorted(answers.items())),
            "# HELP mlops_request_seconds Time from a request's arrival to the end of its answer.",
            "# TYPE mlops_request_seconds histogram",
        ]
        total = 0
        for end, count in zip((*BUCKETS, None), buckets, strict=True):
            total += count
            lines.append(f'mlops_request_seconds_bucket{{le="{"+Inf" if end is None else end}"}} {total}')
        lines += [f"mlops_request_seconds_sum {seconds:.6f}", f"mlops_request_seconds_count {total}"]
        lines += ["# TYPE mlops_in_flight_requests gauge", f"mlops_in_flight_requests {in_flight}"]
        for name, count in counters.items():
            lines += [f"# TYPE mlops_{name}_total counter", f"mlops_{name}_total {count}"]
        lines += ["# TYPE process_start_time_seconds gauge", f"process_start_time_seconds {self.started:.3f}"]
        return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def measured(app: App, figures: Figures) -> App:
    """Return the application with ``/metrics`` and ``/model`` beside its own routes, and its answers counted."""
    version = figures.identity.get("version") or figures.identity.get("digest", "")
    served_by = [(b"x-model-version", version.encode()), (b"x-deployment", figures.identity["deployment"].encode())]

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path") if scope["type"] == "http" else None
        if path == "/metrics":
            await _answer(send, figures.text().encode(), b"text/plain; version=0.0.4; charset=utf-8")
        elif path == "/model":
            await _answer(send, json.dumps(figures.identity).encode(), b"application/json")
        elif path != "/invocations":
            await app(scope, receive, send)
        else:
            await _invoked(app, figures, served_by, scope, receive, send)

    return serve


async def _invoked(app: App, figures: Figures, served_by: Any, scope: Any, receive: Any, send: Any) -> None:
    status, began = 500, time.perf_counter()

    async def sent(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = int(message["status"])
            message = {**message, "headers": [*message.get("headers", ()), *served_by]}
        await send(message)

    figures.in_flight += 1
    try:
        await app(scope, receive, sent)
    finally:
        figures.in_flight -= 1
        figures.answered(status, time.perf_counter() - began)


async def _answer(send: Any, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def parse(text: str) -> dict[str, Any]:
    """Read what :meth:`Figures.text` wrote: ``{"requests", "errors", "buckets", "started", "captured_rows"}``.

    ``buckets`` are counts by upper end, not cumulated, in the order of :data:`BUCKETS` and beyond.
    """
    found: dict[str, Any] = {"requests": 0, "errors": 0, "buckets": [], "started": 0.0, "captured_rows": 0}
    cumulated: list[int] = []
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("mlops_requests_total"):
            found["requests"] += int(value)
            found["errors"] += int(value) if 'code="5' in name else 0
        elif name.startswith("mlops_request_seconds_bucket"):
            cumulated.append(int(value))
        elif name == "process_start_time_seconds":
            found["started"] = float(value)
        elif name == "mlops_captured_rows_total":
            found["captured_rows"] = int(value)
    found["buckets"] = [b - a for a, b in zip([0, *cumulated], cumulated, strict=False)]
    return found


def quantile(buckets: list[int], share: float) -> float | None:
    """Return the upper end, in seconds, of the bucket that holds a quantile; None for no requests."""
    total, seen = sum(buckets), 0
    for end, count in zip((*BUCKETS, BUCKETS[-1] * 2), buckets, strict=True):
        seen += count
        if total and seen >= share * total:
            return end
    return None
