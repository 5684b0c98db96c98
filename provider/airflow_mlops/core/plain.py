"""Any value as plain JSON values."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
from collections.abc import Mapping, Sequence, Set
from typing import Any


def clean(value: Any) -> Any:
    """Return ``value`` as JSON can hold it.

    NaN, infinity, NaT and pandas' NA become null; numpy, pandas and Arrow scalars and arrays become Python's;
    decimals numbers; dates, times and durations text; bytes text; tuples, sets and other sequences lists. Text that
    UTF-8 cannot hold is escaped. What is none of these becomes its ``str()``.

    :param value: any value made of mappings, sequences and scalars.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return clean(value.value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(k): clean(v) for k, v in value.items()}
    if isinstance(value, Set):
        return sorted((clean(v) for v in value), key=str)
    if hasattr(type(value), "to_dict") and hasattr(type(value), "kind"):
        return clean(value.to_dict())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Sequence):
        return [clean(v) for v in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    """Return what the libraries' own types stand for; nothing is imported for it."""
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if type(value).__module__ == "numpy" and value.dtype.kind in "mM":
        return _instants(value.astype(str).tolist())
    for method in ("tolist", "as_py", "to_pylist"):
        if callable(getattr(value, method, None)):
            return clean(getattr(value, method)())
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        text = value.isoformat()
        return None if text == "NaT" else text
    text = str(value)
    return None if text in ("NaT", "<NA>") else _text(text)


def _instants(texts: Any) -> Any:
    """Return numpy's datetimes and durations as text; its own ``tolist`` makes nanoseconds bare integers."""
    if isinstance(texts, list):
        return [_instants(text) for text in texts]
    return None if texts == "NaT" else texts


def _key(key: Any) -> str:
    return _text(key) if isinstance(key, str) else str(clean(key))


def _text(value: str) -> str:
    text = str.__str__(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
