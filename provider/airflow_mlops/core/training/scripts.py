"""The files behind a command or notebook: the script and what it imports of its own project, without running it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from airflow_mlops.core.training import provenance


@dataclass(frozen=True)
class Found:
    """The user's files that a command runs.

    :param files: by their path below the working directory; the script first.
    :param own: top modules and packages of the project, by name: the folder or file of each.
    :param libraries: import names that are no files of the project.
    """

    files: dict[str, Path] = field(default_factory=dict)
    own: dict[str, Path] = field(default_factory=dict)
    libraries: frozenset[str] = frozenset()


def of_command(command: list[str], cwd: Path) -> Found:
    """Return the files of a command: every word that names one, ``-m module`` too, and what they import."""
    started = []
    for number, word in enumerate(command[1:], 1):
        path = cwd / word
        if command[number - 1] == "-m":
            found = _module(cwd, word) or _module(cwd, f"{word}.__main__")
            started += [found] if found else []
        elif "{" not in word and not word.startswith("-") and path.is_file():
            started.append(path)
    return of_files(started, cwd)


def of_files(started: list[Path], cwd: Path) -> Found:
    """Return files and all of their project that they import."""
    files: dict[str, Path] = {}
    own: dict[str, Path] = {}
    libraries: set[str] = set()
    waiting = list(started)
    while waiting:
        path = waiting.pop(0).absolute()
        name = path.relative_to(cwd).as_posix() if path.is_relative_to(cwd) else path.as_posix()
        if name in files:
            continue
        files[name] = path
        roots = [started[0].absolute().parent, cwd] if started else [cwd]
        package = next((r for r in roots if path.is_relative_to(r)), path.parent)
        dotted = ".".join(path.relative_to(package).with_suffix("").parts)
        for imported in provenance.imports_in(_source(path), dotted, package=path.name == "__init__.py"):
            found = [one for root in roots for one in [_module(root, imported)] if one is not None][:1]
            top = imported.partition(".")[0]
            if found:
                waiting += found
                own.setdefault(top, _top(roots, top) or found[0])
            elif top not in own and top not in sys.stdlib_module_names and not any(_top([r], top) for r in roots):
                libraries.add(top)
    return Found(files, own, frozenset(libraries))


def _source(path: Path) -> str:
    """Return the Python source of a script or notebook; nothing for other files."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".ipynb":
        return "\n".join(code_cells(path))
    return ""


def code_cells(path: Path) -> list[str]:
    """Return the source of a notebook's code cells that is Python: without magics and shell lines."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8")).get("cells", [])
    except (ValueError, AttributeError):
        return []
    found = []
    for cell in cells:
        if cell.get("cell_type") == "code":
            text = "".join(cell.get("source", []))
            found.append("\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("%", "!"))))
    return found


def _module(root: Path, dotted: str) -> Path | None:
    """Return the file of a module below a folder, or None; of ``a.b.name`` also that of ``a.b``."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        place = root.joinpath(*parts[:end])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None


def _top(roots: list[Path], top: str) -> Path | None:
    for root in roots:
        if (root / f"{top}.py").is_file():
            return root / f"{top}.py"
        if (root / top).is_dir():
            return root / top
    return None
