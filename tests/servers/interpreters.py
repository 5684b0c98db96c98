"""Interpreters beside the one that runs the tests: without Airflow, with other libraries, with none."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest

from servers.docker import LIBRARIES, closure

#: Where they are kept between sessions; git ignores it.
CACHE = Path(__file__).parents[2] / ".build" / "interpreters"
UV = Path(sys.executable).parent / "uv"
#: What a project that lags behind has.
OTHER = ("mlflow==3.16.0", "scikit-learn==1.8.0", "skops==0.14.0", "pandas==2.3.3", "pyarrow==22.0.0")


def interpreter(requirements: Iterable[str], *, resolve: bool = False, base: str = sys.executable) -> Path:
    """Return the Python of a virtual environment that holds these distributions and nothing of the tests' own.

    :param requirements: with their versions.
    :param resolve: whether what they need is installed too; else it is among them.
    :param base: the Python that it is made from.
    """
    wanted = sorted(requirements)
    identity = hashlib.sha256("\n".join([base, sys.version, str(resolve), *wanted]).encode()).hexdigest()[:12]
    folder = CACHE / identity
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{identity}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _uv("venv", "--quiet", "--python", base, "--no-project", str(folder))
            if wanted:
                # Compiled once; each process of a test would do it again.
                options = ["--quiet", "--compile-bytecode", "--only-binary", ":all:"]
                options += ["--python", str(folder / "bin" / "python"), *(() if resolve else ("--no-deps",))]
                _uv("pip", "install", *options, *wanted)
            (folder / "complete").touch()
    return folder / "bin" / "python"


def another_python() -> str:
    """Return a Python of another version than the tests', if this machine has one that works; else the tests' own."""
    names = [f"python3.{minor}" for minor in (12, 13, 11)]
    versions = sorted(Path.home().glob(".pyenv/versions/3.1[1-3].*/bin/python"))
    for found in [*map(shutil.which, names), *map(str, versions)]:
        if found and (python_version(found) or sys.version_info[:2]) != sys.version_info[:2]:
            return found
    return sys.executable


def python_version(python: str | Path) -> tuple[int, int] | None:
    """Return a Python's version; None if it does not work."""
    code = "import sys, venv; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    major, minor = map(int, done.stdout.split())
    return major, minor


def _uv(*arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run([UV, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the interpreter cannot be made, uv says: {done.stderr[-500:]}"


@pytest.fixture(scope="session")
def plain_python() -> Path:
    """An interpreter without Airflow, and with the same versions of the ML libraries as here."""
    return interpreter(f"{name}=={metadata.version(name)}" for name in closure(*LIBRARIES))


@pytest.fixture(scope="session")
def other_python() -> Path:
    """An interpreter without Airflow, with older versions of the ML libraries and without Great Expectations.

    It is of another version of Python too, if this machine has one.
    """
    return interpreter(OTHER, resolve=True, base=another_python())


@pytest.fixture(scope="session")
def bare_python() -> Path:
    """An interpreter without any library, not even pip."""
    return interpreter(())
