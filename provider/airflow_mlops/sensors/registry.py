"""ModelAliasSensor: wait for an alias of a registered model to be moved."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.sensors.base import LookingSensor

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

log = logging.getLogger("airflow_mlops.task")


class ModelAliasSensor(LookingSensor):
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

    finds = "alias"
    template_fields: Sequence[str] = ("model_name", "alias", "since", "version", "mlflow_conn_id")

    def __init__(
        self,
        *,
        model_name: str,
        alias: str = "champion",
        since: Any = None,
        version: int | str | None = None,
        mlflow_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.alias = alias
        self.since = since
        self.version = version
        self.mlflow_conn_id = mlflow_conn_id

    def look(self, context: Context) -> dict[str, Any] | None:
        """Look once."""
        from airflow_mlops.triggers.registry import Look, wanted

        place, found = Look(self.mlflow_conn_id).now(self.model_name)
        return wanted(place, self.model_name, self.alias, found, self.since, self.version)

    def trigger(self, context: Context) -> BaseTrigger:
        """Return the trigger that looks from now on."""
        from airflow_mlops.triggers.registry import ModelAliasSensorTrigger

        return ModelAliasSensorTrigger(
            model_name=self.model_name,
            alias=self.alias,
            since=self.since,
            version=self.version,
            mlflow_conn_id=self.mlflow_conn_id,
            poll_interval=self.poke_interval,
        )

    def tell(self, found: dict[str, Any]) -> None:
        """Log what was found."""
        log.info("%s of %s points at version %s", found["alias"], found["model_name"], found["version"])
