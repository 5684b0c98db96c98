"""Objects by import string, and the digest of the code they come from."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import json
import re
import sys
import sysconfig
import textwrap
import types
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
            "put its package beside the DAG or install it",
            module=missing,
        ) from error
    except Exception as error:
        raise SpecError(
            f"{what} {path!r}: importing {module_name} fails with {type(error).__name__}: {error}"
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


def source_of(function: Callable[..., Any]) -> tuple[str, int]:
    """Return the source of a function without its decorators, not indented, and its first line's number in its file.

    What a decorator is given says how a task runs, not what the function does.

    :raises OSError: if there is no source.
    :raises TypeError: if it is no function with a ``def`` of its own.
    """
    lines, first = inspect.getsourcelines(function)
    source = textwrap.dedent("".join(lines))
    try:
        node = ast.parse(source).body[0]
    except SyntaxError as error:
        raise TypeError("it is part of another expression") from error
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise TypeError("it has no def")
    return "".join(source.splitlines(keepends=True)[node.lineno - 1 :]), first + node.lineno - 1


def code_digest(*functions: Callable[..., Any] | None) -> str:
    """Return a digest of the source that functions come from: every ``.py`` file of their top package.

    A function from an installed library counts by its name alone: its version is in the environment. One without a
    file counts by its bytecode. What ``functools.partial`` or a closure has bound counts too.
    """
    return digests.of_json([_described(function) for function in functions if function is not None])


def _described(function: Callable[..., Any]) -> dict[str, Any]:
    if isinstance(function, functools.partial):
        keywords = {name: _plain(value) for name, value in function.keywords.items()}
        return {"partial": _described(function.func), "args": [_plain(a) for a in function.args], "keywords": keywords}
    name = f"{module_of(function)}:{getattr(function, '__qualname__', type(function).__name__)}"
    root = source_root(function)
    source: Any
    if root is None:
        code = getattr(function, "__code__", None)
        source = _bytecode(code) if code else None
    elif _is_installed(root):
        source = None
    elif root.is_file():
        source = digests.of_file(root)
    else:
        source = {p.relative_to(root).as_posix(): digests.of_file(p) for p in sorted(root.rglob("*.py"))}
    return {"name": name, "source": source, "closure": _closure(function)}


def module_of(function: Callable[..., Any]) -> str:
    """Return the module's name, without what Airflow puts before that of a DAG file: a digest of where it lies."""
    return re.sub(r"^unusual_prefix_[0-9a-f]+_", "", getattr(function, "__module__", None) or "")


def _is_installed(root: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(root.parts):
        return True
    return root.is_relative_to(Path(sysconfig.get_path("stdlib")).resolve())


def _closure(function: Callable[..., Any]) -> list[Any]:
    found = []
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # not bound yet
            found.append(_plain(cell.cell_contents))
    return found


def _plain(value: Any) -> Any:
    """Return a JSON value as it is, and of another thing its name or type: its text may have an address in it."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return getattr(value, "__qualname__", type(value).__qualname__)


def _bytecode(code: types.CodeType) -> list[Any]:
    # The text of a code object inside has its address in memory.
    constants = [
        _bytecode(c) if isinstance(c, types.CodeType) else sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c)
        for c in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), constants]
