"""Records of erasures: which object took the place of which.

Erasing rows changes the digest of the data, and ledger, records and refs in XCom go on naming the old one. For each
object that was rewritten ``erasures/<hex>.json`` says what stands in its place, so that they still resolve.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import NotFoundError, SpecError
from airflow_mlops.core.store import Store

FOLDER = "erasures"
_log = logging.getLogger("airflow_mlops")


@dataclass(frozen=True)
class Erasure:
    """What happened to one object.

    :param new: digest of what stands in its place.
    :param rows_removed: over all erasures that led from the old object to the new one.
    :param at: when, the last time.
    """

    old: str
    new: str
    rows_removed: int
    rows: int | None
    at: str

    def __str__(self) -> str:
        rows = f"{self.rows_removed} row{'s' * (self.rows_removed != 1)}"
        verb = "were" if self.rows_removed != 1 else "was"
        return f"{rows} {verb} erased from it on {self.at[:10]}; {self.new} stands in its place"


def record_key(digest: str) -> str:
    """Return the store key of the record of what took an object's place."""
    return f"{FOLDER}/{digests.hex_of(digest)}.json"


def record(store: Store, digest: str) -> dict[str, Any] | None:
    """Return the record of one erasure, or None if there was none."""
    try:
        found: dict[str, Any] = store.get_json(record_key(digest))
    except (NotFoundError, SpecError):
        return None
    return found


def successor(store: Store, digest: str) -> Erasure | None:
    """Return what stands in the place of an object now, or None if nothing was erased from it."""
    found, removed, seen = None, 0, {digest}
    step = record(store, digest)
    while step is not None and step["new"] not in seen:
        removed += int(step["rows_removed"])
        found = Erasure(digest, step["new"], removed, step.get("rows"), step["at"])
        seen.add(step["new"])
        step = record(store, step["new"])
    return found


def refuse(store: Store, digest: str) -> None:
    """Refuse to publish content that somebody's rows were erased from.

    :raises SpecError: if it was: the source still has the rows.
    """
    found = record(store, digest)
    if found is not None:
        raise SpecError(
            f"this is the data of digest {digest} again, from which {found['rows_removed']} rows were erased on "
            f"{found['at'][:10]} ({found.get('reason') or 'no reason given'}): the source still has them. Erase them "
            "there first, and take the snapshot again",
            digest=digest,
        )


def log_note(erasure: Erasure, what: str) -> None:
    """Say in the log that something is read from what took its place."""
    _log.warning("%s: %s", what, erasure)
