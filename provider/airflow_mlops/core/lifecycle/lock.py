"""One collection or erasure at a time, in one store."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from airflow_mlops.core.errors import ConflictError, MlopsError, NotFoundError
from airflow_mlops.core.registry.ledger import lease_seconds
from airflow_mlops.core.store import Store
from airflow_mlops.core.vocabulary import SCHEMA, utc_now

#: Everything that the lifecycle itself keeps in a store.
FOLDER = "lifecycle"
_LOCKS = f"{FOLDER}/locks"


class Lock:
    """A numbered lease in the store; the highest number that is not over holds it.

    :param what: what it is held for, for the message to others.
    :param by: who holds it.
    """

    def __init__(self, store: Store, what: str, by: str) -> None:
        self.store, self.what, self.by = store, what, by
        self.id = uuid.uuid4().hex
        self.until = 0.0
        self.key = ""

    def take(self) -> None:
        """Take the lock.

        :raises ConflictError: if somebody holds it, or may: the lease of one who was killed has to run out.
        """
        standing = sorted(self.store.keys(_LOCKS))
        if standing:
            self._check_over(standing[-1])
        number = int(standing[-1].rpartition("/")[2].partition(".")[0]) + 1 if standing else 1
        self.key = f"{_LOCKS}/{number:08d}.json"
        self.until = time.time() + lease_seconds()
        if not self.store.put_json(self.key, self._content(), if_absent=True):
            self._check_over(self.key)
            raise ConflictError(f"somebody else has just begun with the store {self.store.uri}; try again")
        for key in standing:
            self.store.delete(key)

    def _check_over(self, key: str) -> None:
        try:
            held = self.store.get_json(key)
        except NotFoundError:
            return
        left = float(held["until"]) - time.time()
        if left > 0:
            raise ConflictError(
                f"a {held['what']} by {held['by']} runs in the store {self.store.uri} since {held['since']}, or was "
                f"killed; if it was, try again in {int(left) + 1} s"
            )

    def _content(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "id": self.id,
            "what": self.what,
            "by": self.by,
            "since": utc_now(),
            "until": self.until,
        }

    def renew(self) -> None:
        """Hold it for another lease; see :meth:`check`."""
        self.check()
        self.until = time.time() + lease_seconds()
        self.store.put_json(self.key, self._content())

    def check(self) -> None:
        """Make sure that it is still held.

        :raises ConflictError: if the lease ran out, as that of a process that was stopped for long.
        """
        if time.time() >= self.until:
            raise ConflictError(
                f"this {self.what} was stopped for longer than its lease, so another may have begun; run it again"
            )

    def release(self) -> None:
        """Let others have it; the object stays, so that its number is not given out again."""
        self.until = 0.0
        self.store.put_json(self.key, self._content())


@contextmanager
def only_one(store: Store, what: str, by: str) -> Iterator[Lock]:
    """Hold the store's lock, renewed by a thread until the block ends."""
    lock = Lock(store, what, by)
    lock.take()
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(lease_seconds() / 3):
            # What could not be renewed runs out, and check() says so.
            with suppress(MlopsError, OSError):
                lock.renew()

    thread = threading.Thread(target=renew, name="lifecycle-lock", daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        ended.set()
        thread.join()
        if lock.until > time.time():
            lock.release()
