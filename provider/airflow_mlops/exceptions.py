"""The core's errors as Airflow sees them: which are retried, and which are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_mlops.core.errors import GateFailedError, MlopsError, SupersededError

__all__ = ["MlopsFailed", "MlopsGateFailed", "MlopsSuperseded", "MlopsUnavailable", "raise_error_of", "translate"]


class MlopsUnavailable(AirflowException):
    """Something outside does not answer or changed under our hands; a retry may succeed."""


class MlopsFailed(AirflowFailException):
    """Wrong input, missing library, refused credentials: a retry would end the same."""


class MlopsGateFailed(MlopsFailed):
    """A gate said no. Its report has been pushed."""


class MlopsSuperseded(MlopsFailed):
    """A later ledger entry stands, and this task must not undo it."""


def translate(error: MlopsError) -> AirflowException:
    """Return the Airflow exception for an error of the core, with the same message."""
    text = f"{type(error).__name__}: {error.message}"
    if isinstance(error, GateFailedError):
        return MlopsGateFailed(text)
    if isinstance(error, SupersededError):
        return MlopsSuperseded(text)
    return MlopsUnavailable(text) if error.retryable else MlopsFailed(text)


def raise_error_of(event: Mapping[str, Any]) -> None:
    """Raise the error that a trigger met, if its event tells of one."""
    if error := event.get("error"):
        kind = MlopsUnavailable if error["retryable"] else MlopsFailed
        raise kind(f"{error['type']}: {error['message']}")
