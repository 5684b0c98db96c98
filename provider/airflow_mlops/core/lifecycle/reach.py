"""The mark phase: what in a store is needed.

Starting from the roots (ledger, versions that a rollback can reach, what is young, and every document of a kind that
is never collected), whatever a kept document names is kept: an object by its URI, a content by its digest. So a new
kind of record (a policy's memory, a reference profile) keeps what it names without a word here, as long as it is JSON
outside the folders of :data:`COLLECTED` and :data:`NO_ROOTS`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.data.publishing import data_key
from airflow_mlops.core.errors import ConflictError, IntegrityError, NotFoundError
from airflow_mlops.core.lifecycle import erasures, lock, uses
from airflow_mlops.core.registry.anchor import needed_versions
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.registry.overview import models_with_ledger
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.store import ObjectStat, Store, safe_name
from airflow_mlops.core.training.rowkeys import FOLDER as ROWKEYS

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Which drift reference a version has, and the profiles that these name; see :mod:`airflow_mlops.core.drift.binding`.
REFERENCES, PROFILES = "references", "profiles"
#: First part of a key whose objects are ever collected; all others stay, and what they name.
COLLECTED = (
    "data",
    "datasets",
    "schemas",
    ROWKEYS,
    "reports",
    "training",
    "registrations",
    "versions",
    REFERENCES,
    PROFILES,
)
#: Records that stay, but keep what they name only while they are young or something kept names them.
WEAK = ("models", "alerts", "alert_digests")
#: What names objects without needing them.
NO_ROOTS = (lock.FOLDER, erasures.FOLDER, "approvals", "cards", "history", "retraining")
#: Never collected; what its entries name is followed entry by entry.
LEDGER = "ledger"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Limits:
    """How long things are kept that nothing needs.

    :param now: the present.
    :param grace: nothing that was written or used since then goes; longer than any run.
    :param retention: models that were never promoted keep their data, and gates their reports, for this long.
    :param keep_rollback: how many versions an alias can be rolled back to; None is all.
    """

    now: dt.datetime
    grace: dt.timedelta
    retention: dt.timedelta
    keep_rollback: int | None = None


@dataclass
class Inventory:
    """All objects of a store by key, as they were listed."""

    objects: dict[str, ObjectStat]
    limits: Limits
    parts: dict[str, list[str]] = field(default_factory=dict)
    reports: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.objects:
            self._file(key)

    def add(self, key: str, stat: ObjectStat) -> None:
        """Add an object that was not listed."""
        self.objects[key] = stat
        self._file(key)

    def _file(self, key: str) -> None:
        self.parts.setdefault(key.partition("/")[0], []).append(key)
        if key.startswith("reports/"):
            self.reports.setdefault(report_folder(key), []).append(key)

    def below(self, *parts: str) -> Iterator[str]:
        """Yield the keys whose first part is one of these, without marks of use."""
        for part in parts:
            yield from (key for key in self.parts.get(part, ()) if not key.endswith(uses.SUFFIX))

    def age(self, *keys: str) -> dt.timedelta:
        """Return the time since any of these, or its mark, was written."""
        stats = (self.objects.get(one) for key in keys for one in (key, uses.mark_key(key)))
        return self.limits.now - max(one.modified for one in stats if one)

    def young(self, *keys: str) -> bool:
        """Return whether the grace period of any of these is not over."""
        return self.age(*keys) < self.limits.grace

    def recent(self, *keys: str) -> bool:
        """Return whether any of these is younger than what is retained."""
        return self.age(*keys) < max(self.limits.retention, self.limits.grace)


def take_inventory(context: StepContext, limits: Limits) -> Inventory:
    """List the store."""
    return Inventory(dict(context.store.stats()), limits)


def report_folder(key: str) -> str:
    """Return the folder of the report that a key belongs to: ``reports/<dag>/<task>/<digest>``."""
    return "/".join(key.split("/")[:4])


def named_key(store: Store, uri: str) -> str | None:
    """Return the key of the object that a URI in a record names.

    A store that was moved, or that is mounted at another path, has records with the URIs that its objects had: these
    are known by their end.
    """
    if (key := store.key_of(uri)) is not None:
        return key
    if "://" not in uri:
        return None
    found = re.search(rf"/((?:{'|'.join(COLLECTED)})/[^?#]+)$", uri)
    return found[1] if found else None


@dataclass
class Reach:
    """What was reached, and what was found out on the way.

    :param keys: objects that stay.
    :param gone: version records whose version was deleted in MLflow.
    :param unneeded: versions in MLflow that no alias had and that are older than what is retained.
    :param notes: what a person should know.
    """

    keys: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    unneeded: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def mark(context: StepContext, inventory: Inventory) -> Reach:
    """Return what is needed.

    :raises CannotReachError: if MLflow does not answer: without it nobody knows which versions there are.
    """
    walk = _Walk(context, inventory)
    for key in inventory.below(*inventory.parts):
        part = key.partition("/")[0]
        if part in WEAK:
            wanted = inventory.recent(key)
        elif part in COLLECTED:
            wanted = part not in ("reports", "versions") and inventory.young(key)
        else:
            wanted = part not in (*NO_ROOTS, LEDGER)
        if wanted:
            walk.reach(key)
    for name in sorted({*models_with_ledger(context), *_names(context, inventory)}):
        _mark_versions(context, inventory, walk, name)
    walk.finish()
    _mark_reports(inventory, walk.found)
    _mark_records(context, inventory, walk.found)
    return walk.found


class _Walk:
    """Goes from document to document."""

    def __init__(self, context: StepContext, inventory: Inventory) -> None:
        self.context, self.inventory = context, inventory
        self.found = Reach()
        self._open: list[str] = []

    def reach(self, key: str) -> None:
        """Keep an object, and later what it names."""
        if key not in self.found.keys:
            self.found.keys.add(key)
            self._open.append(key)

    def finish(self) -> None:
        """Follow everything that is reached and not yet followed."""
        refs = _refs_by_content(self.inventory)
        while self._open:
            key = self._open.pop()
            part = key.partition("/")[0]
            if part == "data":
                # A kept content keeps its refs: without one nobody knows what its columns mean.
                for beside in (re.sub(r"\.parquet$", ".json", key), *refs.get(key, ())):
                    if beside in self.inventory.objects:
                        self.reach(beside)
            if key.endswith(".json") and key in self.inventory.objects and part != "data":
                for named in self._named(key):
                    self.reach(named)

    def _named(self, key: str) -> Iterator[str]:
        try:
            value = self.context.store.get_json(key)
        except (NotFoundError, IntegrityError):
            return
        for text in _texts(value):
            if _DIGEST.fullmatch(text):
                yield from self._content(text)
            elif (named := named_key(self.context.store, text)) is not None:
                yield from self._object(named)

    def _content(self, digest: str) -> Iterator[str]:
        later = erasures.successor(self.context.store, digest)
        for one in (digest, *([later.new] if later else [])):
            if (key := data_key(one)) in self.inventory.objects:
                yield key

    def report(self, uri: str | None) -> list[str]:
        """Return the keys of the report that has a page or details of this URI."""
        key = named_key(self.context.store, uri) if uri else None
        return self.inventory.reports.get(report_folder(key), []) if key and key.startswith("reports/") else []

    def _object(self, key: str) -> Iterator[str]:
        if key in self.inventory.objects:
            yield key
        if key.startswith("reports/"):
            yield from self.inventory.reports.get(report_folder(key), ())
        elif (hexed := re.fullmatch(rf"(data|{ROWKEYS})/([0-9a-f]{{64}})(\.\w+)", key)) is not None:
            later = erasures.successor(self.context.store, hexed[2])
            if later is not None:
                yield from self._object(f"{hexed[1]}/{later.new.rpartition(':')[2]}{hexed[3]}")


def _refs_by_content(inventory: Inventory) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in inventory.below("datasets"):
        found.setdefault(f"data/{key.rpartition('/')[2].partition('-')[0]}.parquet", []).append(key)
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _names(context: StepContext, inventory: Inventory) -> Iterable[str]:
    """Return the names of the models that have a version on record."""
    folders = {key.split("/")[1]: key for key in inventory.below("versions")}
    for key in folders.values():
        try:
            yield str(context.store.get_json(key)["ref"]["name"])
        except NotFoundError:
            continue


def _mark_versions(context: StepContext, inventory: Inventory, walk: _Walk, name: str) -> None:
    """Reach the versions of a model that are needed, and note those that MLflow no longer has."""
    registered, ledger = RegisteredModel(context, name), Ledger(context.store, name)
    folder = f"versions/{safe_name(name)}/"
    records = {
        int(key[len(folder) : -len(".json")]): key for key in inventory.below("versions") if key.startswith(folder)
    }
    try:
        ledger.bind(registered, begin=False)
        aliased = set(registered.aliases().values())
    except (ConflictError, NotFoundError) as error:
        walk.found.notes.append(f"kept everything of {name!r}, which this MLflow does not know: {error.message}")
        for key in (*records.values(), *(k for k in inventory.below(LEDGER) if k.split("/")[1] == safe_name(name))):
            _reach_version(context, walk, key)
        return
    entries = [entry for entry in ledger.entries() if entry.state != "void"]
    standing = {int(v.version): v for v in registered.versions()}
    needed = aliased | needed_versions(entries, inventory.limits.keep_rollback)
    promoted = {version for entry in entries for version in (entry.version, entry.previous) if version is not None}
    for entry in entries:
        for report in entry.intent.get("evidence") or []:
            for key in walk.report(report.get("report_uri")):
                # The evidence of every promotion stays, the data behind it only where one can roll back to it.
                walk.reach(key) if entry.version in needed else walk.found.keys.add(key)
    for number, key in records.items():
        if number in needed or inventory.recent(key):
            _reach_version(context, walk, key)
        elif number not in promoted and number not in standing:
            walk.found.gone.add(key)
    for number, version in standing.items():
        made = dt.datetime.fromtimestamp(version.creation_timestamp / 1000, dt.timezone.utc)
        if number not in needed and inventory.limits.now - made >= inventory.limits.retention:
            walk.found.unneeded.append({"model": name, "version": number, "since": made.isoformat()})


def _reach_version(context: StepContext, walk: _Walk, key: str) -> None:
    walk.reach(key)
    bound = key.replace("versions/", f"{REFERENCES}/", 1)
    if key.startswith("versions/") and bound in walk.inventory.objects:
        walk.reach(bound)
    try:
        model_id = (context.store.get_json(key).get("ref") or {}).get("model_id")
    except NotFoundError:
        return
    if model_id:
        walk.reach(models.record_key(model_id))


def _mark_reports(inventory: Inventory, found: Reach) -> None:
    for keys in inventory.reports.values():
        # The card of a released version is shown for as long as the ledger speaks of it.
        if inventory.recent(*keys) or any(key.endswith("/card.html") for key in keys):
            found.keys.update(keys)


def _mark_records(context: StepContext, inventory: Inventory, found: Reach) -> None:
    """Keep records that are needed for what they say, not for what they name."""
    found.keys.update(inventory.below(*WEAK))
    found.keys.update(key for key in inventory.below("versions") if key not in found.gone)
    for key in inventory.below("training", "registrations"):
        if key in found.keys:
            continue
        try:
            value = context.store.get_json(key)
        except NotFoundError:
            continue
        if key.startswith("training/"):
            # A task that is cleared gets its model back by the draft; one without a record of its model is dead.
            needed = models.record_key(str(value["ref"].get("model_id"))) in inventory.objects
        else:
            version = value.get("version")
            record = f"versions/{key.split('/')[1]}/{version}.json"
            needed = version is not None and record in inventory.objects and record not in found.gone
        if needed:
            found.keys.add(key)
