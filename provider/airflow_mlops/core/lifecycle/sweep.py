"""The sweep phase: deletion that can be interrupted, and taken back.

What goes is first announced (:mod:`.uses`) and copied to ``lifecycle/trash/<collection>/``, then deleted, and then
looked at again: whether somebody marked it as used meanwhile, and whether anything that is kept names it by now. If so
it is put back; else the copy goes too. A collection that was killed leaves its trash, and the next one decides about it
in the same way. On a local store a copy is a second name for the same file, on S3 the server copies.
"""

from __future__ import annotations

import datetime as dt
import itertools
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_mlops.core.errors import NotFoundError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.lifecycle import lock, reach, uses
from airflow_mlops.core.store import ObjectStat, Store
from airflow_mlops.core.vocabulary import utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.lifecycle.reach import Limits
    from airflow_mlops.core.steps import StepContext

TRASH = f"{lock.FOLDER}/trash"
RECORDS = f"{lock.FOLDER}/gc"
#: Objects that are dealt with at a time.
THREADS = 8
T = TypeVar("T")
R = TypeVar("R")
NEVER = dt.datetime.fromtimestamp(0, dt.timezone.utc)


@dataclass(frozen=True)
class Garbage:
    """What goes together.

    :param keys: in the order of deletion, with their marks of use.
    :param stats: as they were listed.
    :param age: since any of it was written or used.
    """

    kind: str
    keys: tuple[str, ...]
    stats: dict[str, ObjectStat]
    why: str
    age: dt.timedelta

    @property
    def contents(self) -> list[str]:
        """Keys of what is not a mark of use."""
        return [key for key in self.keys if not key.endswith(uses.SUFFIX)]

    @property
    def size(self) -> int:
        """Bytes of all objects."""
        return sum(stat.size for stat in self.stats.values())

    def to_dict(self) -> dict[str, Any]:
        """Return what the record of a collection keeps of it."""
        return {"kind": self.kind, "keys": list(self.keys), "bytes": self.size, "age_days": self.age.days}


def record_key(run: str) -> str:
    """Return the store key of a collection's record."""
    return f"{RECORDS}/{run}.json"


def take_away(context: StepContext, held: lock.Lock, run: str, garbage: list[Garbage], limits: Limits) -> list[Garbage]:
    """Move garbage to the trash unless it was written or used since it was listed; return what was moved."""
    store = context.store

    def take(one: Garbage) -> bool:
        if any(_written(store, key, limits) or _used(store, key, limits) for key in one.contents):
            context.log.info("kept %s %s: it came into use meanwhile", one.kind, one.keys[0])
            return False
        with uses.announced(store, one.contents, held.until):
            return _take_in_hand(context, held, run, one, limits)

    taken: list[Garbage] = []
    # Kind by kind: what names things goes before what it names.
    for _, kind in itertools.groupby(garbage, key=lambda one: one.kind):
        batch = list(kind)
        taken += itertools.compress(batch, _at_once(take, batch))
    return taken


def _take_in_hand(context: StepContext, held: lock.Lock, run: str, one: Garbage, limits: Limits) -> bool:
    store, plain = context.store, one.contents
    for key in plain:
        with suppress(NotFoundError):
            store.copy(key, f"{TRASH}/{run}/{key}")
    crash_point("gc.copied")
    held.check()
    if any(_used(store, key, limits) for key in plain):
        context.log.info("kept %s %s: it came into use meanwhile", one.kind, one.keys[0])
        return False
    crash_point("gc.decided")
    # The marks stay until it is certain that nobody needs the object: they are what tells.
    for key in plain or one.keys:
        store.delete(key)
    crash_point("gc.deleted")
    if any(_used(store, key, limits) for key in plain):
        # Who has just begun with it waits until it is here again; what else is needed is put back in the end.
        for key in plain:
            with suppress(NotFoundError):
                _put_back(store, f"{TRASH}/{run}/{key}", key)
        context.log.info("put back %s %s: it came into use meanwhile", one.kind, one.keys[0])
        return False
    return True


def _at_once(function: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """Return a function's results, several calls at a time: each waits for the store most of the time."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="gc") as pool:
        running = [pool.submit(function, one) for one in things]
        try:
            return [one.result() for one in running]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def put_back_or_give_up(context: StepContext, run: str, limits: Limits) -> set[str]:
    """Empty the trash of a collection; return what was put back."""
    store, folder, restored = context.store, f"{TRASH}/{run}", set[str]()
    trash = [key[len(folder) + 1 :] for key in store.keys(folder)]
    while needed := _needed(context, trash, folder, limits) - restored:
        # A document that is back may name more of it.
        for key in needed:
            if _put_back(store, f"{folder}/{key}", key):
                context.log.info("put back %s: it came into use meanwhile", key)
        restored |= needed
    crash_point("gc.rechecked")

    def give_up(key: str) -> None:
        mark = uses.mark_key(key)
        if store.exists(mark) and not store.exists(key) and not _written(store, mark, limits):
            store.delete(mark)
        store.delete(f"{folder}/{key}")

    _at_once(give_up, trash)
    crash_point("gc.purged")
    return restored


def _needed(context: StepContext, trash: list[str], folder: str, limits: Limits) -> set[str]:
    """Return the keys of the trash that are in use, or that something kept names, with what belongs to them."""
    if not trash:
        return set()
    inventory = reach.take_inventory(context, limits)
    absent = [key for key in trash if key not in inventory.objects]
    for key in absent:
        # As if it were in place still, and as old as it was.
        inventory.add(key, ObjectStat(0, NEVER))
    found = reach.mark(context, inventory).keys
    units = {unit_of(key) for key in absent if key in found or _used(context.store, key, limits)}
    return {key for key in absent if unit_of(key) in units}


def _put_back(store: Store, source: str, key: str) -> bool:
    with store.staging() as folder, store.open_input(source) as file:
        with open(folder / "object", "xb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
        return store.put_file(key, folder / "object", if_absent=True)


def unit_of(key: str) -> str:
    """Return what stands for all keys that go together: a content with its record, a report's folder, one object."""
    key = key.removesuffix(uses.SUFFIX)
    if key.startswith("reports/"):
        return reach.report_folder(key)
    if key.startswith("registrations/"):
        return key.removesuffix(".json").removesuffix(".intent")
    return key.rpartition(".")[0] if key.startswith("data/") else key


def _written(store: Store, key: str, limits: Limits) -> bool:
    stat = uses.stat(store, key)
    return stat is not None and limits.now - stat.modified < limits.grace


def _used(store: Store, key: str, limits: Limits) -> bool:
    return _written(store, uses.mark_key(key), limits)


def settle(context: StepContext, limits: Limits) -> list[str]:
    """Bring collections that were killed to their end; return their ids.

    Every collection settles those before it, so only the last one can have died without leaving trash.
    """
    store = context.store
    died = {key[len(TRASH) + 1 :].partition("/")[0] for key in store.keys(TRASH)}
    records = [key[len(RECORDS) + 1 : -len(".json")] for key in store.keys(RECORDS)]
    if records and store.get_json(record_key(records[-1]))["state"] == "begun":
        died.add(records[-1])
    for run in sorted(died):
        context.log.info("settling the collection %s, which was killed", run)
        restored = put_back_or_give_up(context, run, limits)
        for key in store.keys(uses.IN_HAND):
            store.delete(key)
        record: dict[str, Any] = store.get_json(record_key(run)) if run in records else {"id": run, "deleted": []}
        deleted = [one for one in record["deleted"] if not _any_left(store, one["keys"])]
        record |= {"state": "settled", "deleted": deleted, "restored": sorted(restored), "ended_at": utc_now()}
        store.put_json(record_key(run), record)
    return sorted(died)


def _any_left(store: Store, keys: list[str]) -> bool:
    return any(store.exists(key) for key in keys if not key.endswith(uses.SUFFIX))
