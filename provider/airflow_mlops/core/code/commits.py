"""Which commits a git ref has that were not told of before.

A look at a ref costs one answer of the server. Only when it has moved is its history read, shallow and, where the
server can, without files. A commit counts once it stands on the ref's own line (its first parents): a branch that is
merged counts by its merge.
"""

from __future__ import annotations

import logging
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.core.code.git import FETCH_TIMEOUT, GitAccess, git
from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.vocabulary import SCHEMA

KIND = "commit"
#: Commits that are remembered: a ref that is moved back and forth tells of none of them again.
REMEMBERED = 100
#: Commits that a sensor names; the others are counted.
MAX_SHAS = 20
#: How far back history is read, one after the other, until it meets what is known; None: all of it.
DEPTHS: tuple[int | None, ...] = (50, 1000, None)
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_FORMAT = "%H%x1f%P%x1f%an%x1f%cI%x1f%s"

log = logging.getLogger("airflow_mlops")


@dataclass(frozen=True)
class Seen:
    """What was told of before.

    :param sha: the commit at which the ref stood.
    :param told: the last commits that were told of.
    """

    sha: str | None = None
    told: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Any) -> Seen:
        """Read a sha, what a sensor returned, what :meth:`to_dict` made, or nothing.

        :raises SpecError: for anything else.
        """
        if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
            return cls()
        told: tuple[str, ...] = ()
        if isinstance(value, dict):
            told = tuple(str(one) for one in value.get("told") or ())
            value = value.get("sha")
        if not isinstance(value, str) or not _SHA.fullmatch(value.strip().lower()):
            raise SpecError(
                "since must be the full sha of a commit, or what a CodeChangeSensor returned ({'sha', ...}); got "
                f"{value!r}"
            )
        return cls(value.strip().lower(), told)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"sha": self.sha, "told": list(self.told)}

    def after(self, commit: Commit) -> Seen:
        """Return what was seen once a commit has been told of."""
        return Seen(commit.sha, (*self.told, commit.sha)[-REMEMBERED:])


@dataclass(frozen=True)
class Tip:
    """Where a ref stands: its full name and its commit."""

    ref: str
    sha: str


@dataclass(frozen=True)
class Commit:
    """One commit.

    :param previous: the commit before it on the ref's line.
    :param forced: whether the ref was moved to it in a way that left the commit behind where it stood before.
    """

    sha: str
    ref: str
    repository: str
    previous: str | None = None
    author: str | None = None
    committed_at: str | None = None
    subject: str | None = None
    forced: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON; its id is its sha."""
        names = ("sha", "ref", "repository", "previous", "author", "committed_at", "subject", "forced")
        return {"schema": SCHEMA, "kind": KIND, "id": self.sha, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class News:
    """What a look at a ref found: where it stands now, and its new commits, the oldest first."""

    tip: Tip | None
    commits: tuple[Commit, ...] = ()


def check_ref(ref: Any) -> str:
    """Return a ref's name.

    :raises SpecError: for what git could not call so.
    """
    if not isinstance(ref, str) or not re.fullmatch(r"(?!-)(?!.*(\.\.|@\{|//))[^\s~^:?*\[\\\x00-\x20]+(?<![/.])", ref):
        raise SpecError(f"ref must be the name of a branch or tag, such as 'main', got {ref!r}")
    return ref


def tip_of(access: GitAccess, ref: str) -> Tip | None:
    """Return where a ref stands; None if there is no such ref.

    :param ref: a branch, a tag, a full name (``refs/heads/main``), or ``HEAD``: the default branch.
    """
    names = [ref] if ref.startswith("refs/") or ref == "HEAD" else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
    asked = [*names, *(f"{name}^{{}}" for name in names if name.startswith("refs/tags/"))]
    answer = git(access, "ls-remote", "--quiet", "--symref", "--", access.url, *asked)
    found, branch = {}, ref
    for line in answer.splitlines():
        what, _, name = line.partition("\t")
        if not what.startswith("ref: "):
            found[name] = what
        elif name == "HEAD":
            branch = what.removeprefix("ref: ")
    for name in names:
        # An annotated tag is an object of its own; its commit is behind it.
        sha = found.get(f"{name}^{{}}") or found.get(name)
        if sha:
            return Tip(branch if name == "HEAD" else name, sha)
    return None


def look(access: GitAccess, ref: str, seen: Seen) -> News:
    """Return where a ref stands, and which commits came since.

    Without anything seen, the commit that is there is the one that came. A ref that was moved back to a commit that
    was told of brings none; one that was rewritten brings those that were not.

    :raises MlopsError: what git met.
    """
    tip = tip_of(access, check_ref(ref))
    if tip is None or tip.sha == seen.sha:
        return News(tip)
    known = {*seen.told, *([seen.sha] if seen.sha else [])}
    with tempfile.TemporaryDirectory(prefix="mlops-git-", ignore_cleanup_errors=True) as folder:
        history = _History(access, Path(folder), tip)
        lines, forced = history.after(seen.sha, known) if seen.sha else (history.newest(), False)
    commits = tuple(
        Commit(
            sha=sha,
            ref=tip.ref,
            repository=strip_credentials(access.url),
            previous=parents.split(" ")[0] or None,
            author=author[:100],
            committed_at=at,
            subject=subject[:200],
            forced=forced,
        )
        for sha, parents, author, at, subject in lines
        if sha not in known
    )
    return News(Tip(tip.ref, history.sha), commits)


class _History:
    """What there is of a ref's history in a bare repository of our own, which is deepened as it is needed."""

    def __init__(self, access: GitAccess, here: Path, tip: Tip) -> None:
        self.access, self.here, self.ref = access, here, tip.ref
        git(None, "init", "--quiet", "--bare", ".", cwd=here)
        git(None, "remote", "add", "origin", access.url, cwd=here)
        self.sha = tip.sha

    def newest(self) -> list[list[str]]:
        """Return the fields of the commit at which the ref stands."""
        self._fetch(2)  # with its parent, which is named
        return self._log(self.sha, "--max-count=1")

    def after(self, since: str, known: set[str]) -> tuple[list[list[str]], bool]:
        """Return the fields of the commits on the ref's line after one, the oldest first; and whether that was left."""
        line: list[str] = []
        for depth in DEPTHS:
            self._fetch(depth)
            line = self._lines("rev-list", "--first-parent", self.sha)
            if since in line or not self._shallow:
                break
        if since in line or since in self._lines("rev-list", self.sha):
            return self._log(f"{since}..{self.sha}"), False
        # Rewritten, or moved back. What both lines have was told of when it came.
        if self._has(since):
            return self._log(f"{since}..{self.sha}"), True
        met = next((sha for sha in line if sha in known), None)
        return (self._log(f"{met}..{self.sha}") if met else self._log(self.sha, "--max-count=1")), True

    @property
    def _shallow(self) -> bool:
        return (self.here / "shallow").exists()

    def _fetch(self, depth: int | None) -> None:
        # By name: not every server gives a commit by its sha. Meanwhile the ref may have moved on.
        how = [f"--depth={depth}"] if depth else ["--unshallow"] if self._shallow else []
        self._ask(*how, f"+{self.ref}:refs/mlops/tip")
        (self.sha,) = self._lines("rev-parse", "refs/mlops/tip^{commit}")

    def _ask(self, *arguments: str) -> None:
        options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--filter=tree:0", *arguments[:-1]]
        git(self.access, "fetch", *options, "origin", arguments[-1], cwd=self.here, timeout=FETCH_TIMEOUT)

    def _has(self, sha: str) -> bool:
        """Say whether the server still gives a commit that no ref may have any more."""
        try:
            self._ask(sha)
            git(None, "cat-file", "-e", f"{sha}^{{commit}}", cwd=self.here)
        except MlopsError:
            return False
        return True

    def _lines(self, *arguments: str) -> list[str]:
        return git(None, *arguments, cwd=self.here).split()

    def _log(self, revisions: str, *options: str) -> list[list[str]]:
        command = ["log", "--first-parent", "--reverse", f"--format={_FORMAT}", *options, revisions, "--"]
        text = git(None, *command, cwd=self.here)
        return [line.split("\x1f", 4) for line in text.splitlines() if line.count("\x1f") >= 4]


def change(news: News) -> dict[str, Any] | None:
    """Return what a sensor returns: the newest of the commits that came, and the shas of the last 20, newest last."""
    if not news.commits:
        return None
    shas = [commit.sha for commit in news.commits]
    return {**news.commits[-1].to_dict(), "commits": {"count": len(shas), "shas": shas[-MAX_SHAS:]}}
