"""Objects by import string, and the digest of the code they come from."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import SpecError, did_you_mean


def load(path: str | Callable[..., Any], what: str) -> Callable[..., Any]:
    """Return the callable of ``"package.module:qualname"``; a callable comes back as it is.

    :param what: what it is for, for the message: ``"trainer"``.
    :raises SpecError: if the module or the name does not exist or is not callable.
    """
    if callable(path):
        return path
    module_name, colon, qualname = str(path).partition(":")
    if not colon or not module_name or not qualname:
        raise SpecError(f"{what} must be a callable or 'package.module:function', got {path!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        raise SpecError(
            f"{what} {path!r}: there is no module {missing!r} on the path of the process that runs the step; "
            "put its package beside the DAG or install it"
        ) from error
    found: Any = module
    for part in qualname.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, [n for n in dir(found) if not n.startswith("_")])
            raise SpecError(f"{what} {path!r}: {module_name} has no {part!r}{near}")
        found = getattr(found, part)
    if not callable(found):
        raise SpecError(f"{what} {path!r} is a {type(found).__name__}, not a callable")
    return found  # type: ignore[no-any-return]


def source_root(function: Callable[..., Any]) -> Path | None:
    """Return the folder of the top package that defines a function, or its file if it is a lone module.

    None where there is no source file (a builtin, a REPL).
    """
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    try:
        file = Path(inspect.getsourcefile(function) or "")
    except TypeError:
        file = Path(getattr(module, "__file__", None) or "")
    if not file.is_file():
        return None
    depth = (module.__name__.count(".") if module else 0) + (1 if file.name == "__init__.py" else 0)
    return file.resolve().parents[depth - 1] if depth else file.resolve()


def code_digest(*functions: Callable[..., Any] | None) -> str:
    """Return a digest of the source that functions come from: every ``.py`` file of their top package.

    A function from site-packages counts by its name alone: its version is in the environment. One without a file
    counts by its own source or bytecode.
    """
    parts: dict[str, Any] = {}
    for function in functions:
        if function is None:
            continue
        name = f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"
        root = source_root(function)
        if root is None:
            code = getattr(function, "__code__", None)
            parts[name] = digests.of_bytes(code.co_code + repr(code.co_consts).encode()) if code else name
        elif "site-packages" in root.parts:
            parts[name] = name
        elif root.is_file():
            parts[name] = digests.of_file(root)
        else:
            parts[name] = {p.relative_to(root).as_posix(): digests.of_file(p) for p in sorted(root.rglob("*.py"))}
    return digests.of_json(parts)
