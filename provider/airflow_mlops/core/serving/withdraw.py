"""Take a deployment back that nobody wants any more: its task was cancelled.

What served before goes on, and a canary's share goes to nothing. That it shall be so stands in the desired state first,
so it comes about whoever dies meanwhile, at the latest with the server's next deployment.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_mlops.core.errors import CannotReachError, ConflictError
from airflow_mlops.core.serving.places import Place, driver_of
from airflow_mlops.core.serving.state import Deployment, ServerState

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Seconds between two looks at what another thread or process is doing.
LOOK_SECONDS = 0.2

_cancelled: set[str] = set()


def begin(key: str) -> None:
    """Forget that a task was cancelled: it runs again."""
    _cancelled.discard(key)


def cancel(key: str) -> None:
    """Remember in this process that a task is cancelled, whatever its thread is about to write."""
    _cancelled.add(key)


def cancelled(key: str) -> bool:
    """Return whether a task was cancelled in this process."""
    return bool(key) and key in _cancelled


def withdraw(context: StepContext, server: str, place: Place, *, seconds: float, seq: int | None = None) -> bool:
    """Withdraw a task's open deployment, and carry that out where nobody else does.

    :param context: with the task's key.
    :param seconds: how long it may take to carry out; what is left is left to the next deployment.
    :param seq: its number; None: the open one that has the task's key.
    :return: whether there was one to withdraw.
    :raises CannotReachError: if the gateway or the engine does not answer; it stays withdrawn.
    """
    state = ServerState(context.store, server)
    opened = state.open()
    if opened is None or (opened.intent.get("key") != context.key if seq is None else opened.seq != seq):
        return False
    if not state.withdraw(opened.seq, "it was withdrawn: its task was cancelled"):
        return False
    context.log.warning("%s: %s is withdrawn: the task was cancelled", server, opened)
    if place.backend != "processes":
        _carry_out(context, state, opened, place, time.monotonic() + seconds)
    return True


def _carry_out(context: StepContext, state: ServerState, opened: Deployment, place: Place, end: float) -> None:
    with driver_of(context, state.name, place) as driver:
        while time.monotonic() < end:
            try:
                pause = driver()
            except ConflictError:
                pause = LOOK_SECONDS  # the task's own thread is at it
            except CannotReachError:
                if state.read(opened.seq).outcome is None:
                    raise
                return
            if pause is None:
                return
            time.sleep(min(pause, LOOK_SECONDS))
