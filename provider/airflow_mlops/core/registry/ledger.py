"""The ledger of a registered model: numbered, append-only entries in the store.

Entry *n* is up to three objects, each made once and by conditional create, so that of any number of writers exactly
one makes it:

``n.intent.json``
    who wants to do what, until when they hold the number. *n* is made only when *n - 1* has its outcome.
``n.move.json``
    the right to touch the alias: ``claimed`` by the one who made the intent, or ``fenced`` by one who found its lease
    run out. Who is fenced never moves the alias.
``n.outcome.json``
    ``done``, or ``void`` with the reason.

What each object means for an alias is in :mod:`.moves`.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import ConflictError, IntegrityError
from airflow_mlops.core.store import Store, safe_name
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.vocabulary import SCHEMA, LedgerEntry, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.registry.versions import RegisteredModel

#: Seconds that an intent holds its number; ``AIRFLOW_MLOPS_LEASE_SECONDS`` overrides it.
LEASE_SECONDS = 60.0
LEASE_VARIABLE = "AIRFLOW_MLOPS_LEASE_SECONDS"
#: The tag of the registered model that names its ledger.
BINDING_TAG = "mlops.ledger"


def lease_seconds() -> float:
    """Return how long an intent holds its number."""
    return float(os.environ.get(LEASE_VARIABLE) or LEASE_SECONDS)


@dataclass(frozen=True)
class Entry:
    """One number of the ledger.

    :param outcome: None while the number is open.
    """

    seq: int
    intent: dict[str, Any]
    outcome: dict[str, Any] | None = None

    @property
    def state(self) -> str:
        """``open``, ``done`` or ``void``."""
        return str(self.outcome["state"]) if self.outcome else "open"

    @property
    def done(self) -> bool:
        """Whether the change took place."""
        return self.state == "done"

    @property
    def alias(self) -> str:
        """The alias that the entry is about."""
        return str(self.intent["alias"])

    @property
    def version(self) -> int | None:
        """The version that the alias points at afterwards; None where it is removed."""
        version: int | None = self.intent["version"]
        return version

    @property
    def previous(self) -> int | None:
        """The version that the alias pointed at before."""
        previous: int | None = self.intent["previous_version"]
        return previous

    @property
    def key(self) -> str:
        """The task instance that made the intent; empty if none did."""
        return str(self.intent.get("key") or "")

    def is_by(self, key: str) -> bool:
        """Return whether that task instance made the intent."""
        return bool(key) and self.key == key

    def to_ledger_entry(self) -> LedgerEntry:
        """Return the entry as the vocabulary has it."""
        at = (self.outcome or self.intent)["at"]
        archived = (self.intent.get("archived") or {}).get("versions")
        whole = {**self.intent, "kind": LedgerEntry.kind, "seq": self.seq, "at": at, "archived": archived}
        return LedgerEntry.from_dict(whole)

    def __str__(self) -> str:
        if self.intent.get("archived"):
            numbers = ", ".join(map(str, self.intent["archived"]["versions"]))
            return f"entry {self.seq} (archival of {numbers} by {self.intent.get('by') or self.key or 'somebody'})"
        who = self.intent.get("by") or self.key or "somebody"
        to = f"version {self.version}" if self.version is not None else "nothing"
        return f"entry {self.seq} ({self.intent['action']} of {self.alias!r} to {to} by {who})"


class Ledger:
    """The objects of one model's ledger.

    :param store: the store that holds them.
    :param model: name of the registered model.
    """

    def __init__(self, store: Store, model: str) -> None:
        self.store = store
        self.model = model
        self.folder = f"ledger/{safe_name(model)}"
        self._settled: dict[int, Entry] = {}

    def entries(self) -> list[Entry]:
        """Return all entries, by number; only the last can be open.

        :raises IntegrityError: if a number is missing or two are open.
        """
        present: dict[int, set[str]] = {}
        for key in self.store.keys(self.folder):
            match = re.fullmatch(r"(\d{8})\.(intent|move|outcome)\.json", key.rpartition("/")[2])
            if match:
                present.setdefault(int(match[1]), set()).add(match[2])
        found = []
        for seq in range(1, max(present, default=0) + 1):
            kinds = present.get(seq, set())
            if "intent" not in kinds or ("outcome" not in kinds and seq != max(present)):
                raise IntegrityError(
                    f"the ledger of {self.model!r} at {self.store.uri_of(self.folder)} lacks a part of entry {seq}: "
                    "objects were removed by hand; restore them from a backup of the store",
                    model=self.model,
                    seq=seq,
                )
            if seq not in self._settled:
                entry = self.read(seq)
                if entry.outcome is None:
                    found.append(entry)
                    continue
                self._settled[seq] = entry
            found.append(self._settled[seq])
        return found

    def read(self, seq: int) -> Entry:
        """Return one entry as it stands now."""
        # The outcome first: an entry that is read as open may be done by now, never the other way round.
        outcome = self.store.find_json(self._key(seq, "outcome"))
        return Entry(seq=seq, intent=self.store.get_json(self._key(seq, "intent")), outcome=outcome)

    def begin(self, seq: int, intent: dict[str, Any]) -> bool:
        """Create the intent of a number; return whether it is ours."""
        lease = lease_seconds()
        whole = {
            "schema": SCHEMA,
            "seq": seq,
            "model": self.model,
            **intent,
            "at": utc_now(),
            "lease_seconds": lease,
            "lease_until": time.time() + lease,
        }
        return self.store.put_json(self._key(seq, "intent"), whole, if_absent=True)

    def claim(self, seq: int) -> bool:
        """Take the right to move the alias for the one who made the intent; False if it was fenced.

        It is no error to claim again: the retry of a task goes on where the task stopped.
        """
        return self._move(seq, "claimed")

    def fence(self, seq: int) -> bool:
        """Take the right to move the alias away from the one who made the intent; False if it was claimed."""
        return self._move(seq, "fenced")

    def _move(self, seq: int, state: str) -> bool:
        self.store.put_json(self._key(seq, "move"), {"schema": SCHEMA, "state": state, "at": utc_now()}, if_absent=True)
        return bool(self.store.get_json(self._key(seq, "move"))["state"] == state)

    def finish(self, seq: int, state: str, reason: str | None = None, settled_by: str | None = None) -> bool:
        """Create the outcome of a number; return whether it is ours.

        :param state: ``done`` or ``void``.
        :param reason: why it is void.
        :param settled_by: who finished it, if that is not the one who began it.
        """
        outcome = {"schema": SCHEMA, "state": state, "reason": reason, "settled_by": settled_by, "at": utc_now()}
        return self.store.put_json(self._key(seq, "outcome"), outcome, if_absent=True)

    def _key(self, seq: int, kind: str) -> str:
        return f"{self.folder}/{seq:08d}.{kind}.json"

    def binding(self) -> dict[str, Any] | None:
        """Return ``{"id", "model", "registry"}``, or None for a ledger that was never used."""
        return self.store.find_json(f"{self.folder}/binding.json")

    def bind(self, registered: RegisteredModel, *, begin: bool = True) -> None:
        """Tie the ledger and the registered model to each other on first use, and check that they are ever after.

        :param begin: False only checks.
        :raises ConflictError: if the store holds the ledger of another registry, or the registered model has its
            ledger in another store.
        """
        theirs = registered.tags().get(BINDING_TAG)
        ours = self.binding()
        where = strip_credentials(registered.uri or "MLflow")
        if ours is None and theirs is None and not begin:
            return
        if ours is None and theirs is None:
            fresh = {"id": uuid.uuid4().hex, "model": self.model, "registry": where, "at": utc_now()}
            self.store.put_json(f"{self.folder}/binding.json", fresh, if_absent=True)
            ours = self.binding()
        if ours is not None and theirs is None:
            if not self._in_use():
                registered.tag(BINDING_TAG, ours["id"])
            # In use by now: whoever began it meanwhile has set the tag before anything else.
            theirs = registered.tags().get(BINDING_TAG)
        if ours is not None and theirs == ours["id"]:
            return
        if ours is None:
            raise ConflictError(
                f"the registered model {self.model!r} at {where} has its ledger in another store; this one, "
                f"{self.store.uri}, knows nothing of it. Use the store that it was registered with",
                model=self.model,
            )
        raise ConflictError(
            f"the store {self.store.uri} belongs to another registry: its ledger of {self.model!r} was begun with "
            f"{ours['registry']} (id {ours['id']}), and the registered model at {where} carries "
            f"{theirs or 'no id'}. Use the store and the registry that belong together, or another model name; if "
            f"they do belong together, set the tag {BINDING_TAG!r} of the registered model to that id",
            model=self.model,
        )

    def _in_use(self) -> bool:
        """Return whether anything but the binding is on record: then a missing tag is no first use cut short."""
        records = (
            key for prefix in (self.folder, f"versions/{safe_name(self.model)}") for key in self.store.keys(prefix)
        )
        return any(not key.endswith("/binding.json") for key in records)


def last_done(entries: list[Entry], alias: str) -> Entry | None:
    """Return the last entry that took place for an alias, or None."""
    return next((entry for entry in reversed(entries) if entry.done and entry.alias == alias), None)


def rollback_targets(entries: list[Entry], keep: int | None) -> set[int]:
    """Return the versions that an alias has or can be rolled back to: its last ``keep`` besides the present one."""
    needed: set[int] = set()
    for alias in {entry.alias for entry in entries}:
        order: list[int] = []
        for entry in (entry for entry in entries if entry.alias == alias):
            for version in (entry.previous, entry.version):
                if version is not None:
                    order = [one for one in order if one != version] + [version]
        needed.update(order if keep is None else order[-(keep + 1) :])
    return needed
