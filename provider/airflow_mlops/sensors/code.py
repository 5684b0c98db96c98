"""CodeChangeSensor: wait for a commit."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_mlops.core.code import commits
from airflow_mlops.core.code.commits import Seen
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.exceptions import MlopsFailed, raise_error_of, translate
from airflow_mlops.operators.paths import resolve_path

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger("airflow_mlops.task")


class CodeChangeSensor(BaseSensorOperator):
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

    template_fields: Sequence[str] = ("repository", "ref", "git_conn_id", "since")
    ui_color = "#e8f1fa"

    def __init__(
        self,
        *,
        repository: str | None = None,
        ref: str = "HEAD",
        git_conn_id: str | None = None,
        since: str | dict[str, Any] | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        from airflow_mlops.triggers.code import check_arguments

        check_arguments(repository, ref, git_conn_id)
        self.repository = repository
        self.ref = ref
        self.git_conn_id = git_conn_id
        self.since = since
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        """Look once and defer, or look until there is a commit."""
        if not self.deferrable:
            return super().execute(context)
        from airflow_mlops.triggers.code import CodeChangeSensorTrigger

        found = self._look(context)
        if not found:
            self.defer(
                trigger=CodeChangeSensorTrigger(
                    repository=self._place(context),
                    ref=self.ref,
                    git_conn_id=self.git_conn_id,
                    since=self.since,
                    poll_interval=self.poke_interval,
                ),
                method_name="execute_complete",
                timeout=dt.timedelta(seconds=self.timeout),
            )
        return found

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Return what the trigger found, or raise what it met."""
        raise_error_of(event)
        return _told(event["change"])

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look once."""
        found = self._look(context)
        return PokeReturnValue(is_done=True, xcom_value=found) if found else False

    def _look(self, context: Context) -> dict[str, Any] | None:
        from airflow_mlops.hooks.git import GitAccessHook
        from airflow_mlops.triggers.code import check_arguments

        try:
            access = GitAccessHook(self.git_conn_id, self._place(context)).access
            check_arguments(self.repository, self.ref, self.git_conn_id)
            news = commits.look(access, self.ref, Seen.of(self.since))
        except MlopsError as error:
            raise translate(error) from error
        except ValueError as error:
            raise MlopsFailed(str(error)) from None
        if news.tip is None:
            log.info("%s has no %s", access.name, self.ref)
        found = commits.change(news)
        return _told(found) if found else None

    def _place(self, context: Context) -> Any:
        where = self.repository
        return resolve_path(context, where) if where and ":" not in where else where


def _told(found: dict[str, Any]) -> dict[str, Any]:
    log.info("%s is at %s: %s (%s new)", found["ref"], found["sha"], found["subject"], found["commits"]["count"])
    return found
