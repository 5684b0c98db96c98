"""A canary: what the gateway and the servers tell of it, and whether its share of the requests may grow.

At each step it must hold for the interval, and for as many requests as make a judgement possible: its error rate, its
p95 against that of the server it is to replace, and its answers against what its own files predict for the captured
rows without a server. Against the other model's answers nothing is held: a better model answers otherwise.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import CannotReachError
from airflow_mlops.core.serving import capture, measure, offline
from airflow_mlops.core.serving.client import ServerClient
from airflow_mlops.core.serving.fleet import Instance
from airflow_mlops.core.serving.gateway import Gateway
from airflow_mlops.core.serving.state import Deployment

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Captured rows that are predicted again at the end of a step, the latest ones.
MAX_ROWS = 1000
#: Seconds between two looks.
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Verdict:
    """What one look has led to.

    :param progress: what must be remembered.
    :param failure: why the canary ends, or None.
    :param passed: whether all steps are through.
    """

    progress: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    passed: bool = False
    pause: float = LOOK_SECONDS


def begin(opened: Deployment) -> dict[str, Any]:
    """Return the progress at the first step."""
    now = time.time()
    return {
        "weight": opened.intent["canary"]["steps"][0],
        "step": 0,
        "since": now,
        "began": now,
        "seen": {},
        "last": {},
    }


def look(
    context: StepContext,
    gateway: Gateway,
    opened: Deployment,
    live: Deployment,
    instances: dict[int, Instance],
    copy: Callable[[], Path],
) -> Verdict:
    """Take the figures since the last look and judge.

    :param copy: gives the challenger's verified files.
    """
    settings, progress = opened.intent["canary"], opened.progress
    last, seen = dict(progress["last"]), dict(progress["seen"])
    counted = gateway.stats(opened.server)
    for name, one in (("new", opened), ("old", live)):
        now = _figures(instances[one.seq].address)
        if now is not None:
            now["gateway_errors"] = counted[one.slot].errors
            seen[name] = _added(seen.get(name), last.get(name), now)
            last[name] = now
    remembered: dict[str, Any] = {"last": last, "seen": seen}
    new, old = seen.get("new") or _added(None, None, {}), seen.get("old") or _added(None, None, {})
    failure = _failure(settings, new, old)
    if failure:
        return Verdict(remembered, failure)
    age, minimum = time.time() - float(progress["since"]), int(settings["min_requests"])
    if time.time() - float(progress["began"]) > float(settings["timeout"]):
        return Verdict(remembered, _too_little(opened, new, settings))
    if age < float(settings["interval"]) or new["requests"] < minimum:
        return Verdict(remembered)
    rows, wrong, problem = _agreement(context, opened, copy, settings)
    remembered["rows"] = rows
    if wrong:
        return Verdict(
            remembered,
            f"{wrong} of {rows} answers that it gave live are not what its own files predict for the same rows: it "
            "serves another model, or other versions of the libraries",
        )
    if rows < int(settings["min_rows"]) and not problem:
        return Verdict(remembered)  # captured rows come a little later than the requests
    step = int(progress["step"]) + 1
    context.log.info(
        "%s: canary at %s%%: %s requests, %s errors, p95 %s s; %s",
        opened.server,
        progress["weight"],
        new["requests"],
        new["errors"],
        measure.quantile(new["buckets"], 0.95),
        problem or f"{rows} captured rows agree with its own offline predictions",
    )
    history = [*progress.get("history", []), {"weight": progress["weight"], "rows": rows, **_told(new, old)}]
    if step >= len(settings["steps"]):
        return Verdict({**remembered, "history": history}, passed=True)
    weight = settings["steps"][step]
    return Verdict(
        {**remembered, "history": history, "step": step, "weight": weight, "since": time.time(), "seen": {}}, pause=0
    )


def _figures(address: str) -> dict[str, Any] | None:
    try:
        with ServerClient(address, timeout=5) as client:
            status, body, _ = client.call("/metrics")
    except CannotReachError:
        return None  # the gateway counts it as an error, if a request met it
    return measure.parse(body.decode()) if status == 200 else None


def _added(seen: dict[str, Any] | None, before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """Return the sums after one more look. Counters that went back began anew; the first look only sets the base."""
    sums = seen or {"requests": 0, "errors": 0, "buckets": [0] * (len(measure.BUCKETS) + 1)}
    if before is None or not now:
        return sums
    again = now["started"] != before["started"]
    base: dict[str, Any] = {"requests": 0, "buckets": []} if again else before
    buckets = [b - a for a, b in zip(base["buckets"] or [0] * len(now["buckets"]), now["buckets"], strict=True)]
    errors = now["gateway_errors"] - before["gateway_errors"]
    return {
        "requests": sums["requests"] + now["requests"] - base["requests"],
        "errors": sums["errors"] + (errors if errors >= 0 else now["gateway_errors"]),
        "buckets": [a + b for a, b in zip(sums["buckets"], buckets, strict=True)],
    }


def _failure(settings: dict[str, Any], new: dict[str, Any], old: dict[str, Any]) -> str | None:
    minimum = int(settings["min_requests"])
    requests = max(new["requests"], new["errors"])
    # Few requests do not make one error a rate; the errors that even the smallest sample may have do.
    if new["errors"] > float(settings["max_error_rate"]) * max(requests, minimum):
        return f"{new['errors']} of its {requests} requests failed, at most {settings['max_error_rate']:.2%} may"
    if new["requests"] >= minimum and old["requests"] >= minimum:
        p95, usual = measure.quantile(new["buckets"], 0.95), measure.quantile(old["buckets"], 0.95)
        if p95 is not None and usual is not None and p95 > float(settings["max_latency_ratio"]) * usual:
            return (
                f"its p95 is up to {p95 * 1000:g} ms where the server that it is to replace has {usual * 1000:g} ms; "
                f"{settings['max_latency_ratio']:g} times as much is allowed"
            )
    return None


def _agreement(
    context: StepContext, opened: Deployment, copy: Callable[[], Path], settings: dict[str, Any]
) -> tuple[int, int, str | None]:
    """Return how many captured rows were predicted again, how many differ, and why none could be."""
    since = dt.datetime.fromtimestamp(float(opened.progress["began"]), dt.timezone.utc)
    rows = capture.read(context.store, opened.server, since=since, deployment=opened.seq)
    if rows is None or len(rows) < int(settings["min_rows"]):
        return (0 if rows is None else len(rows)), 0, None
    rows = rows.sort_values("prediction_time").tail(MAX_ROWS).reset_index(drop=True)
    features = rows.drop(columns=[name for name in capture.COLUMNS if name in rows.columns])
    found = offline.run(copy(), rows=features)
    if found.get("error"):
        return len(rows), 0, f"its answers were not compared: {found['error']}"
    expected = capture.as_list(found["predictions"])
    wrong = offline.disagreeing(capture.as_list(rows["prediction"]), expected, float(settings["tolerance"]))
    return len(rows), len(wrong), None


def _too_little(opened: Deployment, new: dict[str, Any], settings: dict[str, Any]) -> str:
    return (
        f"cannot tell: after {settings['timeout']:g} s it is still at {opened.progress['weight']}%, with "
        f"{new['requests']} requests (min_requests is {settings['min_requests']}) and {opened.progress.get('rows', 0)} "
        f"captured rows (min_rows is {settings['min_rows']}) in this step"
    )


def _told(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    return {
        "requests": new["requests"],
        "errors": new["errors"],
        "p95_seconds": measure.quantile(new["buckets"], 0.95),
        "old_p95_seconds": measure.quantile(old["buckets"], 0.95),
    }
