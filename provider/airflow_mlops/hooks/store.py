"""StoreHook: from configuration or a connection to the store."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from airflow.providers.common.compat.sdk import BaseHook, conf

from airflow_mlops import backend
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.store import Store, open_store


class StoreHook(BaseHook):
    """Give the store that snapshots, reports and the ledger live in.

    Without a connection id the configuration decides: on the embedded back end it is ``store/`` in ``[mlops] home``,
    with connections the connection that ``[mlops] store_conn_id`` names. A connection of type ``fs`` names a folder
    that all workers see (its ``path``).

    :param store_conn_id: the connection, or None for the configuration's.
    """

    conn_name_attr = "store_conn_id"
    default_conn_name = "mlops_store_default"
    hook_name = "MLOps store"

    def __init__(self, store_conn_id: str | None = None) -> None:
        super().__init__()
        self.store_conn_id = store_conn_id

    @cached_property
    def uri(self) -> str:
        """The store's URI, without credentials.

        :raises SpecError: if the connection is of a type that holds no store, or names no folder.
        """
        conn_id = self.store_conn_id
        if conn_id is None:
            if backend.name() == "embedded":
                return (backend.home() / "store").as_uri()
            conn_id = conf.get(backend.SECTION, "store_conn_id", fallback=self.default_conn_name)
        connection = backend.connection(conn_id)
        if connection.conn_type != "fs":
            raise SpecError(
                f"the connection {conn_id!r} has type {connection.conn_type!r}; a store is a connection of type 'fs' "
                "whose path is a folder that all workers see"
            )
        path = connection.extra_dejson.get("path") or connection.host
        if not path or not Path(path).is_absolute():
            raise SpecError(f"the connection {conn_id!r} must give an absolute 'path', got {path!r}")
        return Path(path).as_uri()

    def get_conn(self) -> Store:
        """Return the store."""
        return open_store(self.uri)
