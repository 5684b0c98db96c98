"""The trigger that waits for the container of a step."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mlops.core.errors import CannotReachError, MlopsError
from airflow_mlops.core.training.process import Secrets
from airflow_mlops.runtimes.child import Relay

if TYPE_CHECKING:
    from airflow_mlops.runtimes.docker_container import Container
    from airflow_mlops.runtimes.docker_engine import Engine

log = logging.getLogger("airflow_mlops.task")

#: Seconds that an engine may be away before the task is told.
AWAY_SECONDS = 300.0


class ContainerTrigger(BaseTrigger):
    """Wait until a container has ended, and show in the log what it says.

    Its one event is ``{"container", "seen"}`` (when the last line that it showed was said), or ``{"error": {...}}``.
    A triggerer that restarts goes on waiting; it shows the last thousand lines again.

    :param container: name of the container.
    :param docker_conn_id: connection of type ``docker``; None: as the runtime chooses it.
    :param poll_interval: longest time between two looks, in seconds.
    """

    def __init__(self, *, container: str, docker_conn_id: str | None = None, poll_interval: float = 5.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.container = container
        self.docker_conn_id = docker_conn_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        names = ("container", "docker_conn_id", "poll_interval")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it has ended. Each look is a short call in a thread: none is held while nothing happens."""
        event: dict[str, Any]
        # The container has hidden the secrets of what it says, of which this process knows none.
        relay = Relay(log, Secrets({}))
        container: Container | None = None
        pause, away = min(0.5, self.poll_interval), 0.0
        try:
            while True:
                try:
                    container = container or await self._open()
                    lines, state = await asyncio.to_thread(container.poll)
                except MlopsError as error:
                    now = time.monotonic()
                    away = away or now
                    if not isinstance(error, CannotReachError) or _is_lost(error) or now - away > AWAY_SECONDS:
                        event = {"error": error.to_dict()}
                        break
                    log.warning("%s; looking again", error.message)
                    await asyncio.sleep(self.poll_interval)
                    continue
                away = 0.0
                for line in lines:
                    relay.line(line)
                if not state.alive:
                    event = {"container": self.container, "seen": container.seen}
                    break
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, self.poll_interval)
            yield TriggerEvent(event)  # type: ignore[no-untyped-call]
        finally:
            if container is not None:
                container.client.close()

    async def on_kill(self) -> None:
        """Remove the container: the task was cleared, or marked as failed or succeeded, while it waited.

        Airflow calls this from 3.3 on; ``airflow mlops reap`` does it elsewhere.
        """
        container = await self._open()
        try:
            await asyncio.to_thread(container.remove)
            log.info("Removed the container %s: the task was cancelled", self.container)
        finally:
            container.client.close()

    async def _open(self) -> Container:
        from asgiref.sync import sync_to_async

        from airflow_mlops.runtimes.docker_engine import engine_of

        engine = await sync_to_async(engine_of)(self.docker_conn_id)
        return await asyncio.to_thread(_open, engine, self.container)


def _open(engine: Engine, name: str) -> Container:
    from airflow_mlops.runtimes.docker_container import Container

    return Container(engine, engine.client(), name)


def _is_lost(error: MlopsError) -> bool:
    from airflow_mlops.runtimes.docker_engine import ContainerLostError

    return isinstance(error, ContainerLostError)
