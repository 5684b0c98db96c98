"""Where a model comes from: the user's code and its digest, git, the environment, pinned requirements.

The user's modules are found by reading imports in the source, without running anything: a trainer may import its
helpers inside a function, and a model must bring them all along.
"""

from __future__ import annotations

import ast
import functools
import inspect
import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.imports import code_digest, source_of

#: What every logged model needs, by import name.
BASE = ("sklearn", "numpy", "pandas", "scipy", "skops", "mlflow")
#: Import names whose distribution has another name.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "PyYAML", "PIL": "pillow", "cv2": "opencv-python"}
_INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Sources:
    """The code behind some functions.

    :param own: the user's top packages and modules, by name: the folder or file of each.
    :param third_party: import names of installed libraries that they use.
    """

    own: dict[str, Path] = field(default_factory=dict)
    third_party: frozenset[str] = frozenset()


def sources_of(modules: Iterable[str]) -> Sources:
    """Return the user's packages and the installed libraries that modules reach by their imports.

    :param modules: dotted names; those that cannot be found (a DAG file, ``__main__``) are passed over.
    """
    own: dict[str, Path] = {}
    libraries: set[str] = set()
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ("__main__", "builtins"):
            continue
        file = _source_file(name)
        root = _source_file(top)
        if file is None and root is None:
            continue
        if _is_installed(file or root) or top == "airflow_mlops":
            libraries.add(top)
            continue
        folder = root if root is None or root.name != "__init__.py" else root.parent
        own.setdefault(top, folder or _namespace_folder(top) or Path(file or ""))
        parts = name.split(".")
        waiting += [".".join(parts[:i]) for i in range(1, len(parts))]
        if file is not None:
            waiting += imports_in(file.read_text(encoding="utf-8"), name, package=file.name == "__init__.py")
    return Sources(own, frozenset(libraries))


def find_module(name: str) -> ModuleSpec | None:
    """Return where another process would find a module, without importing anything.

    What this process has loaded does not count: a DAG file is in ``sys.modules`` under a name that no other knows.
    """
    path: Any = None
    spec = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        dotted = ".".join(parts[:end])
        finders = (f.find_spec(dotted, path) for f in sys.meta_path if hasattr(f, "find_spec"))
        spec = next((found for found in finders if found is not None), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def _source_file(name: str) -> Path | None:
    spec = find_module(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        # A compiled module of an installed library has no source, but it has a place.
        return Path(spec.origin) if spec and spec.origin and _is_installed(Path(spec.origin)) else None
    return Path(spec.origin)


def _namespace_folder(top: str) -> Path | None:
    spec = find_module(top)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _is_installed(file: Path | None) -> bool:
    if file is None:
        return False
    return any(part in _INSTALLED for part in file.parts) or any(map(_has_distributions, file.parents))


@functools.cache
def _has_distributions(folder: Path) -> bool:
    """Return whether an installer put libraries into a folder, as ``pip install --target`` does wherever it is told."""
    return any(folder.glob("*.dist-info/RECORD"))


def imports_in(source: str, module: str, *, package: bool) -> list[str]:
    """Return the dotted names that a module's source imports, wherever the import stands."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return []
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + (1 if package else 0)]
                base = ".".join([*parts, base] if base else parts)
            if base:
                found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return found


def inner(function: Any) -> Any:
    """Return the function inside ``functools.partial``."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def code_of(*functions: Callable[..., Any] | None) -> tuple[str, Sources]:
    """Return a digest of all code that functions reach, and where it is.

    A function of the user's package counts with every ``.py`` file of that package and of the others that it imports;
    one that no module can be imported for (it stands in a DAG file) with its own source and what it uses of the file.
    An installed library counts by name: its version is in the environment.
    """
    modules: list[str] = []
    parts: list[Any] = []
    for function in functions:
        if function is None:
            continue
        own = inner(function)
        if importable(own):
            modules.append(own.__module__)
            parts.append(code_digest(function))
        else:
            loose = _loose_sources(own)
            modules += [name for text in loose.values() for name in imports_in(text, "", package=False)]
            modules += _modules_used(own)
            bound = (
                [function.args, sorted(function.keywords.items())] if isinstance(function, functools.partial) else []
            )
            cells = [repr(cell.cell_contents) for cell in getattr(own, "__closure__", None) or ()]
            parts.append({"source": loose, "bound": repr(bound), "closure": cells})
    found = sources_of(modules)
    files = {top: _files(root) for top, root in sorted(found.own.items())}
    return digests.of_json({"functions": parts, "files": files}), found


def importable(function: Any) -> bool:
    """Return whether another process can import the object by its module and name."""
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if not module or module == "__main__" or not qualname or "<" in qualname or find_module(module) is None:
        return False
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    # A decorated function is found as what its decorator made of it.
    return found is function or (callable(found) and inspect.unwrap(found) is function)


def _loose_sources(function: Any, known: dict[str, str] | None = None) -> dict[str, str]:
    """Return the source of a function and of what it uses of its own file: functions, classes, constants."""
    found = {} if known is None else known
    function = inspect.unwrap(function) if callable(function) else function
    name = getattr(function, "__qualname__", type(function).__name__)
    code = getattr(function, "__code__", None)
    try:
        found[name] = _source(function)
    except (OSError, TypeError):
        found[name] = repr((code.co_code, code.co_consts)) if code else name
    names = _names(code) if code else []
    for used in names:
        value = getattr(function, "__globals__", {}).get(used)
        if inspect.isfunction(value) or inspect.isclass(value):
            if value.__module__ == function.__module__ and value.__qualname__ not in found:
                _loose_sources(value, found)
        elif isinstance(value, (bool, int, float, str, bytes, tuple, list, dict)):
            found[f"={used}"] = repr(value)
    return found


def _source(function: Any) -> str:
    try:
        return source_of(function)[0]
    except TypeError:  # a class, or a lambda
        return textwrap.dedent(inspect.getsource(function))


def _names(code: Any) -> list[str]:
    inner = [name for const in code.co_consts if hasattr(const, "co_names") for name in _names(const)]
    return [*code.co_names, *inner]


def _modules_used(function: Any) -> list[str]:
    """Return the modules that a function's global names come from."""
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    values = [getattr(function, "__globals__", {}).get(name) for name in (_names(code) if code else [])]
    return [
        value.__name__ if inspect.ismodule(value) else value.__module__
        for value in values
        if inspect.ismodule(value) or (callable(value) and isinstance(getattr(value, "__module__", None), str))
    ]


def _files(root: Path) -> dict[str, str]:
    if root.is_file():
        return {root.name: digests.of_file(root)}
    return {path.relative_to(root).as_posix(): digests.of_file(path) for path in sorted(root.rglob("*.py"))}


def git_of(root: Path | None) -> dict[str, Any]:
    """Return ``{"git_sha", "dirty"}`` of the tree that holds a file or folder; both None outside git.

    ``dirty`` speaks of that file or folder alone.
    """
    nothing = {"git_sha": None, "dirty": None}
    if root is None:
        return nothing
    folder = root if root.is_dir() else root.parent
    try:
        sha = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", str(root))
    except (OSError, subprocess.SubprocessError):
        return nothing
    return {"git_sha": sha.strip() or None, "dirty": bool(changed.strip())}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True, shell=False
    )
    return done.stdout


def environment_of(libraries: Iterable[str]) -> dict[str, Any]:
    """Return ``{"python", "platform", "packages", "digest"}`` of this process.

    :param libraries: import names beside those that every model needs.
    """
    packages = versions_of([*BASE, *libraries])
    made: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system().lower()}-{platform.machine()}",
        "packages": packages,
    }
    return {**made, "digest": digests.of_json(made)}


def versions_of(libraries: Iterable[str]) -> dict[str, str]:
    """Return ``{distribution: version}`` of import names; what is not installed as a distribution is left out."""
    found = {}
    for name in sorted(set(libraries)):
        distribution = _distribution(name)
        if distribution:
            found[distribution[0]] = distribution[1]
    return found


@functools.cache
def _distribution(name: str) -> tuple[str, str] | None:
    from importlib import metadata

    candidate = DISTRIBUTIONS.get(name, name)
    try:
        return candidate, metadata.version(candidate)
    except metadata.PackageNotFoundError:
        candidates = _by_import_name().get(name, [])
        return (candidates[0], metadata.version(candidates[0])) if candidates else None


@functools.cache
def _by_import_name() -> dict[str, list[str]]:
    from importlib import metadata

    return dict(metadata.packages_distributions())


def requirements(packages: dict[str, str]) -> list[str]:
    """Return ``name==version`` of each package, for the model's ``requirements.txt``."""
    return [f"{name}=={version.partition('+')[0]}" for name, version in sorted(packages.items())]
