"""The static check of the tests that a user wrote: defaults filled in, a name each, mistakes told.

Nothing here imports a heavy library: operators check their tests as the DAG is parsed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.evaluation.kinds import COMMON, KINDS, Kind, Option, is_number
from airflow_mlops.core.training.metrics import metric


def check_tests(tests: Any, *, rendered: bool = True) -> list[dict[str, Any]]:
    """Return the tests with defaults filled in and a name each, or say what is wrong with them.

    :param tests: a list of dicts, each with a ``kind``; see :data:`.kinds.KINDS`.
    :param rendered: False while the DAG is parsed: values that Airflow has yet to render are then taken as they are.
    :raises SpecError: for an unknown kind or option (with the nearest), a missing one or a wrong value; the message
        says which test.
    """
    if isinstance(tests, (str, bytes, Mapping)) or not isinstance(tests, (list, tuple)):
        raise SpecError(f"tests must be a list of dicts like {{'kind': 'signature'}}, got {type(tests).__name__}")
    if not tests:
        raise SpecError("tests is empty: nothing would be tested; leave it out for the default tests")
    names: dict[str, int] = {}
    checked = []
    for number, test in enumerate(tests, 1):
        spec = _check(test, f"test {number}", rendered)
        names[spec["name"]] = names.get(spec["name"], 0) + 1
        if names[spec["name"]] > 1:
            spec["name"] = f"{spec['name']} ({names[spec['name']]})"
        checked.append(spec)
    return checked


def check_of_log(specs: list[dict[str, Any]]) -> None:
    """Refuse tests that need the model itself where there is a log of its predictions.

    :raises SpecError: naming the test and what can be asked of a log.
    """
    for spec in specs:
        if not KINDS[spec["kind"]].of_log:
            can = ", ".join(name for name, kind in KINDS.items() if kind.of_log)
            raise SpecError(
                f"the test {spec['name']!r} ({spec['kind']}) needs the model, and predictions= is only a log of what "
                f"it said; of a log these can be asked: {can}. Give model= and a dataset for the others",
                test=spec["name"],
            )


def check_of_backtest(specs: list[dict[str, Any]]) -> None:
    """Refuse tests that a backtest cannot answer.

    :raises SpecError: naming the test and what can be asked of a backtest.
    """
    for spec in specs:
        if not KINDS[spec["kind"]].of_backtest:
            can = ", ".join(name for name, kind in KINDS.items() if kind.of_backtest)
            raise SpecError(
                f"the test {spec['name']!r} ({spec['kind']}) is about the model itself, and on='backtest' judges what "
                f"its recipe makes of past windows; of a backtest these can be asked: {can}. Ask the others in a task "
                "of their own, on rows that were held out",
                test=spec["name"],
            )


def _check(test: Any, where: str, rendered: bool) -> dict[str, Any]:
    if not isinstance(test, Mapping):
        raise SpecError(f"{where} must be a dict like {{'kind': 'signature'}}, got {type(test).__name__}")
    if "kind" not in test:
        raise SpecError(f"{where} has no 'kind'; there are: {', '.join(KINDS)}")
    name = test["kind"]
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        near = did_you_mean(str(name), KINDS)
        raise SpecError(f"{where}: there is no kind {name!r}{near or ';'} Kinds: {', '.join(KINDS)}", test=where)
    where = f"{where} ({name})"
    options = {**COMMON, **kind.options}
    for key in test:
        if key != "kind" and key not in options:
            near = did_you_mean(str(key), options)
            raise SpecError(f"{where} has no option {key!r}{near or ';'} it takes: {', '.join(options)}", test=where)
    spec: dict[str, Any] = {"kind": name}
    for key, option in options.items():
        if test.get(key) is not None:
            spec[key] = test[key] if not rendered and _pending(test[key]) else _value(option, key, test[key], where)
        elif option.required:
            raise SpecError(f"{where} needs {key!r}: {option.says}", test=where, option=key)
        elif option.default is not None:
            spec[key] = option.default
    if kind.any_of and not any(key in spec for key in kind.any_of):
        raise SpecError(f"{where} needs {' or '.join(map(repr, kind.any_of))}", test=where)
    if is_number(spec.get("min")) and is_number(spec.get("max")) and spec["min"] > spec["max"]:
        raise SpecError(f"{where}: 'min' {spec['min']} is above 'max' {spec['max']}: no value could pass", test=where)
    spec.setdefault("name", _label(kind, spec))
    return spec


def _value(option: Option, key: str, value: Any, where: str) -> Any:
    if option.number and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
    if not option.holds(value):
        raise SpecError(f"{where}: {key!r} must be {option.says}, got {value!r}", test=where, option=key)
    if key == "metric" and isinstance(value, str) and ":" not in value:
        try:
            metric(value)
        except SpecError as error:
            raise SpecError(f"{where}: {error.message}", test=where, option=key) from None
    return value


def _pending(value: Any) -> bool:
    """Return whether Airflow has yet to render a value: a template, or another task's output."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    return hasattr(value, "resolve") and hasattr(value, "iter_references")


def _label(kind: Kind, spec: dict[str, Any]) -> str:
    return kind.label.format(**{key: _said(value) for key, value in spec.items()})


def identity(specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return checked tests as JSON that is equal in every process: functions by their import string."""
    return [
        {
            key: f"{value.__module__}:{getattr(value, '__qualname__', type(value).__name__)}"
            if callable(value)
            else value
            for key, value in spec.items()
        }
        for spec in specs
    ]


def _said(value: Any) -> str:
    if callable(value):
        return str(getattr(value, "__name__", type(value).__name__))
    if isinstance(value, (list, tuple)):
        return ", ".join("×".join(part) if isinstance(part, (list, tuple)) else str(part) for part in value)
    return str(value)
