"""The git repository that a project of level 2 is in."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.core.errors import MissingExtraError

#: What does not belong into a repository that is made here: what Python and its tools leave, and secrets.
IGNORED = """__pycache__/
*.py[cod]
.pytest_cache/
.mypy_cache/
.ruff_cache/
.ipynb_checkpoints/
.venv/
.env
mlruns/
"""


@dataclass(frozen=True)
class Place:
    """Where a folder is in git.

    :param repository: the top of the working tree; the folder itself if it is in none.
    :param ref: the branch that is watched.
    :param prefix: the folder in the repository; empty: it is the top.
    :param exists: whether there is a repository.
    """

    repository: str = ""
    ref: str = "main"
    prefix: str = ""
    exists: bool = False


def place_of(folder: Path) -> Place:
    """Return where a folder is in git, whether or not it is there yet.

    :raises MissingExtraError: if there is no git.
    """
    if shutil.which("git") is None:
        raise MissingExtraError("level 2 watches a git repository, and there is no git here; install it", library="git")
    folder = folder.absolute()
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    top = _git(there, "rev-parse", "--show-toplevel")
    if top is None:
        return Place(str(folder))
    branch = _git(there, "symbolic-ref", "--short", "HEAD") or "HEAD"
    prefix = os.path.relpath(folder.resolve(), Path(top).resolve())
    return Place(top, branch, "" if prefix == "." else Path(prefix).as_posix(), True)


def commit(place: Place, files: list[Path], project: str) -> str:
    """Make the repository of a folder that is in none, with these files; return what was done, or what to do."""
    if place.exists:
        names = " ".join(os.path.relpath(file, Path(place.repository).resolve()) for file in files)
        return (
            f"Level 2 watches {place.ref} of {place.repository}. Commit the files: "
            f"git -C {place.repository} add {names} && git -C {place.repository} commit"
        )
    top = Path(place.repository)
    ignored = top / ".gitignore"
    if not ignored.exists():
        ignored.write_text(IGNORED, encoding="utf-8")
    _run(top, "init", "--quiet", "--initial-branch", place.ref)
    _run(top, "add", "--", *(os.path.relpath(file.absolute(), top) for file in (*files, ignored)))
    who = [] if _git(top, "config", "user.email") else ["-c", "user.name=airflow", "-c", "user.email=airflow@localhost"]
    _run(top, *who, "commit", "--quiet", "--message", f"Begin the model {project}")
    return f"Level 2 watches {place.ref} of {top}, which is a git repository now, with these files in its first commit"


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None


def _run(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
