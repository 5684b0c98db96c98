"""MLflowHook: from a connection of type ``mlflow`` to a client."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseHook, conf

from airflow_mlops import backend
from airflow_mlops.core.errors import MlopsError, SpecError, did_you_mean
from airflow_mlops.core.tracking import sqlite_uri, strip_credentials

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection
    from mlflow import MlflowClient

#: What a connection's extra may hold, and the variable of MLflow that each sets (None: read here).
EXTRA: dict[str, str | None] = {
    "registry_uri": None,
    "ui_url": None,
    "insecure_tls": "MLFLOW_TRACKING_INSECURE_TLS",
    "server_cert_path": "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "client_cert_path": "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "timeout": "MLFLOW_HTTP_REQUEST_TIMEOUT",
    "token": "MLFLOW_TRACKING_TOKEN",
}


class MLflowHook(BaseHook):
    """Give an MLflow client for a connection, or for the configuration's back end.

    The connection: ``host`` (with or without scheme), ``port``, ``schema`` (``http`` or ``https``), ``login`` and
    ``password``; or a ``token`` in the extra, or in the password with no login. Extra: ``registry_uri``, ``ui_url``
    (where people open MLflow, if that is another address), ``insecure_tls``, ``server_cert_path``,
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
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from wtforms import BooleanField, PasswordField, StringField

        def text(label: str) -> StringField:
            return StringField(label, widget=BS3TextFieldWidget())

        return {
            "registry_uri": text("Registry URI"),
            "ui_url": text("UI address"),
            "token": PasswordField("Token", widget=BS3PasswordFieldWidget()),
            "insecure_tls": BooleanField("Accept any TLS certificate"),
            "server_cert_path": text("CA bundle"),
            "client_cert_path": text("Client certificate"),
            "timeout": text("Timeout (s)"),
        }

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the connection form."""
        return {
            "hidden_fields": [],
            "relabeling": {"schema": "Scheme"},
            "placeholders": {"host": "mlflow.example.com", "port": "5000", "schema": "https", "login": "user"},
        }

    @cached_property
    def tracking(self) -> backend.Tracking:
        """Addresses and credentials.

        :raises SpecError: if the connection is of another type, has no host, or an extra field that is not known.
        """
        conn_id = self.mlflow_conn_id
        if conn_id is None:
            if backend.name() == "embedded":
                ui = conf.get(backend.SECTION, "mlflow_ui_url", fallback="") or None
                return backend.Tracking(tracking_uri=sqlite_uri(backend.home() / "mlflow.db"), ui_url=ui)
            conn_id = conf.get(backend.SECTION, "mlflow_conn_id", fallback=self.default_conn_name)
        return tracking_of(self.get_connection(conn_id), conn_id)

    def get_conn(self) -> MlflowClient:
        """Return a client; credentials are in the environment only while :meth:`session` is open."""
        from airflow_mlops.core.extras import require

        mlflow = require("mlflow", "MLflowHook")
        return mlflow.MlflowClient(
            self.tracking.tracking_uri, self.tracking.registry_uri or self.tracking.tracking_uri
        )

    def test_connection(self) -> tuple[bool, str]:
        """Ask the server for one experiment and say what is wrong, for Airflow's "Test" button."""
        import logging

        from airflow_mlops.core.steps import StepContext
        from airflow_mlops.core.store import LocalStore
        from airflow_mlops.core.tracking import client, mlflow_errors

        try:
            tracking = self.tracking
            variables = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
            with backend.environment({**tracking.environment, **variables}):
                context = StepContext(
                    store=LocalStore("/nonexistent"),
                    tracking_uri=tracking.tracking_uri,
                    registry_uri=tracking.registry_uri,
                    log=logging.getLogger(__name__),
                )
                mlflow_client = client(context, "MLflowHook")
                with mlflow_errors(tracking.tracking_uri):
                    mlflow_client.search_experiments(max_results=1)
                with mlflow_errors(tracking.registry_uri or tracking.tracking_uri):
                    mlflow_client.search_registered_models(max_results=1)
        except MlopsError as error:
            return False, error.message
        return True, f"MLflow answers at {strip_credentials(tracking.tracking_uri)}"


def tracking_of(connection: Connection, conn_id: str) -> backend.Tracking:
    """Return addresses and credentials of an ``mlflow`` connection, its secrets masked in Airflow's logs."""
    if connection.conn_type not in ("mlflow", "http", "https"):
        raise SpecError(f"the connection {conn_id!r} has type {connection.conn_type!r}, expected 'mlflow'")
    host = (connection.host or "").strip()
    if not host:
        raise SpecError(f"the connection {conn_id!r} has no host; give the address of the MLflow server")
    extra = connection.extra_dejson
    for key in extra:
        if key not in EXTRA:
            raise SpecError(f"the connection {conn_id!r} has an extra field {key!r}{did_you_mean(key, EXTRA)}")
    scheme = connection.schema or ("https" if connection.port == 443 else "http")
    parts = urlsplit(host if "://" in host else f"{scheme}://{host}")
    port = f":{connection.port}" if connection.port and not parts.port else ""
    login, password = connection.login or parts.username, connection.password or parts.password
    netloc = parts.netloc.rpartition("@")[2] + port
    variables = {v: _as_text(extra[k]) for k, v in EXTRA.items() if v and extra.get(k) not in (None, "", False)}
    if login:
        variables["MLFLOW_TRACKING_USERNAME"] = login
        variables["MLFLOW_TRACKING_PASSWORD"] = password or ""
    elif password and "MLFLOW_TRACKING_TOKEN" not in variables:
        variables["MLFLOW_TRACKING_TOKEN"] = password
    for secret in (password, variables.get("MLFLOW_TRACKING_TOKEN")):
        mask(secret)
    return backend.Tracking(
        tracking_uri=f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}",
        registry_uri=strip_credentials(extra["registry_uri"]) if extra.get("registry_uri") else None,
        environment=variables,
        ui_url=extra.get("ui_url") or None,
        source=conn_id,
    )


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def mask(secret: str | None) -> None:
    """Hide a secret in Airflow's logs, as it is and URL-encoded."""
    if not secret:
        return
    from airflow.sdk.log import mask_secret

    mask_secret(secret)
    if quote(secret, safe="") != secret:
        mask_secret(quote(secret, safe=""))
