"""What an asset's trigger has seen, kept with the asset where Airflow can (3.3 and later)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger("airflow_mlops.task")


async def load(trigger: Any, name: str, place: str) -> Any:
    """Return what :func:`save` kept under a name, for the same place; None if there is nothing, or no store.

    :param place: what was looked at: with another one, what was seen does not count.
    """
    store = getattr(trigger, "asset_state_store", None)
    if store is None:
        return None
    try:
        value = await store.aget(name) if hasattr(store, "aget") else await asyncio.to_thread(store.get, name)
        return (value or {}).get(place)
    except Exception as error:
        log.warning("what was seen cannot be read (%s): what is there is told of again", type(error).__name__)
        return None


async def save(trigger: Any, name: str, place: str, value: Any) -> None:
    """Keep what was seen; that it cannot be is no reason to stop."""
    store = getattr(trigger, "asset_state_store", None)
    if store is None:
        return
    try:
        if hasattr(store, "aset"):
            await store.aset(name, {place: value})
        else:
            await asyncio.to_thread(store.set, name, {place: value})
    except Exception as error:
        log.warning("what was seen cannot be kept (%s): a restart tells of it again", type(error).__name__)
