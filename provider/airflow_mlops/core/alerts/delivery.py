"""Telling of incidents: each event once to each notifier, at least once whatever dies, under a stable id.

Before a notifier is called its caller claims the event for it, for a time; after the call it says so:

``alerts/<about>/<topic>/told/<seq>/<notifier>/claim.<n>.json``
    who is telling, and until when nobody else may.
``alerts/<about>/<topic>/told/<seq>/<notifier>/told.json``
    that it was told.

A task that dies between the call and the record tells again when it is retried: the receiver knows the message by its
id. Of several events of one incident that nobody was told of, the last one says it all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.alerts.incidents import RESOLVED, Stream
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.store import safe_name
from airflow_mlops.core.vocabulary import SCHEMA, parse_duration, parse_instant, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Seconds that a claim holds; ``AIRFLOW_MLOPS_ALERT_CLAIM_SECONDS`` overrides it.
CLAIM_SECONDS = 600.0
CLAIM_VARIABLE = "AIRFLOW_MLOPS_ALERT_CLAIM_SECONDS"
#: Incidents of one topic that are looked through for what was not told.
LOOK_BACK = 5
DIGESTS = "alert_digests"


@dataclass
class Tally:
    """What a round of telling came to.

    :param told: ``{"notifier", "id"}`` of what went out.
    :param failed: notifier -> what it raised.
    :param busy: what another run is telling just now.
    """

    told: list[dict[str, str]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)


#: Called with a notifier's name and the event or digest; raises if it could not be told.
Send = Callable[[str, dict[str, Any]], None]


def event_id(event: dict[str, Any]) -> str:
    """Return the stable id of an event: ``churn/performance/3/7``, or ``digest/...``."""
    if event["kind"] == "digest":
        return str(event["id"])
    return f"{incident_id(event)}/{event['seq']}"


def incident_id(event: dict[str, Any]) -> str:
    """Return the stable id of an event's incident: ``churn/performance/3``."""
    return f"{event['about']}/{event['topic']}/{event['number']}"


def scope_of(context: StepContext) -> str:
    """Return whose digest it is: the task's; of a mapped task, each one's."""
    run = context.run
    parts = [str(run.get(key) or "-") for key in ("dag_id", "task_id")]
    return "/".join([*parts, str(run["map_index"])] if run.get("map_index", -1) >= 0 else parts)


def tell_alerts(
    context: StepContext,
    streams: Sequence[Stream],
    notifiers: Sequence[str],
    send: Send,
    *,
    mute_until: Any,
    tally: Tally,
) -> None:
    """Tell each notifier of each incident that is an alert what it was not told yet.

    :param mute_until: until when nothing is told, ISO 8601, or ``{topic: such}``. What happened meanwhile and is not
        over is told afterwards.
    """
    for stream in streams:
        if muted(mute_until, stream.topic):
            continue
        for notifier in notifiers:
            for event in _untold(stream, notifier):
                _tell(context, f"{stream.folder}/told/{event['seq']:08d}", notifier, event, send, tally)


def muted(mute_until: Any, topic: str | None = None) -> bool:
    """Return whether a topic, or everything, is muted now.

    :raises SpecError: for what is no instant.
    """
    value = (mute_until.get(topic) if topic else None) if isinstance(mute_until, dict) else mute_until
    return bool(value) and parse_instant(value) > parse_instant(utc_now())


def _untold(stream: Stream, notifier: str) -> Iterator[dict[str, Any]]:
    """Yield the last event of each incident, if the notifier was not told of it."""
    incidents: dict[int, list[dict[str, Any]]] = {}
    for event in stream.events():
        incidents.setdefault(event["number"], []).append(event)
    for events in list(incidents.values())[-LOOK_BACK:]:
        relevant = [event for event in events if event["channel"] == "alert"]
        if not relevant:
            continue
        told = [one for one in relevant if stream.store.exists(_told_key(stream, one, notifier))]
        newest = relevant[-1]
        # That something is over is of use only to whom it was told that it began.
        if newest not in told and (told or newest["event"] != RESOLVED):
            yield newest


def _told_key(stream: Stream, event: dict[str, Any], notifier: str) -> str:
    return f"{stream.folder}/told/{event['seq']:08d}/{safe_name(notifier)}/told.json"


def make_digest(
    context: StepContext, streams: Sequence[Stream], scope: str, *, every: str | None, mute_until: Any
) -> None:
    """Put what is for the digest into the next one, if it is time for one.

    :param scope: whose digest it is: the task's.
    :param every: no sooner than so long after the last one, ``7d``.
    """
    if muted(mute_until):
        return
    folder = f"{DIGESTS}/{safe_name(scope)}"
    keys = [key for key in context.store.keys(folder) if key.endswith("/digest.json")]
    last: dict[str, Any] = context.store.get_json(keys[-1]) if keys else {"seq": 0, "upto": {}, "at": None}
    if last["at"] and parse_instant(utc_now()) < parse_instant(last["at"]) + parse_duration(every or "0s"):
        return
    upto, items = dict(last["upto"]), []
    for stream in streams:
        if muted(mute_until, stream.topic):
            continue
        new = [one for one in stream.events() if one["seq"] > upto.get(stream.folder, 0)]
        new = [one for one in new if one["channel"] == "digest"]
        if new:
            upto[stream.folder] = new[-1]["seq"]
            items += list({one["number"]: one for one in new}.values())
    if not items:
        return
    seq = last["seq"] + 1
    digest = {
        "schema": SCHEMA,
        "kind": "digest",
        "seq": seq,
        "id": f"digest/{scope}/{seq}",
        "at": utc_now(),
        "upto": upto,
        "items": items,
    }
    # Where two runs make one at once, what only the other one knew of waits for the next.
    context.store.put_json(f"{folder}/{seq:08d}/digest.json", digest, if_absent=True)
    crash_point("alert.digest_made")


def tell_digests(
    context: StepContext, scope: str, notifiers: Sequence[str], send: Send, *, mute_until: Any, tally: Tally
) -> None:
    """Tell each notifier the last digests that it was not told yet."""
    if muted(mute_until):
        return
    folder = f"{DIGESTS}/{safe_name(scope)}"
    keys = [key for key in context.store.keys(folder) if key.endswith("/digest.json")]
    for key in keys[-LOOK_BACK:]:
        place = key.removesuffix("/digest.json")
        for notifier in notifiers:
            if not context.store.exists(f"{place}/{safe_name(notifier)}/told.json"):
                _tell(context, place, notifier, context.store.get_json(key), send, tally)


def _tell(context: StepContext, place: str, notifier: str, event: dict[str, Any], send: Send, tally: Tally) -> None:
    folder, known = f"{place}/{safe_name(notifier)}", event_id(event)
    if not _claim(context, folder):
        context.log.info("%s is being told to %s by another run", known, notifier)
        tally.busy.append(known)
        return
    if context.store.exists(f"{folder}/told.json"):
        return
    crash_point("alert.claimed")
    try:
        send(notifier, event)
    except Exception as error:
        context.log.exception("%s could not tell of %s", notifier, known)
        tally.failed[notifier] = str(error) or type(error).__name__
        _release(context, folder)
        return
    crash_point("alert.sent")
    context.store.put_json(
        f"{folder}/told.json", {"schema": SCHEMA, "id": known, "at": utc_now(), "key": context.key}, if_absent=True
    )
    crash_point("alert.told")
    tally.told.append({"notifier": notifier, "id": known})


def _claim(context: StepContext, folder: str) -> bool:
    """Return whether we may call the notifier: nobody else is at it, or whoever was has gone."""
    while True:
        claims = [key for key in context.store.keys(folder) if "/claim." in key]
        if claims:
            held = context.store.get_json(claims[-1])
            # Of one task instance one try lives at a time.
            if context.key and held["key"] == context.key:
                return True
            if held["until"] > time.time():
                return False
        seconds = float(os.environ.get(CLAIM_VARIABLE) or CLAIM_SECONDS)
        claim = {"schema": SCHEMA, "key": context.key, "at": utc_now(), "until": time.time() + seconds}
        number = int(claims[-1].rpartition("/")[2].split(".")[1]) + 1 if claims else 1
        if context.store.put_json(f"{folder}/claim.{number:05d}.json", claim, if_absent=True):
            return True


def _release(context: StepContext, folder: str) -> None:
    """Let whoever comes next try."""
    claims = [key for key in context.store.keys(folder) if "/claim." in key]
    held = context.store.get_json(claims[-1])
    if held["key"] == context.key:
        context.store.put_json(claims[-1], {**held, "until": 0})
