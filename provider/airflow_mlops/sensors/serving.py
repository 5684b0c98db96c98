"""ModelServerSensor: wait until a server serves a model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.serving.client import Wanted
from airflow_mlops.hooks.model_server import ModelServerHook
from airflow_mlops.sensors.base import LookingSensor

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

log = logging.getLogger("airflow_mlops.task")


class ModelServerSensor(LookingSensor):
    """Wait until a server's answers, through its gateway, are those of one model.

    Returns what serves: ``server``, ``model``, ``version``, ``digest``, ``deployment``. During a canary both models
    answer: it takes ``answers`` of the wanted one in a row. A server that does not answer, or is not there yet, is
    waited for.

    :param server: name of the server. (templated)
    :param model: what to wait for: a deployment's report, such as ``deploy.output``; a model ref with a ``digest`` or
        with ``name`` and ``version``; a digest; ``name/3``; or a version's number. (templated)
    :param answers: so many answers in a row must be the model's.
    :param server_conn_id: connection of type ``model_server``; None: the configuration's back end. (templated)
    :param deferrable: wait in the triggerer, not in a worker; default ``[operators] default_deferrable``.
    """

    finds = "served"
    template_fields: Sequence[str] = ("server", "model", "server_conn_id")

    def __init__(
        self,
        *,
        server: str,
        model: Any,
        answers: int = 5,
        server_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if answers < 1:
            raise ValueError(f"answers must be 1 or more, got {answers}")
        self.server = server
        self.model = model
        self.answers = answers
        self.server_conn_id = server_conn_id

    def look(self, context: Context) -> dict[str, Any] | None:
        """Ask the server."""
        found, said = Wanted.of(self.model).served(self._address, self.server, self.answers)
        log.info("%s: %s", self.server, said)
        return found

    def trigger(self, context: Context) -> BaseTrigger:
        """Return the trigger that looks from now on."""
        from airflow_mlops.triggers.serving import ModelServerSensorTrigger

        return ModelServerSensorTrigger(
            address=self._address,
            server=self.server,
            model=self.model,
            answers=self.answers,
            poll_interval=self.poke_interval,
        )

    @property
    def _address(self) -> str:
        return ModelServerHook(self.server_conn_id).address
