"""What goes from task to task fits: at most 16 KB of JSON, and what is cut first is written down here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.plain import clean

#: A field, or a field of a field.
Path = tuple[str, ...]

#: Bytes of JSON that one task may put into XCom.
XCOM_LIMIT = 16 * 1024
#: Characters that are left of a long text.
SHORT = 300

#: What the next task cannot go on without: never cut.
KEPT = frozenset(
    {
        "action",
        "alias",
        "details_uri",
        "digest",
        "format",
        "kind",
        "model",
        "model_id",
        "name",
        "passed",
        "previous_version",
        "report_uri",
        "rows",
        "run_id",
        "schema",
        "schema_uri",
        "seq",
        "severity",
        "uri",
        "version",
    }
)


def fit_xcom(value: dict[str, Any], limit: int = XCOM_LIMIT) -> dict[str, Any]:
    """Return the dict trimmed to at most ``limit`` bytes of JSON, as Airflow writes it.

    What goes first, until it fits: long texts of failures and then the failures from the least bad one on, the
    columns of dataset refs, metrics; then whatever is largest, but never :data:`KEPT`. Each cut is named in
    ``trimmed``; everything stands in the store, under ``details_uri``, ``schema_uri`` or in the model's record.

    :raises SpecError: if what must be kept is itself too large.
    """
    value = clean(value)
    if _size(value) <= limit:
        return value
    trimmed: list[str] = []
    value = {**value, "trimmed": trimmed}

    def cut(path: Path, less: Any) -> None:
        holder = value[path[0]] if len(path) == 2 else value
        holder[path[-1]] = less
        if ".".join(path) not in trimmed:
            trimmed.append(".".join(path))

    if isinstance(value.get("failures"), list):
        cut(("failures",), [_shortened(failure) for failure in value["failures"]])
        while value["failures"] and _size(value) > limit:
            value["failures"].pop()
    first: dict[Path, Any] = {
        ("columns",): None,
        ("test_dataset", "columns"): None,
        ("dataset", "columns"): None,
        ("metrics",): {},
    }
    for path, less in first.items():
        if _size(value) > limit and _at(value, path):
            cut(path, less)
    while _size(value) > limit:
        candidates = sorted(_droppable(value), reverse=True)
        if not candidates:
            raise SpecError(f"the result has {_size(value)} bytes after trimming; XCom takes {limit}")
        path = candidates[0][2]
        cut(path, _less(_at(value, path), path[-1]))
    return value


def _size(value: Any) -> int:
    return len(json.dumps(value))


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= SHORT else value[:SHORT] + "…"
    if isinstance(value, dict):
        return {key: _shortened(v) for key, v in value.items()}
    return value


def _less(value: Any, name: str) -> Any:
    """Return a long text cut, a short one and a dict or list gone."""
    if isinstance(value, str):
        return _shortened(value) if name == "summary" or len(value) > SHORT + 1 else None
    return [] if isinstance(value, list) else {} if isinstance(value, dict) else value


def _droppable(value: dict[str, Any]) -> Iterator[tuple[bool, int, Path]]:
    """Yield what a cut makes smaller: fields, and the fields of those that are dicts.

    A dataset or model inside (what has a ``kind``) is cut as a whole only when nothing else is left.
    """
    for key, field in value.items():
        if key in KEPT or key == "trimmed":
            continue
        inner = {k: v for k, v in field.items() if k not in KEPT} if isinstance(field, dict) else {}
        parts = [(True, _gain(v, k), (key, k)) for k, v in inner.items() if _gain(v, k) > 0]
        if parts:
            yield from parts
        elif _gain(field, key) > 0:
            yield not (isinstance(field, dict) and "kind" in field), _gain(field, key), (key,)


def _gain(value: Any, name: str) -> int:
    return _size(value) - _size(_less(value, name))


def _at(value: dict[str, Any], path: Path) -> Any:
    found: Any = value
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found
