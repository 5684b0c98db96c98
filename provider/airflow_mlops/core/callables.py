"""Callables in a spec that leaves the process: by import, or by the source of a decorated function.

In a spec file a callable is ``{"callable": "module:qualname"}``. With ``source``, ``file`` and ``line`` it is not
imported but made from its source, and ``args`` and ``keywords`` are what ``functools.partial`` has bound.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import functools
import inspect
import linecache
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.imports import load, module_of, source_of

MARK = "callable"


def portable(value: Any, ship: Collection[Callable[..., Any]] = (), where: str = "") -> Any:
    """Return a spec, or a part of one, with each callable in the form that a file can hold.

    :param ship: functions that go by their source instead of an import: those under a decorator.
    :param where: which argument this is, for messages.
    :raises SpecError: for a callable that cannot be imported elsewhere, or a function in ``ship`` that uses more than
        its own source.
    """
    if isinstance(value, Mapping):
        return {key: portable(one, ship, f"{where}[{key!r}]" if where else str(key)) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(one, ship, f"{where}[{number}]") for number, one in enumerate(value)]
    if not callable(value):
        return value
    if isinstance(value, functools.partial):
        bound = {"args": portable(value.args, ship, where), "keywords": portable(value.keywords, ship, where)}
        return {**portable(value.func, ship, where), **bound, "wrapped": hasattr(value, "__wrapped__")}
    if any(_innermost(value) is _innermost(one) for one in ship):
        return shipped(value)
    return {MARK: _import_string(value, where)}


def revive(value: Any, where: str = "") -> Any:
    """Return a spec with the callables themselves: what :func:`portable` undoes.

    :raises SpecError: if one cannot be imported here.
    """
    if isinstance(value, list):
        return [revive(one, f"{where}[{number}]") for number, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if MARK not in value:
        return {key: revive(one, f"{where}[{key!r}]" if where else str(key)) for key, one in value.items()}
    function = _made(value) if "source" in value else load(value[MARK], where or "the callable")
    if "keywords" not in value:
        return function
    bound = functools.partial(function, *revive(value["args"], where), **revive(value["keywords"], where))
    return functools.update_wrapper(bound, function) if value.get("wrapped") else bound


def shipped(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function by its source, without its decorators.

    :raises SpecError: if its source cannot be had, or it uses names from outside itself.
    """
    function = _innermost(function)
    name = function.__name__
    try:
        source, line = source_of(function)
    except (OSError, TypeError) as error:
        raise SpecError(f"the source of the function {name} cannot be read, so it runs in no other process") from error
    outside = sorted(_names_from_outside(function, source) - {name})
    if outside:
        raise SpecError(
            f"the function {name} uses {', '.join(outside)} from outside itself, and only its own source goes to the "
            "other process: import and define inside the function what it needs, or put the function into a module "
            f"beside the DAG and name it as trainer='module:{name}'",
            function=name,
            outside=outside,
        )
    return {
        MARK: f"{module_of(function)}:{function.__qualname__}",
        "source": source,
        "file": inspect.getsourcefile(function),
        "line": line,
    }


def _import_string(function: Any, where: str) -> str:
    from airflow_mlops.core.training.provenance import importable

    name = getattr(function, "__qualname__", type(function).__qualname__)
    if importable(function):
        return f"{function.__module__}:{name}"
    raise SpecError(
        f"{where or 'the callable'}: {name} (of {module_of(function) or 'no module'}) cannot be imported by another "
        "process; move it to a module beside the DAG or into a package and pass 'module:function', or, for a trainer "
        "or a test, decorate it with @task.train_model or @task.evaluate_model, which send its source along",
        function=name,
    )


def _innermost(function: Any) -> Any:
    return inspect.unwrap(function) if callable(function) else function


def _names_from_outside(function: Any, source: str) -> set[str]:
    """Return the names of its module, or of a function around it, that a function needs to be defined and to run."""
    arguments = ast.parse(source).body[0].args  # type: ignore[attr-defined]
    defaults = [one for one in (*arguments.defaults, *arguments.kw_defaults) if one is not None]
    used = {node.id for one in defaults for node in ast.walk(one) if isinstance(node, ast.Name)}
    used |= _globals_of(function.__code__)
    used = {name for name in used if name in function.__globals__ or not hasattr(builtins, name)}
    return {name for name in used if not name.startswith("__")} | set(function.__code__.co_freevars)


def _globals_of(code: types.CodeType) -> set[str]:
    found = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    # The body of a class inside has names of its own, which are loaded in the same way.
    found -= {one.argval for one in dis.get_instructions(code) if one.opname == "STORE_NAME"}
    return found.union(*(_globals_of(one) for one in code.co_consts if isinstance(one, types.CodeType)))


def _made(value: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function from its source; its lines have the numbers that they have in its file."""
    module, _, qualname = value[MARK].partition(":")
    file, line, source = value["file"] or f"<{value[MARK]}>", int(value["line"]), value["source"]
    # Annotations stay text: what they name may not be installed, or not be imported, here.
    code = compile(
        "\n" * (line - 1) + source, file, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True
    )
    namespace: dict[str, Any] = {"__name__": module, "__file__": file}
    exec(code, namespace)  # noqa: S102 (the user's own function, as the user's own module would be)
    _show_source(file, line, source.splitlines(keepends=True))
    function: Callable[..., Any] = namespace[qualname.rpartition(".")[2]]
    function.__qualname__ = qualname
    return function


def _show_source(file: str, line: int, source: list[str]) -> None:
    """Let tracebacks and ``inspect`` find these lines, unless the file itself is here and has them."""
    lines, start, end = linecache.getlines(file), line - 1, line - 1 + len(source)
    if [one.strip() for one in lines[start:end]] == [one.strip() for one in source]:
        return
    lines = [*lines, *["\n"] * (end - len(lines))]
    lines[start:end] = source
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
