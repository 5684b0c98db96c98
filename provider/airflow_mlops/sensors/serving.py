"""ModelServerSensor: wait until a server serves a model."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_mlops.core.errors import MlopsError
from airflow_mlops.core.serving.client import Wanted
from airflow_mlops.exceptions import raise_error_of, translate
from airflow_mlops.hooks.model_server import ModelServerHook

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger("airflow_mlops.task")


class ModelServerSensor(BaseSensorOperator):
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

    template_fields: Sequence[str] = ("server", "model", "server_conn_id")
    ui_color = "#e8f1fa"

    def __init__(
        self,
        *,
        server: str,
        model: Any,
        answers: int = 5,
        server_conn_id: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if answers < 1:
            raise ValueError(f"answers must be 1 or more, got {answers}")
        self.server = server
        self.model = model
        self.answers = answers
        self.server_conn_id = server_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Look once and defer, or look until the model serves."""
        if not self.deferrable:
            return super().execute(context)
        from airflow_mlops.triggers.serving import ModelServerSensorTrigger

        try:
            address, found = self._look()
        except MlopsError as error:
            raise translate(error) from error
        if not found:
            self.defer(
                trigger=ModelServerSensorTrigger(
                    address=address,
                    server=self.server,
                    model=self.model,
                    answers=self.answers,
                    poll_interval=self.poke_interval,
                ),
                method_name="execute_complete",
                timeout=dt.timedelta(seconds=self.timeout),
            )
        return found

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the trigger found, or raise what it met."""
        raise_error_of(event)
        found: dict[str, Any] = event["served"]
        return found

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Ask the server."""
        try:
            _, found = self._look()
        except MlopsError as error:
            raise translate(error) from error
        return PokeReturnValue(is_done=True, xcom_value=found) if found else False

    def _look(self) -> tuple[str, dict[str, Any] | None]:
        address = ModelServerHook(self.server_conn_id).address
        found, said = Wanted.of(self.model).served(address, self.server, self.answers)
        log.info("%s: %s", self.server, said)
        return address, found
