"""A subject's own past windows, as profiles with their verdicts: ``drift/<subject>/<window>.json``."""

from __future__ import annotations

from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.drift.profile import Profile
from airflow_mlops.core.errors import NotFoundError
from airflow_mlops.core.store import Store, safe_name
from airflow_mlops.core.vocabulary import parse_instant

FOLDER = "drift"
#: Windows of a subject that are kept, more than any season has.
KEPT = 120


def remember(store: Store, subject: str, window: dict[str, Any], profile: Profile, *, accepted: bool) -> None:
    """Keep a window; one that is judged again is replaced."""
    stamp = parse_instant(window["start"]).strftime("%Y%m%dT%H%M%S")
    mark = digests.hex_of(digests.of_json([window["start"], window["end"]]))[:8]
    folder = f"{FOLDER}/{safe_name(subject)}"
    value = {"schema": 1, "window": window, "accepted": accepted, "profile": profile.to_dict()}
    store.put_json(f"{folder}/{stamp}-{mark}.json", value)
    for key in sorted(store.keys(folder))[:-KEPT]:
        store.delete(key)


def accepted(store: Store, subject: str, *, before: str, last: int) -> list[Profile]:
    """Return the profiles of the last windows that were accepted and ended by an instant, the oldest first.

    :param before: ISO 8601.
    """
    found: list[Profile] = []
    limit = parse_instant(before)
    for key in sorted(store.keys(f"{FOLDER}/{safe_name(subject)}"), reverse=True):
        try:
            value = store.get_json(key)
        except NotFoundError:
            continue
        if value["accepted"] and parse_instant(value["window"]["end"]) <= limit:
            found.append(Profile.from_dict(value["profile"], f"the window {key}"))
            if len(found) == last:
                break
    return found[::-1]
