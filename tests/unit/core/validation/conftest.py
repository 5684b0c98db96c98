"""What the tests of validation share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_mlops.core.validation.expectations import read_expectations
from airflow_mlops.core.validation.outcome import Outcome
from airflow_mlops.core.validation.verdict import Validation, validate_frame


@pytest.fixture
def validate() -> Callable[..., Validation]:
    """Hold a frame to ``(type, kwargs)`` or ``(type, kwargs, severity)``."""

    def run(frame: Any, *expectations: tuple[Any, ...], **options: Any) -> Validation:
        written = [{"type": e[0], "kwargs": e[1], "severity": e[2] if len(e) > 2 else "critical"} for e in expectations]
        return validate_frame(frame, read_expectations(written), **options)

    return run


@pytest.fixture
def one(validate: Callable[..., Validation]) -> Callable[..., Outcome]:
    """Hold a frame to one expectation and return its outcome."""

    def run(frame: Any, kind: str, options: dict[str, Any] | None = None, **kwargs: Any) -> Outcome:
        found = validate(frame, (kind, kwargs), **(options or {}))
        return found.outcomes[0]

    return run
