"""CodeChangeSensor: wait for a commit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.code import commits
from airflow_mlops.core.code.commits import Seen
from airflow_mlops.exceptions import MlopsFailed
from airflow_mlops.operators.paths import resolve_path
from airflow_mlops.sensors.base import LookingSensor

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

log = logging.getLogger("airflow_mlops.task")


class CodeChangeSensor(LookingSensor):
    """Wait until a git ref has a commit that was not seen before.

    Returns the newest one: ``id`` and ``sha``, ``ref``, ``repository``, ``previous``, ``author``, ``committed_at``,
    ``subject``, ``forced`` (the ref was rewritten), and ``commits``: how many came and the last 20 shas. It can be
    given as ``since`` to the next run.

    :param repository: URL, ``git@host:path`` or path; default: the connection's host. A relative path is looked up in
        the DAG bundle. (templated)
    :param ref: a branch, a tag, a full name (``refs/heads/main``), or ``HEAD``: the default branch. One that is not
        there yet is waited for. (templated)
    :param git_conn_id: connection of type ``git``; None: the repository needs no credentials, or git finds them by
        itself. (templated)
    :param since: a sha, or what a former run of this sensor returned; default: the commit that is there counts.
        (templated)
    :param deferrable: wait in the triggerer, not in a worker; default ``[operators] default_deferrable``.
    :raises ValueError: in the constructor, for what is no repository or ref, or a URL with a password in it.
    """

    finds = "change"
    template_fields: Sequence[str] = ("repository", "ref", "git_conn_id", "since")

    def __init__(
        self,
        *,
        repository: str | None = None,
        ref: str = "HEAD",
        git_conn_id: str | None = None,
        since: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        from airflow_mlops.triggers.code import check_arguments

        check_arguments(repository, ref, git_conn_id)
        self.repository = repository
        self.ref = ref
        self.git_conn_id = git_conn_id
        self.since = since

    def look(self, context: Context) -> dict[str, Any] | None:
        """Look once."""
        from airflow_mlops.hooks.git import GitAccessHook
        from airflow_mlops.triggers.code import check_arguments

        try:
            access = GitAccessHook(self.git_conn_id, self._place(context)).access
            check_arguments(self.repository, self.ref, self.git_conn_id)
            news = commits.look(access, self.ref, Seen.of(self.since))
        except ValueError as error:
            raise MlopsFailed(str(error)) from None
        if news.tip is None:
            log.info("%s has no %s", access.name, self.ref)
        return commits.change(news)

    def trigger(self, context: Context) -> BaseTrigger:
        """Return the trigger that looks from now on."""
        from airflow_mlops.triggers.code import CodeChangeSensorTrigger

        return CodeChangeSensorTrigger(
            repository=self._place(context),
            ref=self.ref,
            git_conn_id=self.git_conn_id,
            since=self.since,
            poll_interval=self.poke_interval,
        )

    def tell(self, found: dict[str, Any]) -> None:
        """Log what was found."""
        log.info("%s is at %s: %s (%s new)", found["ref"], found["sha"], found["subject"], found["commits"]["count"])

    def _place(self, context: Context) -> Any:
        where = self.repository
        return resolve_path(context, where) if where and ":" not in where else where
