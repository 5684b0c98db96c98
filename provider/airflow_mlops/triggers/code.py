"""Triggers that wait for commits: one for a sensor, one for an asset."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_mlops.core import digests
from airflow_mlops.core.code import commits
from airflow_mlops.core.code.commits import News, Seen, check_ref
from airflow_mlops.core.code.git import GitAccess, access_of, has_password
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.triggers import polling, watermark

log = logging.getLogger("airflow_mlops.task")

WATERMARK = "mlops_code_change"
ARGUMENTS = ("repository", "ref", "git_conn_id", "poll_interval")


class _Watch:
    """Looks at a ref from an event loop: git runs in a thread, connections are asked for as Airflow wants."""

    def __init__(self, repository: str | None, ref: str, git_conn_id: str | None) -> None:
        self.ref = ref
        self._access = polling.Renewed(lambda: _access_of(git_conn_id, repository))
        self.forget = self._access.forget

    async def look(self, seen: Seen) -> News:
        """Return what a look finds."""
        access = await self._access.get()
        return await asyncio.to_thread(commits.look, access, self.ref, seen)


def _access_of(git_conn_id: str | None, repository: str | None) -> GitAccess:
    from airflow_mlops.hooks.git import GitAccessHook

    return GitAccessHook(git_conn_id, repository).access


def check_arguments(repository: str | None, ref: str, git_conn_id: str | None) -> None:
    """Refuse what no look could use, and a password where everybody would read it.

    :raises ValueError: naming what is wrong; a template may be anything.
    """
    if not repository and not git_conn_id:
        raise ValueError("repository or git_conn_id is needed: a URL or path, or a connection whose host is one")
    try:
        if repository and "{{" not in repository:
            access_of(repository)
        if "{{" not in str(ref):
            check_ref(ref)
    except SpecError as error:
        raise ValueError(error.message) from None
    if repository and has_password(repository):
        raise ValueError(
            f"the URL {strip_credentials(repository)} has a password in it, which would be shown with the DAG; put it "
            "into a connection of type git and give git_conn_id"
        )


class CodeChangeSensorTrigger(BaseTrigger):
    """Wait until a git ref has a commit that was not seen before, then end.

    Its one event is ``{"change": {...}}`` or ``{"error": {...}}``.

    :param repository: URL, ``git@host:path`` or absolute path; default: the connection's host.
    :param ref: a branch, a tag, a full name, or ``HEAD``.
    :param git_conn_id: connection of type ``git``.
    :param since: see :class:`airflow_mlops.sensors.code.CodeChangeSensor`.
    :param poll_interval: seconds between two looks.
    """

    def __init__(
        self,
        *,
        repository: str | None = None,
        ref: str = "HEAD",
        git_conn_id: str | None = None,
        since: str | dict[str, Any] | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.repository = repository
        self.ref = ref
        self.git_conn_id = git_conn_id
        self.since = since
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in (*ARGUMENTS, "since")}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is a commit."""
        watch = _Watch(self.repository, self.ref, self.git_conn_id)

        async def look() -> dict[str, Any] | None:
            return commits.change(await watch.look(Seen.of(self.since)))

        yield await polling.first_find("change", look, watch.forget, self.poll_interval)


class CodeChangeEventTrigger(BaseEventTrigger):
    """Tell of each commit on a git ref, the oldest first, for an ``AssetWatcher``; never ends.

    The payload is ``{"kind": "commit", "id", "sha", "ref", "repository", "previous", "author", "committed_at",
    "subject", "forced"}``; ``id`` is the sha, so a consumer that knows it already has nothing to do. At first it tells
    of the commit that is there. What was told is kept with the asset on Airflow 3.3 and later, before that in the
    store, and a triggerer that restarts goes on from there; when that is lost, the commit that is there is told of once
    more.

    A ref that is rewritten brings those of its commits that were not told of, with ``forced``; one that is moved back
    brings none; one that is deleted is waited for.

    :param repository: URL, ``git@host:path`` or absolute path; default: the connection's host.
    :param ref: a branch, a tag, a full name, or ``HEAD``: the default branch.
    :param git_conn_id: connection of type ``git``; None: the repository needs no credentials, or git on the triggerer
        finds them by itself.
    :param poll_interval: seconds between two looks; one costs the server an answer of some hundred bytes.
    :raises ValueError: for what is no repository or ref, a relative path, or a URL with a password in it.
    """

    def __init__(
        self,
        *,
        repository: str | None = None,
        ref: str = "HEAD",
        git_conn_id: str | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check_arguments(repository, ref, git_conn_id)
        if repository and "://" not in repository and ":" not in repository and not repository.startswith(("/", "~")):
            raise ValueError(f"an asset's watcher runs in no DAG bundle: {repository!r} must be absolute or a URL")
        self.repository = repository
        self.ref = ref
        self.git_conn_id = git_conn_id
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in ARGUMENTS}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look for ever; what goes wrong is logged, and looked for again."""
        watch = _Watch(self.repository, self.ref, self.git_conn_id)
        seen: Seen | None = None
        there = True
        while True:
            with polling.endured(self._name, watch.forget):
                if seen is None:
                    seen = await self._load()
                news = await watch.look(seen)
                if there != (news.tip is not None):
                    there = news.tip is not None
                    if not there:
                        log.warning("there is no %s in %s; waiting for it", self.ref, self._name)
                for commit in news.commits:
                    yield TriggerEvent(commit.to_dict())  # type: ignore[no-untyped-call]
                    seen = seen.after(commit)
                if news.commits:
                    # After the events: killed before, it tells of them once more, under the same ids.
                    await watermark.told(self, WATERMARK, self._place(), seen.to_dict())
                if news.tip and news.tip.sha != seen.sha:
                    log.warning(
                        "%s of %s was moved to %s, which was told of before: nothing to do. To serve that commit's "
                        "model again: airflow mlops rollback",
                        *(self.ref, self._name, news.tip.sha),
                    )
                    seen = Seen(news.tip.sha, seen.told)
                    await watermark.save(self, WATERMARK, self._place(), seen.to_dict())
            await asyncio.sleep(self.poll_interval)

    @property
    def _name(self) -> str:
        return strip_credentials(self.repository or f"the connection {self.git_conn_id}")

    async def _load(self) -> Seen:
        try:
            return Seen.of(await watermark.load(self, WATERMARK, self._place()))
        except SpecError as error:
            log.warning("what was seen cannot be read (%s): what is there is told of again", error)
            return Seen()

    def _place(self) -> str:
        return digests.of_json([self.repository, self.git_conn_id, self.ref])
