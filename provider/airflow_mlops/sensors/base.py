"""What the sensors have in common: one look, then the next in a worker or in the triggerer."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_mlops.core.errors import MlopsError
from airflow_mlops.exceptions import raise_error_of, translate

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger


class LookingSensor(BaseSensorOperator):
    """Look until something is found, and return it; a subclass says how to look, and which trigger goes on.

    :param deferrable: wait in the triggerer, not in a worker; default ``[operators] default_deferrable``.
    """

    #: Under which key the trigger's event has what was found.
    finds: ClassVar[str]
    ui_color = "#e8f1fa"

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable

    def look(self, context: Context) -> dict[str, Any] | None:
        """Look once; what is there is logged by :meth:`tell`."""
        raise NotImplementedError

    def trigger(self, context: Context) -> BaseTrigger:
        """Return the trigger that looks from now on."""
        raise NotImplementedError

    def tell(self, found: dict[str, Any]) -> None:
        """Log what was found."""

    def execute(self, context: Context) -> Any:
        """Look once and defer, or look until something is found."""
        if not self.deferrable:
            return super().execute(context)
        found = self._found(context)
        if not found:
            self.defer(
                trigger=self.trigger(context),
                method_name="execute_complete",
                timeout=dt.timedelta(seconds=self.timeout),
            )
        return found

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the trigger found, or raise what it met."""
        raise_error_of(event)
        found: dict[str, Any] = event[self.finds]
        self.tell(found)
        return found

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look once."""
        found = self._found(context)
        return PokeReturnValue(is_done=True, xcom_value=found) if found else False

    def _found(self, context: Context) -> dict[str, Any] | None:
        try:
            found = self.look(context)
        except MlopsError as error:
            raise translate(error) from error
        if found:
            self.tell(found)
        return found
