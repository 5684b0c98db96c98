"""Instants in expectations: JSON has none, so they come as text, and Great Expectations does not compare those."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.validation.column_types import ColumnType
from airflow_mlops.core.validation.expectations import Expectation
from airflow_mlops.core.vocabulary import parse_instant

if TYPE_CHECKING:
    import pandas

_BOUNDS = ("min_value", "max_value")


def with_instants(expectation: Expectation, frame: pandas.DataFrame, kinds: dict[str, ColumnType]) -> dict[str, Any]:
    """Return the arguments with text and dates as instants, where the column holds instants.

    An instant without a zone is UTC where the column has one; where it has none, the column is taken as UTC.
    """
    kwargs = dict(expectation.kwargs)
    columns = expectation.columns
    if len(columns) != 1 or not kinds[columns[0]].is_instant:
        return kwargs
    zoned = getattr(frame[columns[0]].dtype, "tz", None) is not None
    for key in _BOUNDS:
        if key in kwargs:
            kwargs[key] = _instant(kwargs[key], zoned)
    if isinstance(kwargs.get("value_set"), list):
        import pandas as pd

        # In a set pandas finds its own Timestamps only.
        kwargs["value_set"] = [
            pd.Timestamp(v) if isinstance(v, dt.datetime) else v
            for v in (_instant(value, zoned) for value in kwargs["value_set"])
        ]
    return kwargs


def with_python_instants(expectation: Expectation, kind: ColumnType | None) -> dict[str, Any]:
    """Return the arguments with text as Python's instants or dates, where the database's column holds those.

    :param kind: the type of the expectation's only column; None where there are several.
    """
    kwargs = dict(expectation.kwargs)
    if kind is None or not kind.traits & {"timestamp", "date"}:
        return kwargs

    def one(value: Any) -> Any:
        found = _instant(value, "timestamp with zone" in kind.traits)
        return found.date() if "date" in kind.traits and isinstance(found, dt.datetime) else found

    for key in _BOUNDS:
        if key in kwargs:
            kwargs[key] = one(kwargs[key])
    if isinstance(kwargs.get("value_set"), list):
        kwargs["value_set"] = [one(value) for value in kwargs["value_set"]]
    return kwargs


def _instant(value: Any, zoned: bool) -> Any:
    if not isinstance(value, (str, dt.date)):
        return value
    try:
        instant = parse_instant(value)
    except SpecError:
        return value
    return instant if zoned else instant.astimezone(dt.timezone.utc).replace(tzinfo=None)
