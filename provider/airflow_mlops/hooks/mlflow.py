"""MLflowHook: from a connection of type ``mlflow`` to a client."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from airflow.providers.common.compat.sdk import BaseHook, conf

from airflow_mlops import backend
from airflow_mlops.core.errors import MlopsError, SpecError, did_you_mean
from airflow_mlops.core.tracking import sqlite_uri, strip_credentials
from airflow_mlops.hooks.forms import form_widgets

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection
    from mlflow import MlflowClient

#: What a connection's extra may hold, and the variable of MLflow that each sets (None: read here).
EXTRA: dict[str, str | None] = {
    "registry_uri": None,
    "ui_url": None,
    "token": "MLFLOW_TRACKING_TOKEN",
    "insecure_tls": "MLFLOW_TRACKING_INSECURE_TLS",
    "server_cert_path": "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "client_cert_path": "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "timeout": "MLFLOW_HTTP_REQUEST_TIMEOUT",
}
USERNAME, PASSWORD, TOKEN = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
#: Seconds that a test of the connection waits for an answer.
TEST_TIMEOUT = 5


class MLflowHook(BaseHook):
    """Give an MLflow client for a connection, or for the configuration's back end.

    The connection: ``host`` (with or without scheme and path), ``port``, ``schema`` (``http`` or ``https``), ``login``
    and ``password``; or a ``token`` in the extra, or in the password with no login. Extra: ``registry_uri``,
    ``ui_url`` (where people open MLflow, if that is another address), ``insecure_tls``, ``server_cert_path``,
    ``client_cert_path``, ``timeout`` in seconds.

    :param mlflow_conn_id: the connection, or None for the configuration's back end.
    """

    conn_name_attr = "mlflow_conn_id"
    default_conn_name = "mlflow_default"
    conn_type = "mlflow"
    hook_name = "MLflow"

    def __init__(self, mlflow_conn_id: str | None = None) -> None:
        super().__init__()
        self.mlflow_conn_id = mlflow_conn_id

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form (Airflow 3.1; later versions read the metadata)."""
        return form_widgets(cls.conn_type)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the connection form (Airflow 3.1)."""
        return {
            "hidden_fields": [],
            "relabeling": {"schema": "Scheme"},
            "placeholders": {"host": "mlflow.example.com", "port": "5000", "schema": "https"},
        }

    @cached_property
    def tracking(self) -> backend.Tracking:
        """Addresses and credentials.

        :raises SpecError: if the connection is of another type, has no host, or an extra field that is not known.
        :raises CannotReachError: if there is no such connection, or the secrets back end does not answer.
        """
        conn_id = self.mlflow_conn_id
        if conn_id is None:
            if backend.name() == "embedded":
                ui = conf.get(backend.SECTION, "mlflow_ui_url", fallback="") or None
                return backend.Tracking(tracking_uri=sqlite_uri(backend.home() / "mlflow.db"), ui_url=ui)
            conn_id = conf.get(backend.SECTION, "mlflow_conn_id", fallback=self.default_conn_name)
        return tracking_of(backend.connection(conn_id), conn_id)

    @contextmanager
    def session(self) -> Iterator[MlflowClient]:
        """Give a client; MLflow finds the credentials in the environment until the block ends."""
        with backend.environment(self.tracking.environment):
            yield self._client()

    def get_conn(self) -> MlflowClient:
        """Return a client whose credentials stay in this process's environment; :meth:`session` takes them away."""
        os.environ.update(self.tracking.environment)
        return self._client()

    def _client(self) -> MlflowClient:
        from airflow_mlops.core.steps import StepContext
        from airflow_mlops.core.store import LocalStore
        from airflow_mlops.core.tracking import client

        tracking = self.tracking
        context = StepContext(
            store=LocalStore(os.devnull), tracking_uri=tracking.tracking_uri, registry_uri=tracking.registry_uri
        )
        return client(context, "MLflowHook")

    def test_connection(self) -> tuple[bool, str]:
        """Ask the servers for one experiment and one model, and say what is wrong, for Airflow's "Test" button."""
        from airflow_mlops.core.tracking import mlflow_errors

        try:
            tracking = self.tracking
            quick = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(TEST_TIMEOUT), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
            # The user may have said that the server is slower than that.
            with backend.environment({**quick, **tracking.environment}), _silent("urllib3", "mlflow"):
                mlflow_client = self._client()
                with mlflow_errors(tracking.tracking_uri):
                    mlflow_client.search_experiments(max_results=1)
                with mlflow_errors(tracking.registry_uri or tracking.tracking_uri):
                    mlflow_client.search_registered_models(max_results=1)
        except MlopsError as error:
            return False, error.message
        return True, f"MLflow answers at {strip_credentials(tracking.tracking_uri)}"


def tracking_of(connection: Connection, conn_id: str) -> backend.Tracking:
    """Return addresses and credentials of an ``mlflow`` connection, its secrets masked in Airflow's logs.

    :raises SpecError: if the connection cannot be one of MLflow, without quoting any secret.
    """
    extra = connection.extra_dejson
    parts = _address(connection, conn_id)
    login = connection.login or unquote(parts.username or "")
    password = connection.password or unquote(parts.password or "")
    for secret in (connection.password, password, parts.password, extra.get("token")):
        mask(secret)
    if connection.conn_type not in ("mlflow", "http", "https"):
        raise SpecError(f"the connection {conn_id!r} has type {connection.conn_type!r}, expected 'mlflow'")
    for key in extra:
        if key not in EXTRA:
            raise SpecError(f"the connection {conn_id!r} has an extra field {key!r}{did_you_mean(key, EXTRA)}")
    port = f":{connection.port}" if connection.port and not parts.port else ""
    netloc = parts.netloc.rpartition("@")[2] + port
    registry = extra.get("registry_uri") or None
    if registry and strip_credentials(registry) != registry:
        mask(urlsplit(registry).password)
        raise SpecError(
            f"the registry_uri of the connection {conn_id!r} holds credentials; leave them out: those of the "
            "connection are used for both servers"
        )
    return backend.Tracking(
        tracking_uri=f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}",
        registry_uri=registry,
        environment={**_options(extra, conn_id), **_credentials(login, password, extra.get("token"), conn_id)},
        ui_url=strip_credentials(extra.get("ui_url") or "") or None,
        source=conn_id,
    )


def _address(connection: Connection, conn_id: str) -> SplitResult:
    host = (connection.host or "").strip()
    if not host:
        raise SpecError(f"the connection {conn_id!r} has no host; give the address of the MLflow server")
    if "://" not in host and host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"  # IPv6
    scheme = (connection.schema or "").strip() or ("https" if connection.port == 443 else "http")
    try:
        parts = urlsplit(host if "://" in host else f"{scheme}://{host}")
        _ = parts.port
    except ValueError:
        raise SpecError(f"the host of the connection {conn_id!r} is not an address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(
            f"the connection {conn_id!r} must lead to http or https, not to {parts.scheme!r}; "
            "its schema field is the scheme of the address"
        )
    return parts


def _options(extra: Mapping[str, Any], conn_id: str) -> dict[str, str]:
    """Return MLflow's variables for TLS and time-out; a form may hand over any value as text."""
    found = {}
    for key in ("server_cert_path", "client_cert_path"):
        if extra.get(key):
            found[str(EXTRA[key])] = str(extra[key])
    insecure = str(extra.get("insecure_tls") or "false").strip().lower()
    if insecure not in ("true", "false", "1", "0", "yes", "no"):
        raise SpecError(f"insecure_tls of the connection {conn_id!r} must be true or false, got {insecure!r}")
    if insecure in ("true", "1", "yes"):
        found[str(EXTRA["insecure_tls"])] = "true"
        if extra.get("server_cert_path"):
            raise SpecError(f"the connection {conn_id!r} has insecure_tls and a server_cert_path; give one of them")
    if extra.get("timeout") not in (None, ""):
        seconds = str(extra["timeout"]).strip()
        if not seconds.isdigit() or int(seconds) < 1:
            raise SpecError(f"timeout of the connection {conn_id!r} must be whole seconds, got {seconds!r}")
        found[str(EXTRA["timeout"])] = seconds
    return found


def _credentials(login: str, password: str, token: Any, conn_id: str) -> dict[str, str]:
    """Return MLflow's variables for the credentials.

    A connection that has credentials empties the variables it does not use: MLflow would prefer a user name from the
    worker's environment to the connection's token, and send it to this server.
    """
    if token and login:
        raise SpecError(f"the connection {conn_id!r} has a login and a token; give one of them")
    if login:
        return {USERNAME: login, PASSWORD: password, TOKEN: ""}
    if token or password:
        return {USERNAME: "", PASSWORD: "", TOKEN: str(token or password)}
    return {}


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Keep libraries from logging each failed attempt of a test whose outcome is told anyway."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def mask(secret: Any) -> None:
    """Hide a secret in Airflow's logs, as it is and URL-encoded."""
    if not secret:
        return
    from airflow.sdk.log import mask_secret

    for form in {str(secret), quote(str(secret), safe=""), quote(str(secret)), unquote(str(secret))}:
        mask_secret(form)
