"""Use of an object that was there already, beside a garbage collection that may be deleting it.

A content-addressed object is not written again when the same content comes again, so its own age does not say that
somebody has just begun to rely on it. A writer or reader that finds an object therefore calls :func:`keep`, which
publishes a small mark beside it (``<key>.used``), and *then* looks whether the object is there. The collector, in
:mod:`.sweep`, deletes only what is old by object and mark, and *after* the deletion reads the mark again: if it has
changed, the copy that it kept is put back.

Each side first writes what the other reads and then reads what the other writes (Dekker's algorithm), on a store whose
reads see all completed writes. So of a use and a deletion that overlap at least one sees the other: either the user
finds the object missing, and publishes it again, or the collector finds the mark, and puts the object back.

For the moment between the two the object is gone although somebody was told that it is there. So the collector also
says which objects it has in hand (:func:`announced`), before it looks at their marks for the last time, and
:func:`keep` returns only when it is through with the one that is asked for.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from airflow_mlops.core.errors import NotFoundError
from airflow_mlops.core.store import ObjectStat, Store

SUFFIX = ".used"
#: An object or mark that is younger needs no new mark: no collection takes it for much longer than that.
YOUNG = dt.timedelta(hours=1)
#: The shortest grace period that a collection accepts.
MIN_GRACE = dt.timedelta(days=1)
#: Where a collection says what it has in hand.
IN_HAND = "lifecycle/in-hand"


def mark_key(key: str) -> str:
    """Return the key of an object's mark."""
    return key + SUFFIX


def now() -> dt.datetime:
    """Return the present instant in UTC."""
    return dt.datetime.now(dt.timezone.utc)


def keep(store: Store, key: str) -> bool:
    """Say that an object is in use from now on; return whether it is there.

    It stays for a grace period from now, in which whoever called this must put on record what refers to it.
    """
    if (standing := stat(store, key)) is None:
        return False
    mark = stat(store, mark_key(key))
    if now() - max(one.modified for one in (standing, mark) if one) >= YOUNG:
        store.put_json(mark_key(key), {"at": now().isoformat()})
    _wait_for_the_collector(store, key)
    return store.exists(key)


@contextmanager
def announced(store: Store, keys: Iterable[str], until: float) -> Iterator[None]:
    """Say that a collection has these objects in hand.

    :param until: seconds since the epoch after which nobody need wait: the collection was killed.
    """
    names = [f"{IN_HAND}/{key}.json" for key in keys]
    for name in names:
        store.put_json(name, {"until": until})
    yield
    # Not after an error: the next collection puts right what this one began, and takes the word back.
    for name in names:
        store.delete(name)


def _wait_for_the_collector(store: Store, key: str) -> None:
    pause = 0.01
    while True:
        try:
            until = float(store.get_json(f"{IN_HAND}/{key}.json")["until"])
        except NotFoundError:
            return
        if time.time() >= until:
            return
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def put_shared(store: Store, key: str, data: bytes) -> None:
    """Publish a content-addressed object, or use the one that is there."""
    if not store.put_bytes(key, data, if_absent=True) and not keep(store, key):
        store.put_bytes(key, data)


def stat(store: Store, key: str) -> ObjectStat | None:
    """Return an object's size and age, or None if there is none."""
    try:
        return store.stat(key)
    except NotFoundError:
        return None
