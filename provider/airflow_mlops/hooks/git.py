"""GitAccessHook: from a URL, or Airflow's connections of type ``git``, to the access that git is run with."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_mlops import backend
from airflow_mlops.core.code.git import HOST_KEY_CHECKING, GitAccess, access_of
from airflow_mlops.core.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

#: What is read of a connection's extra: fields of Airflow's provider for git, which need not be installed.
EXTRA = (
    *("key_file", "private_key", "private_key_passphrase", "strict_host_key_checking", "known_hosts_file"),
    *("ssh_config_file", "host_proxy_cmd", "ssh_port"),
)
_APP = ("github_app_id", "github_installation_id")


class GitAccessHook(BaseHook):
    """Give the access to a git repository; passwords and keys are masked in logs.

    The connection has the type ``git`` of ``apache-airflow-providers-git``: ``host`` is the repository's URL, ``login``
    and ``password`` open it over ``http(s)``, and the extra has the keys for SSH. That provider need not be installed.

    :param git_conn_id: the connection; None: the repository needs no credentials, or git finds them by itself.
    :param repository: the repository; default: the connection's host.
    """

    conn_name_attr = "git_conn_id"
    default_conn_name = "git_default"
    hook_name = "Git access"

    def __init__(self, git_conn_id: str | None = None, repository: str | None = None) -> None:
        super().__init__()
        self.git_conn_id = git_conn_id
        self.repository = repository

    @cached_property
    def access(self) -> GitAccess:
        """The access.

        :raises CannotReachError: if the connection cannot be had.
        :raises SpecError: if it is of another type, or has a field that cannot be; or if there is no repository.
        """
        from airflow_mlops.hooks.mlflow import mask

        if not self.git_conn_id:
            if not self.repository:
                raise SpecError("a repository is needed: its URL or path, or git_conn_id, whose host it then is")
            made = access_of(self.repository)
        else:
            made = _access(backend.connection(self.git_conn_id), self.git_conn_id, self.repository)
        for secret in (made.password, made.private_key, made.passphrase):
            mask(secret)
        return made

    def get_conn(self) -> GitAccess:
        """Return the access."""
        return self.access


def _access(connection: Connection, conn_id: str, repository: str | None) -> GitAccess:
    if connection.conn_type != "git":
        raise SpecError(f"the connection {conn_id!r} has type {connection.conn_type!r}, expected 'git'")
    extra: dict[str, Any] = {k: v for k, v in connection.extra_dejson.items() if v not in (None, "")}
    for key in extra:
        if key in _APP:
            raise SpecError(
                f"the connection {conn_id!r} logs in as a GitHub App, which is not supported here: give it a token of "
                "the app, or a fine-grained personal one, as password"
            )
        if key not in EXTRA:
            raise SpecError(f"the connection {conn_id!r} has an extra field {key!r}{did_you_mean(key, EXTRA)}")
    url = repository or connection.host
    if not url:
        raise SpecError(f"the connection {conn_id!r} has no host, which is the URL of the repository")
    checking = str(extra.get("strict_host_key_checking") or "accept-new")
    if checking not in HOST_KEY_CHECKING:
        raise SpecError(
            f"strict_host_key_checking of the connection {conn_id!r} must be one of {', '.join(HOST_KEY_CHECKING)}, "
            f"got {checking!r}"
        )
    key_file = extra.get("key_file")
    if key_file and extra.get("private_key"):
        raise SpecError(f"the connection {conn_id!r} must have key_file or private_key, not both")
    if key_file and not Path(key_file).expanduser().is_file():
        raise SpecError(f"the connection {conn_id!r} names the key_file {key_file}, which is not on this machine")
    port = str(extra.get("ssh_port") or "")
    if port and not port.isdigit():
        raise SpecError(f"ssh_port of the connection {conn_id!r} must be a number, got {port!r}")
    return access_of(
        str(url),
        login=connection.login or None,
        password=connection.password or None,
        private_key=extra.get("private_key"),
        key_file=str(Path(key_file).expanduser()) if key_file else None,
        passphrase=extra.get("private_key_passphrase"),
        host_key_checking=checking,
        known_hosts_file=extra.get("known_hosts_file"),
        ssh_config_file=extra.get("ssh_config_file"),
        proxy_command=extra.get("host_proxy_cmd"),
        port=int(port) if port else None,
        source=conn_id,
    )
