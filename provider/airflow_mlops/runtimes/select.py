"""From an operator's ``runtime`` argument to the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.runtimes.base import Runtime
from airflow_mlops.runtimes.settings import check_keys

#: The key that says where a step runs, and the module and class that run it there.
KINDS = {
    "python": "airflow_mlops.runtimes.python:PythonRuntime",
    "image": "airflow_mlops.runtimes.docker:DockerRuntime",
}
#: The module that reads what the dict may hold further.
SETTINGS = {
    "python": "airflow_mlops.runtimes.python_settings",
    "image": "airflow_mlops.runtimes.docker_settings",
}


def kind_of(runtime: Any) -> str | None:
    """Return ``image``, ``python``, or None for the task's own process.

    An image may name the Python inside it, so it is looked for first.

    :raises SpecError: if ``runtime`` is neither None nor a dict with one of these keys.
    """
    if runtime is None or runtime == "" or runtime == {}:
        return None
    if isinstance(runtime, Mapping):
        for kind in ("image", "python"):
            if kind in runtime:
                return kind
        near = next((hint for key in runtime if (hint := did_you_mean(key, KINDS))), "")
        raise SpecError(f"runtime has neither 'python' nor 'image', but {', '.join(map(repr, runtime))}{near}")
    raise SpecError(
        "runtime must be None (the task's own process), {'python': '/path/to/python'} or {'image': 'name:tag'}, "
        f"got {runtime!r}"
    )


def check_runtime(runtime: Any) -> str | None:
    """Refuse a description that names no runtime, or keys that its runtime does not have; values may be templates.

    :return: as :func:`kind_of`.
    :raises SpecError: naming the nearest key.
    """
    kind = kind_of(runtime)
    if kind is not None:
        check_keys(runtime, import_module(SETTINGS[kind]).KEYS)
    return kind


def runtime_of(runtime: Any) -> Runtime:
    """Return the runtime that ``runtime`` describes.

    :raises SpecError: for a description that no runtime understands.
    :raises MissingExtraError: if the runtime's library is not installed.
    """
    kind = kind_of(runtime)
    if kind is None:
        from airflow_mlops.runtimes.in_process import InProcessRuntime

        return InProcessRuntime()
    module, _, name = KINDS[kind].partition(":")
    return getattr(import_module(module), name)(runtime)  # type: ignore[no-any-return]
