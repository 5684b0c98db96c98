"""ModelServerHook: where model servers run, and what they serve."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import BaseHook, conf

from airflow_mlops import backend
from airflow_mlops.core.errors import CannotReachError, MlopsError, SpecError, did_you_mean
from airflow_mlops.core.serving import counters, exposition
from airflow_mlops.core.serving.client import ServerClient
from airflow_mlops.core.serving.places import Place, alive
from airflow_mlops.hooks.forms import form_widgets

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_mlops.core.serving.exposition import Series

#: What a connection's extra may hold.
EXTRA = ("backend", "gateway_folder", "image", "network", "docker_conn_id", "user", "memory", "metrics")


class ModelServerHook(BaseHook):
    """Give where model servers run, and ask them through their gateway.

    The connection, of type ``model_server``: ``host`` and ``port`` of the gateway as clients reach it. Extra:
    ``backend`` (``processes``, the default, or ``docker``), and for ``docker`` ``gateway_folder`` (the gateway's folder
    as the workers see it), ``image``, ``network``, ``docker_conn_id``, ``user``, ``memory``. Of servers that somebody
    else started: ``metrics``, the URL of what they expose for Prometheus, its path at the host, or a list of either;
    login and password are for that (a password alone is a bearer token).

    :param server_conn_id: the connection, or None for the configuration's back end.
    """

    conn_name_attr = "server_conn_id"
    default_conn_name = "model_server_default"
    conn_type = "model_server"
    hook_name = "Model server"

    def __init__(self, server_conn_id: str | None = None) -> None:
        super().__init__()
        self.server_conn_id = server_conn_id

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extra fields of the connection form (Airflow 3.1; later versions read the metadata)."""
        return form_widgets(cls.conn_type)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return labels and placeholders of the connection form (Airflow 3.1)."""
        return {
            "hidden_fields": ["schema"],
            "relabeling": {},
            "placeholders": {"host": "gateway.example.com", "port": "8600"},
        }

    @cached_property
    def connection(self) -> Connection | None:
        """The connection, which must exist, or None on the embedded back end.

        :raises CannotReachError: if it cannot be had.
        """
        conn_id = self.server_conn_id
        if conn_id is None:
            conn_id = conf.get(backend.SECTION, "server_conn_id", fallback="")
            if not conn_id and backend.name() == "embedded":
                return None
            conn_id = conn_id or self.default_conn_name
        return backend.connection(conn_id)

    @cached_property
    def _extra(self) -> dict[str, Any]:
        connection = self.connection
        if connection is None:
            return {}
        extra = {key: value for key, value in connection.extra_dejson.items() if value not in (None, "")}
        for key in extra:
            if key not in EXTRA:
                near = did_you_mean(key, EXTRA)
                raise SpecError(f"the connection {str(connection.conn_id)!r} has an extra field {key!r}{near}")
        return extra

    @property
    def metrics(self) -> list[str]:
        """URLs of what servers of somebody else expose for Prometheus; empty for servers of this provider."""
        given = self._extra.get("metrics") or []
        found = []
        for one in [given] if isinstance(given, str) else given:
            base = _url(self.connection) if str(one).startswith("/") and self.connection else ""
            found.append(f"{base}{one}")
        return found

    def counted(self, series: Series | None = None) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """Return what those servers have counted, and which of them could not be read, and why.

        :raises SpecError: if one does not expose the series.
        """
        texts, missing = {}, []
        login, password = (str(getattr(self.connection, name, None) or "") for name in ("login", "password"))
        for url in self.metrics:
            try:
                texts[exposition.place_of(url)] = exposition.fetch(url, login=login, password=password)
            except CannotReachError as error:
                missing.append({"name": exposition.place_of(url), "why": error.message})
        return counters.of_texts(texts, series), missing

    @cached_property
    def place(self) -> Place:
        """Where servers run.

        :raises SpecError: if the connection cannot be one of model servers, or workers may sit on several machines
            and servers shall be processes of one.
        """
        connection = self.connection
        if connection is None:
            backend.home()  # raises where workers may sit on several machines
            return Place()
        conn_id = str(connection.conn_id)
        if connection.conn_type != self.conn_type:
            raise SpecError(f"the connection {conn_id!r} has type {connection.conn_type!r}, expected 'model_server'")
        extra = self._extra
        if "metrics" in extra:
            raise SpecError(
                f"the connection {conn_id!r} has 'metrics' in its extra: its servers are somebody else's, and can be "
                "monitored, not deployed to"
            )
        kind = str(extra.get("backend") or "processes")
        url = _url(connection)
        if kind != "docker":
            backend.home()
            return Place.of({"backend": kind, "url": url})
        for key in ("gateway_folder", "image"):
            if key not in extra:
                raise SpecError(f'the connection {conn_id!r} has "backend": "docker" and no {key!r} in its extra')
        from airflow_mlops.runtimes.docker_engine import engine_of

        engine = engine_of(extra.get("docker_conn_id"))
        return Place.of(
            {
                "backend": kind,
                "gateway": str(extra["gateway_folder"]),
                "url": url,
                "image": str(extra["image"]),
                "network": str(extra.get("network") or ""),
                "user": str(extra.get("user") or f"{os.getuid()}:{os.getgid()}"),
                "memory": str(extra.get("memory") or ""),
                "engine": {"url": engine.url, "tls": engine.tls},
            }
        )

    @property
    def address(self) -> str:
        """``host:port`` of the gateway.

        :raises CannotReachError: if ``airflow mlops serve`` shall say it, and does not run.
        """
        url = self.place.url
        if not url:
            from airflow_mlops.hooks.store import StoreHook

            url = str(alive(StoreHook().get_conn())["url"])
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port or 80}"

    def get_conn(self, server: str = "", timeout: float = 10.0) -> ServerClient:
        """Return a client of one server, through the gateway."""
        return ServerClient(self.address, f"/{server}" if server else "", timeout)

    def served(self, server: str) -> dict[str, Any]:
        """Return what a server says that it serves: ``model``, ``version``, ``digest``, ``deployment``."""
        with self.get_conn(server) as client:
            return client.model()

    def test_connection(self) -> tuple[bool, str]:
        """Ask the gateway, or servers of somebody else, for Airflow's "Test" button."""
        try:
            if self.metrics:
                counted, missing = self.counted()
                if missing:
                    raise CannotReachError(missing[0]["why"])
                return True, f"{len(counted)} servers have answered {sum(one['requests'] for one in counted)} requests"
            with self.get_conn(timeout=5) as client:
                status, _, _ = client.call("/gateway/health")
            if status != 200:
                raise CannotReachError(f"{self.address} answers {status}: it is no gateway of model servers")
        except MlopsError as error:
            return False, error.message
        return True, f"The gateway answers at {self.address}"


def _url(connection: Connection) -> str:
    host = (connection.host or "").strip()
    if not host:
        return ""
    parts = urlsplit(host if "://" in host else f"http://{host}")
    port = connection.port or parts.port
    return f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}"
