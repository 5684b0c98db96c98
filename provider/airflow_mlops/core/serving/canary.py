"""A canary: what the gateway and the servers tell of it, and whether its share of the requests may grow.

Three rates are held against what they may be, at every look: of requests that failed, of requests that were slower than
those of the server that it is to replace, and of captured requests whose answers are not what its own files predict for
the same rows without a server. Against the other model's answers nothing is held: a better model answers otherwise.

The tests are sequential (see :mod:`.sequential`): at whichever look one of them speaks, the chance that a good canary
ever goes back is at most ``alpha``, over all looks, steps and tests; and one that is worse than its limit by ``margin``
comes through with a chance of at most ``beta``.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import CannotReachError
from airflow_mlops.core.serving import capture, measure, offline, sequential
from airflow_mlops.core.serving.client import ServerClient
from airflow_mlops.core.serving.fleet import Instance
from airflow_mlops.core.serving.gateway import Gateway
from airflow_mlops.core.serving.request import CANARY
from airflow_mlops.core.serving.state import Deployment

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Captured rows that are predicted again at one look, the latest ones.
MAX_ROWS = 1000
#: Seconds between two looks.
LOOK_SECONDS = 1.0
#: Rates that are tested at each step.
TESTS = 3
#: Share of the requests that are slower than the p95, by its meaning.
BEYOND_P95 = 0.05


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
    # An intent of an earlier version lacks what this one knows.
    settings, progress = {**CANARY, **opened.intent["canary"]}, opened.progress
    step = _Step(settings, dict(progress["seen"]))
    last = _read(step, dict(progress["last"]), gateway, opened, live, instances)
    age = time.time() - float(progress["since"])
    failure, problem = step.failure(), None
    due = not failure and step.due(age)
    if due:
        problem = _compare(context, step, opened, copy)
        failure = step.failure()
    remembered: dict[str, Any] = {"last": last, "seen": step.seen}
    told = {"weight": progress["weight"], **step.told()}
    history = list(progress.get("history", []))
    if not failure and not (due and step.holds(age, problem)):
        if time.time() - float(progress["began"]) <= float(settings["timeout"]):
            return Verdict(remembered)
        failure = step.too_little(told)
    if failure:
        return Verdict({**remembered, "history": [*history, {**told, "passed": False}]}, failure)
    context.log.info(
        "%s: canary at %s%%: %s requests, %s errors, p95 %s s; %s",
        opened.server,
        progress["weight"],
        told["requests"],
        told["errors"],
        told["p95_seconds"],
        problem or f"{told['rows']} captured rows, {told['disagreeing']} differ from its own offline predictions",
    )
    history.append({**told, "passed": True})
    number = int(progress["step"]) + 1
    if number >= len(settings["steps"]):
        return Verdict({**remembered, "history": history}, passed=True)
    fresh = {"until": step.seen["until"]} if "until" in step.seen else {}
    more = {"history": history, "step": number, "weight": settings["steps"][number], "since": time.time()}
    return Verdict({**remembered, **more, "seen": fresh}, pause=0)


class _Step:
    """What was seen since a step began, and what it says.

    :param seen: ``new`` and ``old``: sums of requests, errors and buckets; ``slow``: ``[slow, judged]`` requests;
        ``compared``: ``[disagreeing, compared]`` requests; ``rows``: ``[disagreeing, compared]``; ``until``: time of
        the latest row that was compared; ``looked``: how many requests there were when rows were compared last.
    """

    def __init__(self, settings: dict[str, Any], seen: dict[str, Any]) -> None:
        self.settings = settings
        nothing = {"requests": 0, "errors": 0, "buckets": [0] * (len(measure.BUCKETS) + 1)}
        pairs: dict[str, Any] = {name: [0, 0] for name in ("slow", "compared", "rows")}
        self.seen = {"new": nothing, "old": nothing, **pairs, "looked": 0, **seen}

    @property
    def requests(self) -> int:
        """Requests to the challenger, with those that met no server."""
        return max(int(self.seen["new"]["requests"]), int(self.seen["new"]["errors"]))

    def add(self, new: dict[str, Any] | None, old: dict[str, Any] | None) -> None:
        """Add what one look brought; of the first one there is nothing to add."""
        limit = self._slow()
        if new is not None and limit is not None:
            # A bet is made before its outcome is known: the limit is that of the looks before.
            ends = (0.0, *measure.BUCKETS)
            slow = sum(count for start, count in zip(ends, new["buckets"], strict=True) if start >= limit)
            self.seen["slow"] = [self.seen["slow"][0] + slow, self.seen["slow"][1] + sum(new["buckets"])]
        for name, more in (("new", new), ("old", old)):
            if more is not None:
                sums = self.seen[name]
                self.seen[name] = {
                    "requests": sums["requests"] + more["requests"],
                    "errors": sums["errors"] + more["errors"],
                    "buckets": [a + b for a, b in zip(sums["buckets"], more["buckets"], strict=True)],
                }

    def _slow(self) -> float | None:
        """Return the seconds from which on a request is slower than it may be; None while nobody can tell."""
        old = self.seen["old"]
        if old["requests"] < int(self.settings["min_requests"]):
            return None
        usual = measure.quantile(old["buckets"], 0.95)
        return None if usual is None else float(self.settings["max_latency_ratio"]) * usual

    def failure(self) -> str | None:
        """Return why the canary ends, or None."""
        failed, (slow, judged), (wrong, compared) = self.seen["new"]["errors"], self.seen["slow"], self.seen["compared"]
        most, differ = float(self.settings["max_error_rate"]), float(self.settings["max_disagreement"])
        if found := self._proven(failed, self.requests, most):
            return f"{failed} of its {self.requests} requests failed, at most {most:.2%} may ({found})"
        if found := self._proven(slow, judged, BEYOND_P95):
            limit = 1000 * (self._slow() or 0)
            return (
                f"{slow} of {judged} requests took more than {limit:g} ms, which is "
                f"{self.settings['max_latency_ratio']:g} times the p95 of the server that it is to replace; at most "
                f"{BEYOND_P95:.0%} may ({found})"
            )
        if found := self._proven(wrong, compared, differ):
            rows = self.seen["rows"]
            return (
                f"{rows[0]} of {rows[1]} answers that it gave live are not what its own files predict for the same "
                f"rows, in {wrong} of {compared} requests: it serves another model, or with other versions of the "
                f"libraries; at most {differ:.2%} of the requests may differ ({found})"
            )
        return None

    def _proven(self, bad: int, total: int, limit: float) -> str | None:
        """Return how sure it is that a rate is above its limit, if it is sure enough."""
        tests = TESTS * len(self.settings["steps"])
        found = sequential.evidence_above(bad, total, limit) if limit < 1 else 0.0
        if found < math.log(tests / float(self.settings["alpha"])):
            return None
        return f"p {max(tests * math.exp(-found), 1e-6):.1g}, whenever it is looked at"

    def due(self, age: float) -> bool:
        """Return whether captured rows are worth a look now: to predict them costs the start of a process."""
        return self.doubled or self._ripe(age)

    @property
    def doubled(self) -> bool:
        """Whether there are twice as many requests as when rows were compared last: so that looks stay few."""
        return self.requests >= 2 * max(int(self.seen["looked"]), int(self.settings["min_requests"]), 1)

    def _ripe(self, age: float) -> bool:
        settings, new = self.settings, self.seen["new"]
        lasted = age >= float(settings["interval"]) and new["requests"] >= int(settings["min_requests"])
        return lasted and self._enough(new["errors"], self.requests, float(settings["max_error_rate"]))

    def holds(self, age: float, problem: str | None) -> bool:
        """Return whether a step is through: it has lasted long enough, and there is enough evidence."""
        if not self._ripe(age):
            return False
        return int(self.settings["min_rows"]) == 0 or bool(problem) or self.agree(0, 0)

    def agree(self, requests: int, rows: int) -> bool:
        """Return whether there is enough evidence that answers agree, were these more to agree as well."""
        (wrong, compared), known = self.seen["compared"], int(self.seen["rows"][1])
        enough = self._enough(wrong, compared + requests, float(self.settings["max_disagreement"]))
        return enough and known + rows >= int(self.settings["min_rows"])

    def _enough(self, bad: int, total: int, expected: float) -> bool:
        limit = expected + float(self.settings["margin"])
        if limit >= 1:
            return True
        beta = float(self.settings["beta"])
        return sequential.evidence_below(bad, total, limit, expected) >= math.log(1 / beta)

    def told(self) -> dict[str, Any]:
        """Return what a report says of the step."""
        new, old = self.seen["new"], self.seen["old"]
        return {
            "requests": new["requests"],
            "errors": new["errors"],
            "slow": self.seen["slow"][0],
            "rows": self.seen["rows"][1],
            "disagreeing": self.seen["rows"][0],
            "compared_requests": self.seen["compared"][1],
            "disagreeing_requests": self.seen["compared"][0],
            "p95_seconds": measure.quantile(new["buckets"], 0.95),
            "old_p95_seconds": measure.quantile(old["buckets"], 0.95),
        }

    def too_little(self, told: dict[str, Any]) -> str:
        """Return what is said when the time is over."""
        settings = self.settings
        most, margin, beta = (float(settings[name]) for name in ("max_error_rate", "margin", "beta"))
        needed = sequential.enough(most + margin, most, beta) if most + margin < 1 else 0
        return (
            f"cannot tell: after {settings['timeout']:g} s it is still at {told['weight']}%, with {told['requests']} "
            f"requests ({max(needed, settings['min_requests'])} are needed if none fails) and {told['rows']} captured "
            f"rows (min_rows is {settings['min_rows']}) of {told['compared_requests']} requests in this step"
        )


def _read(
    step: _Step,
    last: dict[str, Any],
    gateway: Gateway,
    opened: Deployment,
    live: Deployment,
    instances: dict[int, Instance],
) -> dict[str, Any]:
    """Add what servers and gateway counted since the last look; return the counters as they are now."""
    counted = gateway.stats(opened.server)
    more: dict[str, Any] = {}
    for name, one in (("new", opened), ("old", live)):
        now = _figures(instances[one.seq].address)
        if now is not None:
            now["gateway_errors"] = counted[one.slot].errors
            more[name] = _since(last.get(name), now)
            last[name] = now
    step.add(more.get("new"), more.get("old"))
    return last


def _figures(address: str) -> dict[str, Any] | None:
    try:
        with ServerClient(address, timeout=5) as client:
            status, body, _ = client.call("/metrics")
    except CannotReachError:
        return None  # the gateway counts it as an error, if a request met it
    return measure.parse(body.decode()) if status == 200 else None


def _since(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any] | None:
    """Return what was counted since. Counters that went back began anew; the first look only sets the base."""
    if before is None:
        return None
    again = now["started"] != before["started"]
    base: dict[str, Any] = {"requests": 0, "buckets": []} if again else before
    errors = now["gateway_errors"] - before["gateway_errors"]
    return {
        "requests": now["requests"] - base["requests"],
        "errors": errors if errors >= 0 else now["gateway_errors"],
        "buckets": [b - a for a, b in zip(base["buckets"] or [0] * len(now["buckets"]), now["buckets"], strict=True)],
    }


def _compare(context: StepContext, step: _Step, opened: Deployment, copy: Callable[[], Path]) -> str | None:
    """Predict the rows that were captured since, and count the requests that differ; return why none could be.

    A request is one bet, whatever its number of rows: they were answered by one call.
    """
    until = step.seen.get("until")
    since = dt.datetime.fromtimestamp(float(opened.progress["began"]), dt.timezone.utc)
    rows = capture.read(context.store, opened.server, since=since, deployment=opened.seq)
    if rows is not None and until:
        rows = rows[rows["prediction_time"] > until]
    if rows is None or rows.empty:
        return None  # captured rows come a little later than the requests
    rows = rows.sort_values("prediction_time", kind="stable").tail(MAX_ROWS).reset_index(drop=True)
    requests = rows["prediction_request"]
    if not step.doubled and not step.agree(requests.nunique(), len(rows)):
        return None
    features = rows.drop(columns=[name for name in capture.COLUMNS if name in rows.columns])
    found = offline.run(copy(), rows=features)
    step.seen["looked"] = step.requests
    if found.get("error"):
        return f"its answers were not compared: {found['error']}"
    expected = capture.as_list(found["predictions"])
    wrong = offline.disagreeing(capture.as_list(rows["prediction"]), expected, float(step.settings["tolerance"]))
    bad = min(len(set(requests.iloc[[n for n in wrong if n < len(rows)]])), requests.nunique())
    step.seen["compared"] = [step.seen["compared"][0] + bad, step.seen["compared"][1] + int(requests.nunique())]
    step.seen["rows"] = [step.seen["rows"][0] + len(wrong), step.seen["rows"][1] + len(rows)]
    step.seen["until"] = rows["prediction_time"].max().isoformat()
    return None
