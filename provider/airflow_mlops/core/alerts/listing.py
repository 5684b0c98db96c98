"""Incidents for people to read. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core.alerts.delivery import incident_id
from airflow_mlops.core.alerts.incidents import Stream, current, streams
from airflow_mlops.core.alerts.message import subject_of
from airflow_mlops.core.errors import NotFoundError, did_you_mean

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext


def open_incidents(context: StepContext, name: str | None = None) -> list[dict[str, Any]]:
    """Return what is open, the worst first: ``about``, ``topic``, ``severity``, ``since``, ``summary``, ``incident``.

    :param name: only about this thing, or this model and its aliases.
    """
    found = []
    for stream in streams(context.store, name):
        if incident := current(stream.events()):
            latest = incident[-1]
            found.append(
                {
                    "about": stream.about,
                    "topic": stream.topic,
                    "severity": latest["worst"],
                    "since": str(latest["since"])[:19],
                    "summary": latest["summary"],
                    "incident": incident_id(latest),
                }
            )
    return sorted(found, key=lambda one: (one["severity"] != "error", one["since"]))


def incident_history(context: StepContext, name: str) -> list[dict[str, Any]]:
    """Return one row for each event about a thing, in the order in which they were made; with who was told.

    :raises NotFoundError: if there never was an incident about it.
    """
    known = list(streams(context.store, name))
    if not known:
        others = sorted({stream.about for stream in streams(context.store)})
        raise NotFoundError(
            f"no incident about {name!r} is on record in {context.store.uri}{did_you_mean(name, others)}"
        )
    rows = [row for stream in known for row in _rows(stream)]
    return sorted(rows, key=lambda row: (row["at"], row["incident"], row["seq"]))


def _rows(stream: Stream) -> list[dict[str, Any]]:
    told: dict[int, list[str]] = {}
    for key in stream.store.keys(f"{stream.folder}/told"):
        if key.endswith("/told.json"):
            told.setdefault(int(key.split("/")[-3]), []).append(key.split("/")[-2])
    return [
        {
            "incident": incident_id(event),
            "at": str(event["at"])[:19],
            "event": event["event"],
            "severity": event["worst"],
            "channel": event["channel"],
            "since": str(event["since"])[:19],
            "windows": event["bad_windows"],
            "what": subject_of(event),
            "summary": event["summary"],
            "told": ", ".join(told.get(event["seq"], [])) or None,
            "seq": event["seq"],
            "names": event["names"],
            "window": event["window"],
            "owner": event["owner"],
            "reports": event["reports"],
            "run": event["run"],
        }
        for event in stream.events()
    ]
