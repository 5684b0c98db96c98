"""What the settings of every runtime share: known keys, variables, folders of code."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.training.process import _SECRET_NAME


def check_keys(runtime: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a key that a runtime does not have; the values may still be templates.

    :raises SpecError: naming the nearest key.
    """
    for key in runtime:
        if key not in known:
            raise SpecError(f"runtime has no key {key!r}{did_you_mean(key, known) or '.'} Keys: {', '.join(known)}")


def read_variables(value: Any, key: str) -> dict[str, str]:
    """Return environment variables as text; one that is None is left out.

    :raises SpecError: for what cannot be one.
    """
    if not isinstance(value, Mapping):
        raise SpecError(f"runtime[{key!r}] must be an object of variables by name, got a {type(value).__name__}")
    for name, one in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)) or isinstance(one, (dict, list)):
            raise SpecError(f"runtime[{key!r}]: {name!r} cannot be the name of a variable with a text value")
        if "\0" in str(one):
            raise SpecError(f"runtime[{key!r}]: the value of {name!r} has a zero byte, which no variable can hold")
    return {str(name): str(one) for name, one in value.items() if one is not None}


def secret_variables(runtime: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a runtime that must not show: the private ones, and those with names of secrets."""
    found: dict[str, str] = {}
    for key, private in (("environment", False), ("private_environment", True)):
        given = runtime.get(key)
        for name, value in given.items() if isinstance(given, Mapping) else ():
            if value is not None and (private or _SECRET_NAME.search(str(name))):
                found[str(name)] = str(value)
    return found


def read_folders(value: Any, key: str) -> tuple[str, ...]:
    """Return a list of folders.

    :raises SpecError: for anything else.
    """
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise SpecError(f"runtime[{key!r}] must be a list of folders, got {value!r}")
    return tuple(value)
