"""What an asset's trigger has seen: kept with the asset where Airflow can (3.3 and later), else in the store."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.core.vocabulary import SCHEMA

log = logging.getLogger("airflow_mlops.task")

FOLDER = "watermarks"
#: Seconds in which a triggerer has long written down an event that it was given.
HANDED_OVER_SECONDS = 5.0


async def load(trigger: Any, name: str, place: str) -> Any:
    """Return what :func:`save` kept under a name, for the same place; None if there is nothing, or no store.

    :param place: what was looked at: with another one, what was seen does not count.
    """
    store = _store_of(trigger)
    if store is None:
        return None
    try:
        value = await store.aget(name) if hasattr(store, "aget") else await asyncio.to_thread(store.get, name)
        return (value or {}).get(place)
    except Exception as error:
        log.warning("what was seen cannot be read (%s): what is there is told of again", _said(error))
        return None


async def save(trigger: Any, name: str, place: str, value: Any) -> None:
    """Keep what was seen; that it cannot be is no reason to stop."""
    store = _store_of(trigger)
    if store is None:
        return
    try:
        if hasattr(store, "aset"):
            await store.aset(name, {place: value})
        else:
            await asyncio.to_thread(store.set, name, {place: value})
    except Exception as error:
        log.warning("what was seen cannot be kept (%s): a restart tells of it again", _said(error))


async def told(trigger: Any, name: str, place: str, value: Any) -> None:
    """Keep what was told of, once the triggerer has written the event down.

    It holds an event in memory for a moment. Killed before this has ended, it tells of the same once more.
    """
    await asyncio.sleep(min(HANDED_OVER_SECONDS, float(trigger.poll_interval)))
    await save(trigger, name, place, value)


def _store_of(trigger: Any) -> Any:
    # Airflow 3.3 gives each trigger the attribute, and sets it where an asset has the trigger.
    return trigger.asset_state_store if hasattr(trigger, "asset_state_store") else StoredState(trigger)


def _said(error: Exception) -> str:
    return error.message if isinstance(error, MlopsError) else type(error).__name__


class StoredState:
    """One object of the configuration's store for each trigger, for Airflow below 3.3.

    :param trigger: the object is found by its class and arguments, which Airflow knows it by as well.
    """

    def __init__(self, trigger: Any) -> None:
        self.key = f"{FOLDER}/{digests.hex_of(digests.of_json(trigger.serialize()))[:32]}.json"

    async def aget(self, name: str) -> Any:
        """Return the value of a name, or None."""
        return (await self._do(self._read)).get(name)

    async def aset(self, name: str, value: Any) -> None:
        """Keep the value of a name."""
        await self._do(lambda store: store.put_json(self.key, {**self._read(store), name: value}))

    def _read(self, store: Any) -> dict[str, Any]:
        return store.find_json(self.key) or {"schema": SCHEMA, "kind": "watermark"}

    @staticmethod
    async def _do(what: Any) -> Any:
        from asgiref.sync import sync_to_async

        from airflow_mlops.hooks.store import StoreHook

        # The store may be behind a connection, which Airflow wants asked for in this way.
        store = await sync_to_async(lambda: StoreHook().get_conn())()
        return await asyncio.to_thread(what, store)
