"""Triggers that wait for an alias to be moved: one for a sensor, one for an asset."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Hashable
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_mlops.core import digests
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.registry import aliases
from airflow_mlops.core.registry.aliases import Aliases, Told
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.triggers import polling, watermark

if TYPE_CHECKING:
    from airflow_mlops.backend import Tracking

log = logging.getLogger("airflow_mlops.task")

WATERMARK = "mlops_model_alias"
#: MLflow takes credentials from the environment, which all triggers of a triggerer share.
_ENVIRONMENT = threading.Lock()


class Look:
    """Looks at a registry; from an event loop in a thread, connections are asked for as Airflow wants."""

    def __init__(self, mlflow_conn_id: str | None) -> None:
        self.mlflow_conn_id = mlflow_conn_id
        self._tracking: polling.Renewed[Tracking] = polling.Renewed(self._ask)
        self.forget = self._tracking.forget

    def _ask(self) -> Tracking:
        from airflow_mlops.hooks.mlflow import MLflowHook

        return MLflowHook(self.mlflow_conn_id).tracking

    async def soon(self, model: str | None = None) -> tuple[str, Aliases]:
        """Return the registry's address, and its aliases: of all models, or of one."""
        tracking = await self._tracking.get()
        return await asyncio.to_thread(_look, tracking, model)

    def now(self, model: str) -> tuple[str, Aliases]:
        """Do the same in a worker."""
        return _look(self._ask(), model)


def _look(tracking: Tracking, model: str | None) -> tuple[str, Aliases]:
    from airflow_mlops import backend
    from airflow_mlops.core.extras import silence_telemetry
    from airflow_mlops.core.steps import StepContext
    from airflow_mlops.core.store import LocalStore

    silence_telemetry()
    context = StepContext(
        store=LocalStore("/dev/null"), tracking_uri=tracking.tracking_uri, registry_uri=tracking.registry_uri
    )
    with _ENVIRONMENT, backend.environment(tracking.environment):
        found = aliases.look(context, model)
    return strip_credentials(tracking.registry_uri or tracking.tracking_uri), found


class ModelAliasSensorTrigger(BaseTrigger):
    """Wait until an alias points at another version, then end.

    Its one event is ``{"alias": {...}}`` or ``{"error": {...}}``.

    :param model_name: the registered model.
    :param alias: its alias.
    :param since: see :class:`airflow_mlops.sensors.registry.ModelAliasSensor`.
    :param version: only this version will do.
    :param mlflow_conn_id: connection of type ``mlflow``.
    :param poll_interval: seconds between two looks.
    """

    def __init__(
        self,
        *,
        model_name: str,
        alias: str = "champion",
        since: Any = None,
        version: Any = None,
        mlflow_conn_id: str | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model_name = model_name
        self.alias = alias
        self.since = since
        self.version = version
        self.mlflow_conn_id = mlflow_conn_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        names = ("model_name", "alias", "since", "version", "mlflow_conn_id", "poll_interval")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it was moved."""
        registry = Look(self.mlflow_conn_id)

        async def look() -> dict[str, Any] | None:
            place, found = await registry.soon(self.model_name)
            return wanted(place, self.model_name, self.alias, found, self.since, self.version)

        yield await polling.first_find("alias", look, registry.forget, self.poll_interval)


def wanted(place: str, model: str, alias: str, found: Aliases, since: Any, version: Any) -> dict[str, Any] | None:
    """Return where an alias points, if that is what a sensor waits for.

    :raises SpecError: for a version or a ``since`` that cannot be.
    """
    told = Told.of(since)
    # A sensor is asked anew each time; its ids are those of the version, not of the move.
    move = aliases.moved(place, model, alias, found, Told(told.version))
    number = Told.of(version).version
    return move if move and number in (None, move["version"]) else None


class ModelAliasEventTrigger(BaseEventTrigger):
    """Tell each time that an alias points at another version, for an ``AssetWatcher``; never ends.

    The payload is ``{"kind": "model_alias", "id", "model_name", "alias", "version", "previous_version", "uri"}``. A
    move back to a version that was told of before is told of, under another id. An alias that is not there yet, or
    that was removed, is waited for. Of several moves between two looks the last one is told. At first it tells of the
    version that is there.

    What was told is kept: with the asset on Airflow 3.3 and later, before that in the store. On 3.3 all watchers of one
    MLflow connection also share one poll: one question to the server, however many models and aliases are watched.

    :param model_name: the registered model.
    :param alias: its alias.
    :param mlflow_conn_id: connection of type ``mlflow``; None: the configuration's back end.
    :param poll_interval: seconds between two looks; watchers with the same share a poll.
    """

    def __init__(
        self,
        *,
        model_name: str,
        alias: str = "champion",
        mlflow_conn_id: str | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model_name = model_name
        self.alias = alias
        self.mlflow_conn_id = mlflow_conn_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        names = ("model_name", "alias", "mlflow_conn_id", "poll_interval")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    def shared_stream_key(self) -> Hashable:
        """Return what watchers of one registry have in common (Airflow 3.3 and later)."""
        return (type(self).__name__, self.mlflow_conn_id or "", str(self.poll_interval))

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[tuple[str, Aliases]]:
        """Look for ever; what goes wrong is logged, and looked for again."""
        registry = Look(kwargs.get("mlflow_conn_id"))
        while True:
            with polling.endured("the model registry", registry.forget):
                yield await registry.soon()
            await asyncio.sleep(kwargs.get("poll_interval", 60.0))

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[tuple[str, Aliases]]
    ) -> AsyncIterator[TriggerEvent]:
        """Tell of this trigger's alias."""
        told: Told | None = None
        async for place, found in shared_stream:
            told = await self._load(place) if told is None else told
            version = found.get(self.model_name, {}).get(self.alias)
            move = aliases.moved(place, self.model_name, self.alias, found, told)
            if move:
                yield TriggerEvent(move)  # type: ignore[no-untyped-call]
            elif version is not None or told.version is None:
                continue
            else:
                log.warning("%s has no alias %s any more; waiting for it", self.model_name, self.alias)
            told = told.after(version)
            # After the event: killed between the two, it is told of once more, under the same id.
            await watermark.told(self, WATERMARK, self._place(place), told.to_dict())

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Do the same with a poll of its own, where Airflow shares none."""
        async for event in self.filter_shared_stream(self.open_shared_stream(self.serialize()[1])):
            yield event

    async def _load(self, place: str) -> Told:
        try:
            return Told.of(await watermark.load(self, WATERMARK, self._place(place)))
        except SpecError as error:
            log.warning("what was told cannot be read (%s): what is there is told of again", error)
            return Told()

    def _place(self, place: str) -> str:
        return digests.of_json([place, self.model_name, self.alias])
