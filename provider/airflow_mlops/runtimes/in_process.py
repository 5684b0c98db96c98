"""The in-process runtime: the step runs in the task's own process."""

from __future__ import annotations

import logging
from typing import Any

from airflow_mlops.backend import environment
from airflow_mlops.core.steps import run_step
from airflow_mlops.core.training import process
from airflow_mlops.runtimes.base import Job, Runtime


class InProcessRuntime(Runtime):
    """Run a step here, with the job's variables in the environment while it runs."""

    def run(self, job: Job, log: logging.Logger) -> dict[str, Any]:
        """Run the step; callables in the spec may be objects."""
        with environment(job.variables):
            return run_step(job.spec, log)

    def cancel(self) -> None:
        """Stop the processes that the step has started; the signal that ends the task's process ends the rest."""
        process.stop_all()
