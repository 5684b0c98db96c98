"""SqlHook: from any SQL connection of Airflow to the URL that a step reads a database by."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from airflow.providers.common.compat.sdk import BaseHook

from airflow_mlops import backend
from airflow_mlops.core.errors import MissingExtraError, SpecError
from airflow_mlops.core.extras import DISTRIBUTION

if TYPE_CHECKING:
    import sqlalchemy
    from airflow.providers.common.compat.sdk import Connection

#: Keys of a Postgres connection's extra that libpq is given.
_POSTGRES_EXTRA = {"sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "options", "application_name"}
_POSTGRES_EXTRA |= {"connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"}
_POSTGRES_EXTRA |= {"target_session_attrs", "gssencmode", "channel_binding"}


class SqlHook(BaseHook):
    """Give the SQLAlchemy URL of a connection: the one that its own provider's hook makes.

    A connection of type ``sqlite`` needs no provider: its host is the path of the file.

    :param conn_id: a connection whose provider has a hook for SQL (``postgres``, ``mysql``, ``snowflake``, ...).
    """

    conn_name_attr = "conn_id"
    default_conn_name = "sql_default"
    hook_name = "SQL source"

    def __init__(self, conn_id: str) -> None:
        super().__init__()
        self.conn_id = conn_id

    @property
    def environment(self) -> dict[str, str]:
        """The variable that carries the URL, password included, to a step."""
        from airflow_mlops.core.data.sql_connection import VARIABLE

        return {VARIABLE: self.url}

    @property
    def url(self) -> str:
        """The URL with its password; both are masked in logs.

        :raises SpecError: if the connection is of a type that no installed provider reads by SQL.
        :raises MissingExtraError: if the provider for SQL is not installed.
        """
        from airflow.sdk.log import mask_secret

        connection = backend.connection(self.conn_id)
        if connection.conn_type == "sqlite":
            return f"sqlite:///{os.path.expanduser(connection.host or connection.schema or '')}"
        url = _url_of(connection, self.conn_id)
        # The masker knows the password as it is, and here it stands URL-encoded.
        mask_secret(url)
        if connection.password:
            for form in {connection.password, quote(connection.password, safe=""), quote_plus(connection.password)}:
                mask_secret(form)
        return url

    def get_conn(self) -> sqlalchemy.Engine:
        """Return an engine that reads."""
        from airflow_mlops.backend import environment
        from airflow_mlops.core.data.sql_connection import open_database

        with environment(self.environment):
            return open_database(self.conn_id).engine


def _url_of(connection: Connection, conn_id: str) -> str:
    try:
        from airflow.providers.common.sql.hooks.sql import DbApiHook
    except ImportError as error:
        raise MissingExtraError(
            f"reading from the connection {conn_id!r} needs Airflow's provider for SQL, which is not installed here; "
            f"run: pip install '{DISTRIBUTION}[sql]'",
            library="apache-airflow-providers-common-sql",
            extra="sql",
        ) from error
    try:
        hook: Any = connection.get_hook()  # type: ignore[no-untyped-call]
    except Exception as error:
        if connection.conn_type == "generic":
            # What `airflow connections add --conn-type` makes, with a warning, of a type that nobody provides.
            raise SpecError(
                f"the connection {conn_id!r} has type 'generic', which Airflow gives to one whose own type no "
                "installed provider knows: install that provider and make the connection again. SQLite needs none: "
                "airflow connections add NAME --conn-uri 'sqlite://%2Fpath%2Fof%2Ffile.db'"
            ) from None
        raise SpecError(
            f"no installed provider knows the type {connection.conn_type!r} of the connection {conn_id!r}; install "
            f"the one that does ({type(error).__name__})"
        ) from None
    if not isinstance(hook, DbApiHook):
        raise SpecError(
            f"the connection {conn_id!r} has type {connection.conn_type!r}, which is no SQL database to Airflow"
        )
    try:
        url: Any = hook.sqlalchemy_url
    except NotImplementedError:
        url = hook.get_uri()
    if hasattr(url, "render_as_string"):
        if url.get_backend_name() == "postgresql":
            # What the hook itself hands to the driver, but does not write into its URL.
            extra = {k: str(v) for k, v in connection.extra_dejson.items() if k in _POSTGRES_EXTRA}
            url = url.update_query_dict(extra)
        return str(url.render_as_string(hide_password=False))
    return str(url)
