"""Decisions on record: numbered objects in the store, each made once, each with the memory after it.

Decision *n* is made by conditional create, so of two tasks that decide at once exactly one makes it; the other reads
again and decides anew, now with the first one's retraining in its memory. The memory needs no object of its own: it is
that of the last decision, so a crash leaves either all of a decision or nothing.
"""

from __future__ import annotations

import re
from typing import Any

from airflow_mlops.core.errors import IntegrityError
from airflow_mlops.core.policy.memory import Memory
from airflow_mlops.core.store import Store, safe_name

FOLDER = "retraining"


class Decisions:
    """The decisions about one model.

    :param name: of the model, or whatever else the memory is kept under.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.folder = f"{FOLDER}/{safe_name(name)}"

    def key(self, seq: int) -> str:
        """Return the key of a decision."""
        return f"{self.folder}/{seq:08d}.json"

    def numbers(self) -> list[int]:
        """Return the numbers of all decisions, in order.

        :raises IntegrityError: if one is missing.
        """
        found = sorted(
            int(match[1])
            for key in self.store.keys(self.folder)
            if (match := re.fullmatch(r"(\d{8})\.json", key.rpartition("/")[2]))
        )
        if found != list(range(1, len(found) + 1)):
            raise IntegrityError(
                f"the decisions about {self.name!r} at {self.store.uri_of(self.folder)} are not complete: objects were "
                "removed by hand; restore them from a backup of the store",
                name=self.name,
            )
        return found

    def read(self, seq: int) -> dict[str, Any]:
        """Return the record of a decision.

        :raises NotFoundError: if there is none.
        """
        found: dict[str, Any] = self.store.get_json(self.key(seq))
        return found

    def memory(self, seq: int) -> Memory:
        """Return the memory after a decision; that after number 0 is empty."""
        return Memory.from_dict(self.read(seq)["memory"]) if seq else Memory()

    def create(self, seq: int, record: dict[str, Any]) -> bool:
        """Write a decision; return False if there is one of that number."""
        return self.store.put_json(self.key(seq), record, if_absent=True)


def names(store: Store) -> list[str]:
    """Return what there are decisions about."""
    firsts = [key for key in store.keys(FOLDER) if key.endswith("/00000001.json")]
    return [str(store.get_json(key)["name"]) for key in firsts]
