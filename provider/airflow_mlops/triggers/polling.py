"""What triggers have in common that look again and again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from airflow.triggers.base import TriggerEvent

from airflow_mlops.core.errors import MlopsError

log = logging.getLogger("airflow_mlops.task")

#: Seconds after which a connection is asked for again: a token may have been changed, that of a role expires.
RENEW_SECONDS = 900.0
#: Looks in a row that may fail before a sensor is told.
MAX_FAILURES = 5
T = TypeVar("T")


class Renewed(Generic[T]):
    """Credentials from a connection, asked for from an event loop as Airflow wants it, and again every now and then.

    :param ask: asks for them; it may take its time.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._known: T | None = None
        self._renew_at = 0.0

    async def get(self) -> T:
        """Return them."""
        if self._known is None or time.monotonic() > self._renew_at:
            from asgiref.sync import sync_to_async

            self._known = await sync_to_async(self._ask)()
            self._renew_at = time.monotonic() + RENEW_SECONDS
        return self._known

    def forget(self) -> None:
        """Ask for them anew the next time."""
        self._known = None


async def first_find(
    kind: str, look: Callable[[], Awaitable[dict[str, Any] | None]], forget: Callable[[], None], seconds: float
) -> TriggerEvent:
    """Look until something is found, or until looking failed too often; return the sensor's one event.

    :param kind: the event's key for what was found; an error is under ``error``.
    :param forget: called after a failure.
    :param seconds: between two looks.
    """
    failures = 0
    while True:
        try:
            found = await look()
            failures = 0
            if found:
                return TriggerEvent({kind: found})  # type: ignore[no-untyped-call]
        except MlopsError as error:
            failures += 1
            if not error.retryable or failures >= MAX_FAILURES:
                return TriggerEvent({"error": error.to_dict()})  # type: ignore[no-untyped-call]
            log.warning("%s (look %s of %s that failed in a row)", error, failures, MAX_FAILURES)
            forget()
        await asyncio.sleep(seconds)


@contextmanager
def endured(what: str, forget: Callable[[], None]) -> Iterator[None]:
    """Log what goes wrong within, for who looks again later whatever happens.

    :param what: is looked at, for the log.
    :param forget: called after a failure.
    """
    try:
        yield
    except MlopsError as error:
        log.log(logging.WARNING if error.retryable else logging.ERROR, "%s; looking again later", error)
        forget()
    except Exception:
        log.exception("looking at %s failed; looking again later", what)
        forget()
