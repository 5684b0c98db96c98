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


def interpreter(requirements: Iterable[str], *, resolve: bool = False) -> Path:
    """Return the Python of a virtual environment that holds these distributions and nothing of the tests' own.

    :param requirements: with their versions.
    :param resolve: whether what they need is installed too; else it is among them.
    """
    wanted = sorted(requirements)
    identity = hashlib.sha256("\n".join([sys.version, str(resolve), *wanted]).encode()).hexdigest()[:12]
    folder = CACHE / identity
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{identity}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _uv("venv", "--quiet", "--python", sys.executable, "--no-project", str(folder))
            if wanted:
                options = ["--quiet", "--only-binary", ":all:", "--python", str(folder / "bin" / "python")]
                _uv("pip", "install", *options, *(() if resolve else ("--no-deps",)), *wanted)
            (folder / "complete").touch()
    return folder / "bin" / "python"


def _uv(*arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run([UV, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the interpreter cannot be made, uv says: {done.stderr[-500:]}")


@pytest.fixture(scope="session")
def plain_python() -> Path:
    """An interpreter without Airflow, and with the same versions of the ML libraries as here."""
    return interpreter(f"{name}=={metadata.version(name)}" for name in closure(*LIBRARIES))


@pytest.fixture(scope="session")
def other_python() -> Path:
    """An interpreter without Airflow, with older versions of the ML libraries and without Great Expectations."""
    return interpreter(OTHER, resolve=True)


@pytest.fixture(scope="session")
def bare_python() -> Path:
    """An interpreter without any library, not even pip."""
    return interpreter(())
