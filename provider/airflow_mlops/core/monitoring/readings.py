"""Readings of a service's counters, kept in the store; the difference between two of them is a window.

``service/<name>/readings/<boundary>.json`` is what was read at the end of a window, made once: a retry, or a task that
is cleared, finds it. ``service/<name>/windows/<start>-<end>.json`` is what lies between two readings, made once as
well, so that readings may go. Counters only grow but for a restart, from which on they begin at zero: what was counted
since stands for the window then, and what came between the last reading and the restart is lost.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.store import Store, safe_name
from airflow_mlops.core.vocabulary import SCHEMA, parse_instant, utc_now

FOLDER = "service"
#: Readings that stay, the latest ones.
KEEP = 200
#: Seconds for which a window's end may be read late, at least; else it is the window's own length.
GRACE_SECONDS = 300.0
#: Seconds by which two moments of one start may differ, as it is told to the second.
SAME_START = 2.5


@dataclass(frozen=True)
class Readings:
    """The readings of one service.

    :param name: what is read.
    """

    store: Store
    name: str

    @property
    def folder(self) -> str:
        """Where they are."""
        return f"{FOLDER}/{safe_name(self.name)}"

    def keys(self) -> list[str]:
        """Return the keys of the readings, the oldest first."""
        return sorted(self.store.keys(f"{self.folder}/readings"))

    def before(self, boundary: str) -> dict[str, Any] | None:
        """Return the latest reading at or before an instant."""
        limit = _compact(boundary)
        keys = [key for key in self.keys() if _named(key) <= limit]
        return self.store.find_json(keys[-1]) if keys else None

    def at(self, window: dict[str, str], collect: Callable[[], dict[str, Any]], key: str) -> dict[str, Any] | None:
        """Return the reading at a window's end, taken now if it is time; None if nobody has taken it then."""
        place = self._key(window["end"])
        if (found := self.store.find_json(place)) is not None:
            return found
        start, end = parse_instant(window["start"]), parse_instant(window["end"])
        late = dt.datetime.now(dt.timezone.utc) - end
        if late.total_seconds() >= max((end - start).total_seconds(), GRACE_SECONDS):
            return None
        return self.take(window["end"], collect, key)

    def previous(self, boundary: str) -> dict[str, Any] | None:
        """Return the latest reading before an instant."""
        limit = _compact(boundary)
        keys = [key for key in self.keys() if _named(key) < limit]
        return self.store.find_json(keys[-1]) if keys else None

    def now(self, collect: Callable[[], dict[str, Any]], key: str) -> dict[str, Any]:
        """Return this task's own reading, taken now unless an earlier try took it."""
        keys = self.keys()
        last = self.store.find_json(keys[-1]) if keys else None
        if last is not None and key and last["key"] == key:
            return last
        return self.take(utc_now(), collect, key)

    def take(self, boundary: str, collect: Callable[[], dict[str, Any]], key: str) -> dict[str, Any]:
        """Read, keep, and return what is kept."""
        found = {"at": time.time(), **collect()}
        reading = {"schema": SCHEMA, "kind": "service_reading", "boundary": boundary, "key": key, **found}
        self.store.put_json(self._key(boundary), reading, if_absent=True)
        crash_point("service.read")
        kept: dict[str, Any] = self.store.get_json(self._key(boundary))
        return kept

    def measured(self, window: dict[str, str]) -> dict[str, Any] | None:
        """Return what is on record of a window."""
        return self.store.find_json(self._window(window))

    def keep(self, window: dict[str, str], value: dict[str, Any]) -> dict[str, Any]:
        """Put a window on record, and let go of the oldest readings."""
        self.store.put_json(self._window(window), value, if_absent=True)
        crash_point("service.measured")
        for key in self.keys()[:-KEEP]:
            self.store.delete(key)
        kept: dict[str, Any] = self.store.get_json(self._window(window))
        return kept

    def _key(self, boundary: str) -> str:
        return f"{self.folder}/readings/{_compact(boundary)}.json"

    def _window(self, window: dict[str, str]) -> str:
        return f"{self.folder}/windows/{_compact(window['start'])}-{_compact(window['end'])}.json"


def between(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return what was counted between two readings.

    :return: ``since``, ``until`` (when they were taken), ``seconds``, ``all`` (of the gateway, or of all servers where
        there is none), ``servers``, and what is wrong with it: ``restarted``, ``unseen`` (servers that could not be
        read), ``gone`` (servers that ended; what they counted after the first reading is lost).
    """
    known = {one["name"]: one for one in before["sources"]}
    found = [
        counted
        for one in after["sources"]
        if (counted := _counted(known.get(one["name"]), one, float(before["at"]))) is not None
    ]
    servers = [one for one in found if one["role"] == "server"]
    names = {one["name"] for one in after["sources"]}
    unseen = [one["name"] for one in after.get("missing") or []]
    unseen += [one["name"] for one in after["sources"] if one["name"] not in {same["name"] for same in found}]
    gateway = next((one for one in found if one["role"] == "gateway"), None)
    total = gateway or _sum(servers)
    return {
        "schema": SCHEMA,
        "kind": "service_window",
        "since": _instant(before["at"]),
        "until": _instant(after["at"]),
        "from_boundary": before["boundary"],
        "seconds": float(after["at"]) - float(before["at"]),
        "all": {**total, "buckets": merged([one["buckets"] for one in servers if one["buckets"]])},
        "servers": servers,
        "restarted": [one["name"] for one in found if one["restarted"]],
        "unseen": unseen,
        "gone": [name for name in known if name not in names],
    }


def _counted(before: dict[str, Any] | None, after: dict[str, Any], at: float) -> dict[str, Any] | None:
    """Return one source's difference; None if it was there before and nobody read it then."""
    started = after.get("started")
    again = False
    if before is None:
        if started is None or started < at - SAME_START:
            return None
    else:
        told = started is not None and before.get("started") is not None
        again = bool(told and abs(started - before["started"]) > SAME_START) or after["requests"] < before["requests"]
    base = {} if before is None or again else before
    errors = None if after["errors"] is None else after["errors"] - (base.get("errors") or 0)
    return {
        **{key: after.get(key) for key in ("name", "role", "model", "version", "deployment")},
        "requests": after["requests"] - base.get("requests", 0),
        "errors": errors if errors is None or errors >= 0 else after["errors"],
        "buckets": _bucket_difference(base.get("buckets"), after.get("buckets")),
        "restarted": again,
    }


def _bucket_difference(before: Any, after: Any) -> list[list[Any]] | None:
    """Return ``[[lower end, upper end or None, requests], ...]``; of other buckets than before, those of now."""
    if after is None:
        return None
    earlier = dict(before or [])
    same = earlier.keys() == {end for end, _ in after}
    found: list[list[Any]] = []
    low, below = 0.0, 0
    for end, count in after:
        total = count - (earlier[end] if same else 0)
        found.append([low, end, max(total - below, 0)])
        low, below = end, total
    return found


def _sum(servers: list[dict[str, Any]]) -> dict[str, Any]:
    errors = [one["errors"] for one in servers]
    return {
        "requests": sum(one["requests"] for one in servers),
        "errors": None if not errors or None in errors else sum(errors),
        "restarted": any(one["restarted"] for one in servers),
    }


def merged(several: list[list[list[Any]]]) -> list[list[Any]] | None:
    """Return several servers' buckets as one, by the ends that all of them have."""
    if not several:
        return None
    common = set.intersection(*({end for _, end, _ in one} for one in several))
    counts: dict[Any, int] = {}
    for one in several:
        below = 0
        for _, end, count in one:
            below += count
            if end in common:
                counts[end] = counts.get(end, 0) + below
    found: list[list[Any]] = []
    low, before = 0.0, 0
    for end in sorted(counts, key=lambda one: math.inf if one is None else one):
        found.append([low, end, counts[end] - before])
        low, before = end, counts[end]
    return found


def quantile(buckets: list[list[Any]] | None, share: float) -> float | None:
    """Return a quantile in seconds as Prometheus' ``histogram_quantile`` does: evenly spread within its bucket; beyond
    the last end, that end. None without requests.
    """
    total = sum(count for _, _, count in buckets or [])
    below = 0
    for low, end, count in buckets or []:
        if total and count and below + count >= share * total:
            return float(low if end is None else low + (end - low) * (share * total - below) / count)
        below += count
    return None


def slower(buckets: list[list[Any]] | None, seconds: float) -> int:
    """Return how many requests surely took longer: those of the buckets that begin at or beyond it."""
    return sum(count for low, _, count in buckets or [] if low >= seconds)


def _named(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")


def _compact(instant: str) -> str:
    return parse_instant(instant).astimezone(dt.timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")


def _instant(at: float) -> str:
    return dt.datetime.fromtimestamp(float(at), dt.timezone.utc).isoformat()
