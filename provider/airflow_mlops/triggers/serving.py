"""Triggers that wait for model servers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_mlops.core.errors import MlopsError
from airflow_mlops.core.serving.client import Wanted

log = logging.getLogger("airflow_mlops.task")

#: Seconds for which a withdrawal is carried out here.
WITHDRAWAL_SECONDS = 25.0


class DeploymentTrigger(BaseTrigger):
    """Wait until it is worth while to look at a deployment again.

    Its one event is ``{"server", "seq"}``: the task finds out by itself how far the deployment is.

    :param server: name of the server.
    :param seq: number of the deployment.
    :param seconds: until the next step, where the task carries the deployment out; else between two looks.
    :param waits_for_outcome: whether another process carries it out, so that only its end is of interest.
    :param store_conn_id: connection of the store; None: the configuration's back end.
    :param server_conn_id: as the operator has it.
    """

    def __init__(
        self,
        *,
        server: str,
        seq: int,
        seconds: float,
        waits_for_outcome: bool,
        store_conn_id: str | None = None,
        server_conn_id: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.server = server
        self.seq = seq
        self.seconds = seconds
        self.waits_for_outcome = waits_for_outcome
        self.store_conn_id = store_conn_id
        self.server_conn_id = server_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        names = ("server", "seq", "seconds", "waits_for_outcome", "store_conn_id", "server_conn_id")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is an outcome, or sleep once."""
        if not self.waits_for_outcome:
            await asyncio.sleep(self.seconds)
        else:
            from asgiref.sync import sync_to_async

            while not await sync_to_async(self._over)():
                await asyncio.sleep(self.seconds)
        yield TriggerEvent({"server": self.server, "seq": self.seq})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Withdraw the deployment: the task was cleared, or marked as failed or succeeded, while it waited.

        Airflow calls this from 3.3 on, and waits 30 seconds for it.
        """
        from asgiref.sync import sync_to_async

        await sync_to_async(self._withdraw)()

    def _withdraw(self) -> None:
        from airflow_mlops.core.serving.places import Place
        from airflow_mlops.core.serving.withdraw import withdraw
        from airflow_mlops.core.steps import StepContext
        from airflow_mlops.hooks.model_server import ModelServerHook
        from airflow_mlops.hooks.store import StoreHook

        try:
            context = StepContext(store=StoreHook(self.store_conn_id).get_conn(), log=log)
            place = Place() if self.waits_for_outcome else ModelServerHook(self.server_conn_id).place
            withdraw(context, self.server, place, seconds=WITHDRAWAL_SECONDS, seq=self.seq)
        except MlopsError as error:
            log.warning("%s; the next deployment to this server goes on with it", error.message)

    def _over(self) -> bool:
        """Return whether there is an outcome, or nobody who would bring one about; the task then says so."""
        from airflow_mlops.core.serving.places import GONE_SECONDS, heartbeat
        from airflow_mlops.core.serving.state import ServerState
        from airflow_mlops.hooks.store import StoreHook

        try:
            store = StoreHook(self.store_conn_id).get_conn()
            if ServerState(store, self.server).read(self.seq).outcome is not None:
                return True
            beat = heartbeat(store)
            return beat is None or time.time() - float(beat["t"]) > GONE_SECONDS
        except MlopsError as error:
            log.warning("%s; looking again", error.message)
            return not error.retryable


class ModelServerSensorTrigger(BaseTrigger):
    """Wait until a server's answers are those of one model.

    Its one event is ``{"served": {...}}``, or ``{"error": {...}}``.

    :param address: ``host:port`` of the gateway.
    :param server: name of the server.
    :param model: as the sensor takes it.
    :param answers: so many answers in a row must be the model's.
    :param poll_interval: seconds between two looks.
    """

    def __init__(self, *, address: str, server: str, model: Any, answers: int = 5, poll_interval: float = 60) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.address = address
        self.server = server
        self.model = model
        self.answers = answers
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        names = ("address", "server", "model", "answers", "poll_interval")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the model serves. Each look is a few short calls in a thread."""
        event: dict[str, Any]
        try:
            wanted = Wanted.of(self.model)
            while True:
                found, said = await asyncio.to_thread(wanted.served, self.address, self.server, self.answers)
                if found:
                    event = {"served": found}
                    break
                log.info("%s: %s", self.server, said)
                await asyncio.sleep(self.poll_interval)
        except MlopsError as error:
            event = {"error": error.to_dict()}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]
