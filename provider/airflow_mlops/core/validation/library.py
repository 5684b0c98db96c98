"""Great Expectations as a quiet library: no log lines, no warnings, no telemetry."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType

from airflow_mlops.core.extras import require


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's own log lines and warnings, which may quote values, to itself for a while."""
    logger = logging.getLogger("great_expectations")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def great_expectations() -> ModuleType:
    """Return the library; its import alone logs a hundred lines.

    :raises MissingExtraError: if it is not installed.
    """
    with quiet():
        return require("great_expectations", "validate_data")
