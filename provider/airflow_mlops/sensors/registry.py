"""ModelAliasSensor: wait for an alias of a registered model to be moved."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_mlops.core.errors import MlopsError
from airflow_mlops.exceptions import raise_error_of, translate

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger("airflow_mlops.task")


class ModelAliasSensor(BaseSensorOperator):
    """Wait until an alias of a registered model points at another version, whoever moved it.

    Returns where it points: ``id``, ``model_name``, ``alias``, ``version``, ``previous_version`` and ``uri``
    (``models:/churn/7``). It can be given as ``since`` to the next run. A model and an alias that are not there yet are
    waited for.

    :param model_name: the registered model. (templated)
    :param alias: its alias. (templated)
    :param since: the version that it is to point away from, or what a former run of this sensor returned; default: any
        version will do. (templated)
    :param version: only this version will do. (templated)
    :param mlflow_conn_id: connection of type ``mlflow``; None: the configuration's back end. (templated)
    :param deferrable: wait in the triggerer, not in a worker; default ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("model_name", "alias", "since", "version", "mlflow_conn_id")
    ui_color = "#e8f1fa"

    def __init__(
        self,
        *,
        model_name: str,
        alias: str = "champion",
        since: Any = None,
        version: int | str | None = None,
        mlflow_conn_id: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.alias = alias
        self.since = since
        self.version = version
        self.mlflow_conn_id = mlflow_conn_id
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Look once and defer, or look until it was moved."""
        if not self.deferrable:
            return super().execute(context)
        from airflow_mlops.triggers.registry import ModelAliasSensorTrigger

        found = self._look()
        if not found:
            self.defer(
                trigger=ModelAliasSensorTrigger(
                    model_name=self.model_name,
                    alias=self.alias,
                    since=self.since,
                    version=self.version,
                    mlflow_conn_id=self.mlflow_conn_id,
                    poll_interval=self.poke_interval,
                ),
                method_name="execute_complete",
                timeout=dt.timedelta(seconds=self.timeout),
            )
        return found

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the trigger found, or raise what it met."""
        raise_error_of(event)
        return _told(event["alias"])

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look once."""
        found = self._look()
        return PokeReturnValue(is_done=True, xcom_value=found) if found else False

    def _look(self) -> dict[str, Any] | None:
        from airflow_mlops.triggers.registry import Look, wanted

        try:
            place, found = Look(self.mlflow_conn_id).now(self.model_name)
            move = wanted(place, self.model_name, self.alias, found, self.since, self.version)
        except MlopsError as error:
            raise translate(error) from error
        return _told(move) if move else None


def _told(found: dict[str, Any]) -> dict[str, Any]:
    log.info("%s of %s points at version %s", found["alias"], found["model_name"], found["version"])
    return found
