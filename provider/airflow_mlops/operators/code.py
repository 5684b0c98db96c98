"""CheckoutCodeOperator: the commit of a run, as a working copy with an environment of its own."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator

from airflow_mlops.core.errors import MlopsError, NotFoundError, SpecError
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.vocabulary import SCHEMA, utc_now
from airflow_mlops.exceptions import MlopsFailed, translate
from airflow_mlops.operators.paths import resolve_path
from airflow_mlops.operators.window import triggering_events

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.core.code.git import GitAccess

log = logging.getLogger("airflow_mlops.task")

KIND = "code"


class CheckoutCodeOperator(BaseOperator):
    """Check out the commit that a run is about, and make an environment of its requirements.

    Which commit: ``sha`` if it is given; else the newest of the commits that the triggering asset events tell of; else
    the one at which ``ref`` stands. A commit that another run of the DAG has already acted on is skipped if it came by
    an event, for an event may come twice; one that a person or a CI asks for never is.

    Returns the code's ref: ``kind`` (``code``), ``sha``, ``ref``, ``repository``, ``path`` (of the working copy, on
    this worker), ``python`` (of its environment, or None), and ``subject``, ``author``, ``committed_at`` where an event
    told them.

    :param repository: URL, ``git@host:path`` or path; default: the connection's host. (templated)
    :param ref: a branch or tag. (templated)
    :param sha: the full sha of a commit. (templated)
    :param git_conn_id: connection of type ``git``. (templated)
    :param requirements: file of the commit whose packages its environment has, over those of the worker; None: no
        environment. (templated)
    :param folder: where working copies and environments are; tasks that use them must run where it is seen. Default:
        ``code`` under ``[mlops] home``, or ``mlops/code`` in Airflow's home. The last ten of each are kept. (templated)
    :param once: whether a commit that came by an event is skipped if another run has acted on it.
    :param store_conn_id: connection of the store, which remembers that; None: the configuration's back end. (templated)
    :raises ValueError: in the constructor, for what is no repository or ref, or a URL with a password in it.
    """

    template_fields: Sequence[str] = (
        *("repository", "ref", "sha", "git_conn_id", "requirements", "folder", "store_conn_id"),
    )
    ui_color = "#e8f1fa"

    def __init__(
        self,
        *,
        repository: str | None = None,
        ref: str = "HEAD",
        sha: str | None = None,
        git_conn_id: str | None = None,
        requirements: str | None = "requirements.txt",
        folder: str | None = None,
        once: bool = True,
        store_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        from airflow_mlops.triggers.code import check_arguments

        check_arguments(repository, ref, git_conn_id)
        self.repository = repository
        self.ref = ref
        self.sha = sha
        self.git_conn_id = git_conn_id
        self.requirements = requirements
        self.folder = folder
        self.once = once
        self.store_conn_id = store_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Find the commit, check it out, make its environment, and return the code's ref."""
        from airflow_mlops.core.code import checkout
        from airflow_mlops.hooks.git import GitAccessHook
        from airflow_mlops.triggers.code import check_arguments

        try:
            repository = self.repository or None
            check_arguments(repository, self.ref, self.git_conn_id)
            if repository and ":" not in repository:
                repository = resolve_path(context, repository)
            access = GitAccessHook(self.git_conn_id or None, repository).access
            commit = self._commit(context, access)
            self._act(context, commit)
            folder = code_folder(self.folder)
            log.info("%s: %s", commit["sha"], commit.get("subject") or "asked for by its sha")
            path = checkout.checkout(access, commit["sha"], commit["ref"], folder / "commits", log)
            wanted = self.requirements or ""
            python = checkout.environment(path, wanted, folder / "environments", log) if wanted else None
        except MlopsError as error:
            raise translate(error) from error
        except ValueError as error:
            raise MlopsFailed(str(error)) from None
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "sha": commit["sha"],
            "ref": commit["ref"],
            "repository": strip_credentials(access.url),
            "path": str(path),
            "python": str(python) if python else None,
            **{name: commit.get(name) for name in ("subject", "author", "committed_at")},
        }

    def on_kill(self) -> None:
        """Stop the installation."""
        from airflow_mlops.core.training import process

        process.stop_all()

    def _commit(self, context: Context, access: GitAccess) -> dict[str, Any]:
        from airflow_mlops.core.code import commits

        wanted = str(self.sha or "").strip().lower()
        if wanted and wanted != "none":
            if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", wanted):
                raise SpecError(f"sha must be the full sha of a commit (git rev-parse HEAD), got {self.sha!r}")
            return {"sha": wanted, "ref": self.ref}
        told = told_commits(context)
        if told:
            for older in told[:-1]:
                log.info("%s came with it; the newest commit is the one that counts", older["sha"])
            return {"ref": self.ref, **told[-1], "event": True}
        news = commits.look(access, self.ref, commits.Seen())
        if not news.commits:
            raise NotFoundError(f"{access.name} has no {self.ref}; name a branch or tag that it has")
        return news.commits[-1].to_dict()

    def _act(self, context: Context, commit: dict[str, Any]) -> None:
        """Put on record that this run acts on the commit.

        :raises AirflowSkipException: if it came by an event and another run has done so.
        """
        from airflow_mlops.core.store import safe_name
        from airflow_mlops.hooks.store import StoreHook

        ti = context["ti"]
        store = StoreHook(self.store_conn_id or None).get_conn()
        key = f"code/{safe_name(ti.dag_id)}/{safe_name(ti.task_id)}/{commit['sha']}.json"
        if store.put_json(key, {"schema": SCHEMA, "run": ti.run_id, "at": utc_now()}, if_absent=True):
            return
        other = store.get_json(key)["run"]
        if other == ti.run_id:
            return
        if self.once and commit.get("event"):
            raise AirflowSkipException(
                f"the run {other} has acted on {commit['sha']}; start one by hand to do it again"
            )
        log.info("The run %s has acted on this commit; here it is again, as was asked for", other)


def code_folder(folder: str | None) -> Path:
    """Return where working copies and environments are on this worker."""
    from airflow_mlops import backend

    if folder:
        return Path(folder).expanduser().absolute()
    if backend.name() == "embedded":
        return backend.home() / "code"
    return Path(os.environ.get("AIRFLOW_HOME") or os.path.expanduser("~/airflow"), "mlops", "code").absolute()


def told_commits(context: Context) -> list[dict[str, Any]]:
    """Return the commits that the triggering asset events tell of, in their order.

    An event of a watcher has its payload; one that was posted through the REST API is ``{"sha": ..., "ref": ...}``.
    """
    found = []
    for event in sorted(triggering_events(context), key=lambda one: str(getattr(one, "timestamp", ""))):
        extra = getattr(event, "extra", None) or {}
        payload = extra.get("payload", extra)
        if isinstance(payload, dict) and re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", str(payload.get("sha"))):
            known = ("sha", "ref", "subject", "author", "committed_at")
            found.append({name: payload[name] for name in known if payload.get(name)})
    return found
