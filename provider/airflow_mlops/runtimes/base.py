"""What a runtime is: where a step runs, and how it is stopped."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger


@dataclass(frozen=True)
class Job:
    """One step that is to run.

    :param spec: see :func:`airflow_mlops.core.steps.run_step`, without credentials. In process a callable may be an
        object; elsewhere it must be importable.
    :param variables: environment variables with credentials for the step.
    :param code: folders that the step's own code is imported from: the DAG bundle's, then the DAG file's.
    :param ship: functions of the spec that need not be importable, because their source goes along: those under a
        decorator.
    :param limit: seconds after which nobody waits for the step any more: the task's ``execution_timeout``. A runtime
        whose steps outlive the worker, or are waited for elsewhere, ends the step then.
    """

    spec: dict[str, Any]
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    code: tuple[str, ...] = ()
    ship: tuple[Callable[..., Any], ...] = ()
    limit: float | None = None


class Runtime(ABC):
    """Where a step runs. One object serves one try of one task."""

    #: Whether the wait for the step can be handed to the triggerer.
    can_defer: ClassVar[bool] = False

    @abstractmethod
    def run(self, job: Job, log: logging.Logger) -> dict[str, Any]:
        """Run the step to its end and return its result. Its log lines go to ``log`` as they come.

        :raises MlopsError: the error of the step, or what kept the runtime from running it.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Stop the step, if it runs, with all that it started. Called from a signal handler; never raises."""

    def begin(self, job: Job, log: logging.Logger) -> BaseTrigger:
        """Start the step, or find the one that an earlier try started, and return a trigger that waits for it."""
        raise NotImplementedError(f"{type(self).__name__} cannot be deferred")

    def complete(self, job: Job, event: dict[str, Any], log: logging.Logger) -> dict[str, Any]:
        """Return the result of the step that :meth:`begin` started, after the trigger has fired with ``event``."""
        raise NotImplementedError(f"{type(self).__name__} cannot be deferred")
