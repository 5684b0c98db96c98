"""What ``runtime={"python": ...}`` may hold, read and checked, and which interpreter it means."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.runtimes.settings import check_keys, read_folders, read_variables

#: Of the worker's environment, what the step gets in any case: who and where it is.
PLAIN = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER")
#: What it never gets: Airflow's settings, connections and variables, and what belongs to the worker's interpreter.
KEPT_BACK = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "AIRFLOW_HOME", "_AIRFLOW", "PYTHON", "__PYVENV", "CONDA_")
#: Variables of Python that speak of how it runs, not of what it imports.
_KEPT = ("PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONUTF8")


@dataclass(frozen=True)
class PythonSettings:
    """An interpreter, as the user wants it.

    :param python: path of the interpreter or of its virtual environment, absolute, with ``~``, or relative to the DAG
        bundle or the DAG's file; or a name that is looked up on the worker's ``PATH``.
    :param environment: variables; what a name such as ``..._PASSWORD`` gives away as secret is masked in logs.
    :param private_environment: variables whose values are all masked in logs.
    :param code: folders that are put on ``PYTHONPATH``, instead of the DAG bundle's and the DAG file's.
    :param inherit_environment: whether the step gets the worker's variables too. Airflow's own are never among them.
    """

    python: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    private_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    code: tuple[str, ...] | None = None
    inherit_environment: bool = True

    def interpreter(self, folders: Iterable[str]) -> Path:
        """Return the path of the interpreter. A link stays one: by it a virtual environment is known.

        :param folders: what a relative path is relative to; the first that has it counts.
        :raises SpecError: if it is not there or cannot be run.
        """
        places = _places(self.python, folders)
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise _missing(self.python, places)
        if found.is_dir():
            folder, found = found, found / "bin" / "python"
            if found.is_symlink() and not found.exists():
                raise _missing(self.python, [found])
            if not found.exists():
                raise SpecError(
                    f"runtime['python']: {folder} is a folder, and no virtual environment: it has no bin/python. Give "
                    "the path of an interpreter"
                )
        if not found.is_file() or not os.access(found, os.X_OK):
            raise SpecError(
                f"runtime['python']: {found} is not executable by the worker's user; give the path of an interpreter, "
                f"or run: chmod +x {found}"
            )
        return found

    def variables(self, credentials: Mapping[str, str], interpreter: Path) -> dict[str, str]:
        """Return the environment of the step's process, without ``PYTHONPATH``'s first entries.

        :param credentials: what the step needs; it counts more than what the user has given.
        """
        inherited = {
            name: value
            for name, value in os.environ.items()
            if (name in _KEPT or not name.startswith(KEPT_BACK))
            and name != "VIRTUAL_ENV"
            and (self.inherit_environment or name in PLAIN)
        }
        found = {**inherited, **self.environment, **self.private_environment, **credentials}
        path = found.get("PATH") or os.defpath
        return {
            "MPLBACKEND": "Agg",
            **found,
            "PATH": os.pathsep.join([str(interpreter.parent), path]),
            "PYTHONUNBUFFERED": "1",
        }


KEYS = tuple(one.name for one in fields(PythonSettings))


def settings_of(runtime: Mapping[str, Any]) -> PythonSettings:
    """Return the settings of ``runtime={"python": ..., ...}``.

    :raises SpecError: for an unknown key or a value that cannot be.
    """
    check_keys(runtime, KEYS)
    given = {key: value for key, value in runtime.items() if value is not None and value != ""}
    python = given.get("python")
    if not isinstance(python, (str, os.PathLike)) or not str(python).strip():
        raise SpecError(f"runtime['python'] must be the path of an interpreter, got {python!r}")
    found: dict[str, Any] = {**given, "python": os.fspath(python).strip()}
    for key in ("environment", "private_environment"):
        if key in found:
            found[key] = read_variables(found[key], key)
    if "code" in found:
        found["code"] = read_folders(found["code"], "code")
    if "inherit_environment" in found:
        text = str(found["inherit_environment"]).strip().lower()
        if text not in ("true", "false"):
            raise SpecError(f"runtime['inherit_environment'] must be True or False, got {text!r}")
        found["inherit_environment"] = text == "true"
    return PythonSettings(**found)


def _places(python: str, folders: Iterable[str]) -> list[Path]:
    path = Path(python).expanduser()
    if path.is_absolute():
        return [path]
    if os.sep not in python:
        command = shutil.which(python)
        if command:
            return [Path(command).absolute()]
    return [Path(folder).absolute() / path for folder in folders] or [path.absolute()]


def _missing(python: str, places: list[Path]) -> SpecError:
    for place in places:
        link = next((one for one in (place, *place.parents) if one.is_symlink() and not one.exists()), None)
        if link is not None:
            return SpecError(
                f"runtime['python']: {link} is a link to {os.readlink(link)}, which is not there; the interpreter that "
                "the virtual environment was made from has been removed: make the environment anew"
            )
    looked = ", ".join(map(str, places))
    on_path = f", nor a command {python!r} on the worker's PATH" if os.sep not in python else ""
    return SpecError(
        f"runtime['python']: there is no interpreter {looked}{on_path}. It must be on every worker that runs the task; "
        f"make one with: python -m venv {places[0].parent.parent if os.sep in python else places[0]}",
        python=python,
    )
