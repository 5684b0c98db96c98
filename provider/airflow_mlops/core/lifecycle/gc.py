"""Garbage collection: what nothing needs any more, shown or deleted.

:func:`plan` changes nothing. :func:`collect` deletes what the plan has, so that it can be stopped or killed at any
instant and run again, and so that nothing is lost that somebody begins to use meanwhile (see :mod:`.sweep`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.lifecycle import lock, sweep, uses
from airflow_mlops.core.lifecycle.reach import COLLECTED, Inventory, Limits, Reach, mark, take_inventory
from airflow_mlops.core.lifecycle.sweep import Garbage
from airflow_mlops.core.training.rowkeys import FOLDER as ROWKEYS
from airflow_mlops.core.vocabulary import SCHEMA, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

GRACE = dt.timedelta(days=14)
RETENTION = dt.timedelta(days=90)

#: First part of a key -> what it is called, and why it goes.
KINDS = {
    "reports": ("report", "evidence of no promotion, and older than the retention"),
    "registrations": ("registration", "its version was deleted in MLflow, or it was never finished"),
    "references": ("drift reference", "its version can no longer be rolled back to"),
    "profiles": ("reference profile", "no version that can be rolled back to has it"),
    "versions": ("version record", "its version was deleted in MLflow and never had an alias"),
    "training": ("draft", "its training was never finished"),
    "datasets": ("dataset ref", "its data is needed by no model, report or run"),
    "data": ("snapshot", "needed by no model, report or run"),
    ROWKEYS: ("row keys", "of no model that is needed"),
    "schemas": ("schema", "of no dataset that is needed"),
}
STAGING = ("staging", "left by a writer that died, or an upload that was never ended")


@dataclass(frozen=True)
class Plan:
    """What a collection would delete.

    :param garbage: in the order of deletion: what names things before what it names.
    :param staging: name and size of what dead writers left.
    :param kept: how many objects stay.
    :param unneeded: versions in MLflow that a person may want to delete there.
    :param notes: what a person should know.
    """

    garbage: list[Garbage]
    staging: list[tuple[str, int]]
    kept: int
    unneeded: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> list[dict[str, Any]]:
        """Return one row for each kind: kind, count, objects, bytes, why."""
        rows: dict[str, dict[str, Any]] = {}
        for one in self.garbage:
            row = rows.setdefault(one.kind, {"kind": one.kind, "count": 0, "objects": 0, "bytes": 0, "why": one.why})
            row["count"] += 1
            row["objects"] += len(one.keys)
            row["bytes"] += one.size
        if self.staging:
            size = sum(size for _, size in self.staging)
            count = len(self.staging)
            rows[STAGING[0]] = {"kind": STAGING[0], "count": count, "objects": count, "bytes": size, "why": STAGING[1]}
        return list(rows.values())


def limits_of(
    grace: dt.timedelta | None = None,
    retention: dt.timedelta | None = None,
    keep_rollback: int | None = None,
    now: dt.datetime | None = None,
) -> Limits:
    """Return checked limits.

    :raises SpecError: for a grace period below a day, or a negative number of versions.
    """
    grace, retention = GRACE if grace is None else grace, RETENTION if retention is None else retention
    if grace < uses.MIN_GRACE:
        raise SpecError("the grace period must be longer than any run, and at least 1d: what a run has only just read")
    if keep_rollback is not None and keep_rollback < 0:
        raise SpecError(f"keep_rollback must be 0 or more, got {keep_rollback}")
    return Limits(now or uses.now(), grace, retention, keep_rollback)


def plan(context: StepContext, limits: Limits) -> Plan:
    """Return what a collection would delete now; changes nothing."""
    inventory = take_inventory(context, limits)
    reach = mark(context, inventory)
    staging = [(name, stat.size) for name, stat in context.store.leftovers(limits.now - limits.grace)]
    return _plan(inventory, reach, staging)


def _plan(inventory: Inventory, reach: Reach, staging: list[tuple[str, int]]) -> Plan:
    garbage = [one for one in _units(inventory) if not reach.keys.intersection(one.keys)]
    garbage = [one for one in garbage if not inventory.young(*one.keys)]
    garbage.sort(key=lambda one: (list(KINDS).index(one.keys[0].partition("/")[0]), one.keys))
    gone = {key for one in garbage for key in one.keys}
    return Plan(garbage, staging, len(inventory.objects.keys() - gone), reach.unneeded, reach.notes)


def _units(inventory: Inventory) -> Iterator[Garbage]:
    """Yield what goes together or not at all: a content with its record, a report with its page, one object else."""
    units: dict[str, list[str]] = {}
    for part in COLLECTED:
        for key in inventory.parts.get(part, ()):
            units.setdefault(sweep.unit_of(key), []).append(key)
    for keys in units.values():
        # The data before its record: a record alone is worth nothing, data alone can still be verified.
        keys.sort(key=lambda key: (key.endswith(uses.SUFFIX), key.endswith(".json"), key))
        kind, why = KINDS[keys[0].partition("/")[0]]
        stats = {key: inventory.objects[key] for key in keys}
        yield Garbage(kind, tuple(keys), stats, why, inventory.age(*keys))


def collect(context: StepContext, limits: Limits, *, by: str) -> dict[str, Any]:
    """Delete what nothing needs and return the record of it, which also stays in the store.

    A collection that was killed is settled first: what it had taken away is put back or given up.

    :param by: who, for the record.
    :raises ConflictError: if another collection or an erasure runs.
    """
    with lock.only_one(context.store, "collection", by) as held:
        settled = sweep.settle(context, limits)
        found = plan(context, limits)
        run = f"{limits.now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"
        record = {
            "schema": SCHEMA,
            "id": run,
            "state": "begun",
            "by": by,
            "begun_at": utc_now(),
            "grace_days": limits.grace.total_seconds() / 86400,
            "retention_days": limits.retention.total_seconds() / 86400,
            "keep_rollback": limits.keep_rollback,
            "settled": settled,
            "deleted": [one.to_dict() for one in found.garbage],
            "staging": [],
            "restored": [],
        }
        context.store.put_json(sweep.record_key(run), record)
        crash_point("gc.planned")
        taken = sweep.take_away(context, held, run, found.garbage, limits)
        restored = sweep.put_back_or_give_up(context, run, limits)
        record["deleted"] = [one.to_dict() for one in taken if not restored.intersection(one.keys)]
        record["restored"] = sorted(restored)
        left = context.store.leftovers(limits.now - limits.grace, delete=True)
        record["staging"] = [{"name": name, "bytes": stat.size} for name, stat in left]
        record |= {"state": "done", "ended_at": utc_now()}
        context.store.put_json(sweep.record_key(run), record)
        return record
