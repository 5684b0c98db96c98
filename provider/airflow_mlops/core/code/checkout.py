"""A working copy of one commit, made once, and an environment of its requirements.

Working copies and environments are folders beside each other on the worker; each is made under a lock and counts when
its mark is written, so that one whose making was killed is made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from airflow_mlops.core import digests
from airflow_mlops.core.code.git import FETCH_TIMEOUT, GitAccess, git
from airflow_mlops.core.errors import CannotReachError, MissingExtraError, MlopsError, NotFoundError, SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.training.process import Guarded

#: Written last: what has it is whole.
READY = "mlops-ready"
#: Working copies and environments that are kept, and the seconds for which one that was used is kept in any case.
KEEP, USED = 10, 86400.0
_OFFLINE = (
    r"NewConnectionError|ConnectionError|Connection (broken|refused|reset)|timed out|Temporary failure|50\d Server"
)


def checkout(access: GitAccess, sha: str, ref: str, folder: Path, log: logging.Logger) -> Path:
    """Return a working copy of a commit, as it was committed.

    :param ref: a ref that has it, for a server that gives no commit by its sha alone.
    :param folder: where working copies are.
    :raises NotFoundError: if the repository does not have the commit.
    """
    place = folder / f"{sha[:12]}-{digests.hex_of(digests.of_json([access.url]))[:8]}"
    with _lock(folder, place.name):
        if (place / ".git" / READY).exists():
            if git(None, "status", "--porcelain", cwd=place):
                log.info("Putting back what was changed in %s", place)
                git(None, "reset", "--quiet", "--hard", sha, cwd=place)
                git(None, "clean", "-ffdq", cwd=place)
        else:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            _fetch(access, sha, ref, place)
            crash_point("code.fetched")
            git(None, "checkout", "--quiet", "--detach", sha, cwd=place, timeout=FETCH_TIMEOUT)
            if (place / ".gitmodules").exists():
                git(access, "submodule", "--quiet", "update", "--init", "--recursive", cwd=place, timeout=FETCH_TIMEOUT)
            # What Python leaves there is no change of the code.
            (place / ".git" / "info" / "exclude").write_text("__pycache__/\n*.py[co]\n.pytest_cache/\n")
            (place / ".git" / READY).touch()
            log.info("Checked out %s of %s into %s", sha, strip_credentials(access.url), place)
        os.utime(place)
    _forget_old(folder, log)
    return place


def untracked(place: Path) -> frozenset[str]:
    """Return the files below a folder of a working copy that its commit does not have, relative to the folder."""
    return frozenset(git(None, "ls-files", "-z", "--others", "--", ".", cwd=place).split("\0")) - {""}


def _fetch(access: GitAccess, sha: str, ref: str, place: Path) -> None:
    git(None, "init", "--quiet", ".", cwd=place)
    git(None, "remote", "add", "origin", access.url, cwd=place)
    options = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"]
    try:
        git(access, *options, "--depth=1", "origin", sha, cwd=place, timeout=FETCH_TIMEOUT)
    except MlopsError as error:
        if isinstance(error, MissingExtraError) or "cannot be reached" in error.message:
            raise
        # A server that gives only what a ref names; then the ref's whole history has it, or nothing has.
        git(access, *options, "origin", ref, cwd=place, timeout=FETCH_TIMEOUT)
        try:
            git(None, "cat-file", "-e", f"{sha}^{{commit}}", cwd=place)
        except MlopsError:
            raise NotFoundError(
                f"{access.name} has no commit {sha} on {ref}; push it, or name the branch that has it", sha=sha
            ) from error


def environment(code: Path, requirements: str, folder: Path, log: logging.Logger) -> Path:
    """Return the Python of a virtual environment with a commit's requirements, over the packages of this one.

    What the requirements do not name is what the worker has. Commits with the same requirements share one.

    :param requirements: path of the file, relative to the working copy.
    :param folder: where environments are.
    :raises NotFoundError: if the commit has no such file.
    :raises SpecError: if what it names cannot be installed.
    :raises CannotReachError: if the package index does not answer.
    """
    file = code / requirements
    if not file.is_file():
        raise NotFoundError(
            f"the commit has no {requirements}; add it (it may be empty), or set requirements=None to use the "
            "worker's own environment"
        )
    below = sorted(f"{one.name}=={one.version}" for one in metadata.distributions())
    identity = [file.read_text(encoding="utf-8"), sys.executable, sys.version, below]
    place = folder / digests.hex_of(digests.of_json(identity))[:16]
    python = place / "bin" / "python"
    with _lock(folder, place.name):
        if not (place / READY).exists():
            shutil.rmtree(place, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            begun = time.monotonic()
            _run([sys.executable, "-m", "venv", "--without-pip", str(place)], code, log)
            # The worker's own packages, underneath: Python looks there after the environment's own.
            inside = next((place / "lib").glob("python3*")) / "site-packages"
            own = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
            (inside / "worker.pth").write_text("".join(f"import site; site.addsitedir({p!r})\n" for p in sorted(own)))
            tail: deque[str] = deque(maxlen=12)
            # The worker has none where uv made its environment.
            if _run([str(python), "-c", "import pip"], code, None) and _run(
                [str(python), "-m", "ensurepip"], code, None, tail
            ):
                shutil.rmtree(place, ignore_errors=True)
                raise SpecError(
                    f"{requirements} of the commit cannot be installed: the worker has no pip, and its Python cannot "
                    f"make one; install pip there. ensurepip says: {' | '.join(tail)[-300:]}"
                )
            options = ["--disable-pip-version-check", "--no-input", "--no-warn-script-location", "--quiet"]
            log.info("Installing %s of the commit into %s", requirements, place)
            tail.clear()
            command = [str(python), "-m", "pip", "install", *options, "--requirement", str(file)]
            if _run(command, code, log, tail):
                shutil.rmtree(place, ignore_errors=True)
                raise _not_installed(requirements, tail)
            crash_point("code.installed")
            (place / READY).touch()
            log.info("The environment of the commit was made in %.1f s", time.monotonic() - begun)
        os.utime(place)
    _forget_old(folder, log)
    return python


def _run(command: list[str], cwd: Path, log: logging.Logger | None, tail: deque[str] | None = None) -> int:
    """Run a command that dies with this process, and return its exit code."""
    kept_back = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "_AIRFLOW", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(kept_back)}

    def show(line: str) -> None:
        line = strip_credentials(line)
        if tail is not None and line.strip():
            tail.append(line)
        if log is not None and not line.startswith("WARNING: Location"):
            log.info("| %s", line)

    return Guarded(command, cwd=cwd, environment=variables).follow(show)


def _not_installed(requirements: str, tail: deque[str]) -> MlopsError:
    said = " | ".join(tail)
    if re.search(_OFFLINE, said):
        return CannotReachError(f"{requirements} of the commit cannot be installed now: {said[-600:]}")
    return SpecError(f"{requirements} of the commit cannot be installed: {said[-600:]}")


@contextlib.contextmanager
def _lock(folder: Path, name: str) -> Iterator[None]:
    locks = folder / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with open(locks / name, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_old(folder: Path, log: logging.Logger) -> None:
    """Remove the folders that were used longest ago, beyond those that are kept."""
    places = [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]
    places.sort(key=lambda place: place.stat().st_mtime, reverse=True)
    for place in places[KEEP:]:
        if time.time() - place.stat().st_mtime > USED:
            log.info("Removing %s, which was used more than a day ago", place)
            shutil.rmtree(place, ignore_errors=True)
            (folder / ".locks" / place.name).unlink(missing_ok=True)
