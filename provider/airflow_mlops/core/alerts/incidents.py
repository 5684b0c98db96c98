"""Incidents in the store: what each window was like, and what became of it.

One stream is one topic (``performance``) about one thing (``churn``). Under ``alerts/<about>/<topic>/`` it has

``windows/<end>_<start>.json``
    the verdict on a window; judging a window anew replaces it, so a window counts once.
``events/<seq>.json``
    ``opened``, ``updated`` or ``resolved``, numbered from 1 and made by conditional create: of two runs that see the
    same, one makes the event, and the retry of a task finds it made.

The next event follows from the windows in their order and the events so far, never from who asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.alerts.rules import MAX_NAMES, RANK, channel_of
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.store import Store, safe_name
from airflow_mlops.core.vocabulary import SCHEMA, parse_instant, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.alerts.rules import Channel
    from airflow_mlops.core.steps import StepContext

FOLDER = "alerts"
OPENED, UPDATED, RESOLVED = "opened", "updated", "resolved"
#: Events that are read: many more than an incident has, as each must bring something worse.
MAX_EVENTS = 200


@dataclass(frozen=True)
class Stream:
    """The windows and events of one topic about one thing."""

    store: Store
    about: str
    topic: str

    @property
    def folder(self) -> str:
        """Where they are."""
        return f"{FOLDER}/{safe_name(self.about)}/{safe_name(self.topic)}"

    def observe(self, place: str, verdict: dict[str, Any]) -> None:
        """Record the verdict on a window, in place of an earlier one on the same."""
        self.store.put_json(f"{self.folder}/windows/{place}.json", {"schema": SCHEMA, **verdict})

    def windows(self, last: int | None = None, since: str = "") -> list[dict[str, Any]]:
        """Return the verdicts in the order of the windows, each with its ``place``.

        :param last: only so many of the newest.
        :param since: only from this place on.
        """
        folder = f"{self.folder}/windows"
        places = [key.rpartition("/")[2].removesuffix(".json") for key in self.store.keys(folder)]
        places = [place for place in places if place >= since]
        return [
            {**self.store.get_json(f"{folder}/{place}.json"), "place": place}
            for place in (places if last is None else places[-last:])
        ]

    def events(self) -> list[dict[str, Any]]:
        """Return the last events, the oldest first."""
        return [self.store.get_json(key) for key in list(self.store.keys(f"{self.folder}/events"))[-MAX_EVENTS:]]

    def append(self, event: dict[str, Any]) -> bool:
        """Create an event under its number; False if another one has it."""
        whole = {"schema": SCHEMA, "kind": "incident", "about": self.about, "topic": self.topic, **event}
        return self.store.put_json(f"{self.folder}/events/{event['seq']:08d}.json", whole, if_absent=True)


def place_of(window: dict[str, Any] | None, moment: str, run_id: str) -> str:
    """Return the name of a window, which sorts by its end; a verdict without a window stands at the run's moment."""
    if window:
        return f"{_stamp(window['end'])}_{_stamp(window['start'])}"
    return f"{_stamp(moment)}_{safe_name(run_id or '-')}"


def _stamp(instant: str) -> str:
    moment = parse_instant(instant)
    utc = moment - (moment.utcoffset() or moment - moment)
    return re.sub(r"[^0-9T]", "", utc.isoformat(timespec="microseconds")[:26])


def current(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of the incident that is open; none if none is."""
    if not events or events[-1]["event"] == RESOLVED:
        return []
    return [one for one in events if one["number"] == events[-1]["number"]]


def settle(
    context: StepContext,
    stream: Stream,
    *,
    rule: tuple[int, int],
    channels: dict[str, Channel] | None,
    facts: dict[str, Any],
) -> dict[str, Any] | None:
    """Make the event that the windows ask for, if it is not made yet, and return it.

    :param rule: k of n.
    :param facts: of the task: ``owner``, ``run``, kept with the event.
    """
    while True:
        events = stream.events()
        event = next_event(stream, events, rule=rule, channels=channels)
        if event is None:
            return None
        event = {**event, **facts, "at": utc_now(), "seq": (events[-1]["seq"] if events else 0) + 1}
        if stream.append(event):
            crash_point("alert.recorded")
            context.log.info("%s: incident %s about %s", event["event"], event["number"], stream.about)
            return {"schema": SCHEMA, "kind": "incident", "about": stream.about, "topic": stream.topic, **event}
        # Another run was faster; look again at what is left to be said.


def next_event(
    stream: Stream, events: list[dict[str, Any]], *, rule: tuple[int, int], channels: dict[str, Channel] | None
) -> dict[str, Any] | None:
    """Return what is to be said now, or None if all is said."""
    k, n = rule
    incident = current(events)
    if not incident:
        # A window that counted for an incident that is over does not count again, unless it was judged anew.
        after = events[-1]["place"] if events else ""
        seen = stream.windows(last=n, since=after)
        bad = [one for one in seen if one["severity"] != "ok"]
        if not seen or seen[-1]["severity"] == "ok" or len(bad) < k:
            return None
        return _event(OPENED, (events[-1]["number"] if events else 0) + 1, bad, seen[-1], channels, stream.topic)
    seen = stream.windows(since=incident[0]["first_place"])
    if len(seen) >= k and all(one["severity"] == "ok" for one in seen[-k:]):
        bad = [one for one in seen if one["severity"] != "ok"]
        last = incident[-1]
        return {
            **_event(RESOLVED, last["number"], bad or [seen[-1]], seen[-1], channels, stream.topic),
            **{key: last[key] for key in ("since", "first_place", "worst", "names")},
            "bad_windows": len(bad),
            "channel": "alert" if any(one["channel"] == "alert" for one in incident) else "digest",
        }
    return _update(incident, seen, channels, stream.topic)


def _update(
    incident: list[dict[str, Any]], seen: list[dict[str, Any]], channels: dict[str, Channel] | None, topic: str
) -> dict[str, Any] | None:
    """Return an update if something is worse than what was told: an incident that merely goes on is no news."""
    latest = incident[-1]
    bad = [one for one in seen if one["severity"] != "ok"]
    if not bad or seen[-1]["severity"] == "ok":
        return None
    now = bad[-1]
    worse = RANK[now["severity"]] > RANK[latest["worst"]]
    fresh = [name for name in now["names"] if name not in latest["names"]]
    if not worse and not fresh:
        return None
    event = _event(UPDATED, latest["number"], bad, now, channels, topic)
    worst = max((latest["worst"], now["severity"]), key=RANK.__getitem__)
    names = list(dict.fromkeys([*now["names"], *latest["names"]]))
    return {**event, "since": latest["since"], "first_place": latest["first_place"], "worst": worst, "names": names}


def _event(
    kind: str,
    number: int,
    bad: list[dict[str, Any]],
    now: dict[str, Any],
    channels: dict[str, Channel] | None,
    topic: str,
) -> dict[str, Any]:
    worst = max((one["severity"] for one in bad), key=RANK.__getitem__)
    names = dict.fromkeys(name for one in reversed(bad) for name in one["names"])
    shown = bad[-1] if kind != RESOLVED else now
    return {
        "event": kind,
        "number": number,
        "severity": now["severity"],
        "worst": worst,
        "channel": channel_of(topic, worst, channels),
        "summary": shown["summary"],
        "names": list(names)[: 4 * MAX_NAMES],
        "since": (bad[0]["window"] or {}).get("start") or bad[0]["moment"],
        "first_place": bad[0]["place"],
        "window": now["window"],
        "place": now["place"],
        "bad_windows": len(bad),
        "reports": now["reports"],
    }


def streams(store: Store, about: str | None = None) -> Iterator[Stream]:
    """Yield the streams that have events, of all things or of those that a model's name covers."""
    seen = set()
    for key in store.keys(FOLDER):
        parts = key.split("/")
        if len(parts) != 5 or parts[3] != "events" or tuple(parts[1:3]) in seen:
            continue
        seen.add(tuple(parts[1:3]))
        event = store.find_json(key)
        if event and (about is None or covers(about, event["about"])):
            yield Stream(store, event["about"], event["topic"])


def covers(name: str, about: str) -> bool:
    """Return whether what is watched is the model of that name: the name itself, or one of its aliases."""
    return about == name or about.partition("@")[0] == name
