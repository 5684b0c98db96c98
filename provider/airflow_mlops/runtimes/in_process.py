"""The in-process runtime: the step runs in the task's own process."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from airflow_mlops.backend import environment
from airflow_mlops.core.steps import run_step


def run(spec: dict[str, Any], variables: Mapping[str, str], logger: logging.Logger) -> dict[str, Any]:
    """Run a step here.

    :param spec: see :func:`airflow_mlops.core.steps.run_step`; callables may be objects.
    :param variables: environment variables with credentials, set while the step runs.
    """
    with environment(variables):
        return run_step(spec, logger)
