"""StoreHook: from configuration or a connection to the store."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook, conf

from airflow_mlops import backend
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.s3 import STORE, S3Access
from airflow_mlops.core.store import Store, open_store

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection


class StoreHook(BaseHook):
    """Give the store that snapshots, reports and the ledger live in.

    Without a connection id the configuration decides: on the embedded back end it is ``store/`` in ``[mlops] home``,
    with connections the connection that ``[mlops] store_conn_id`` names. A connection of type ``fs`` names a folder
    that all workers see (its ``path``), one of type ``aws`` a bucket (``bucket`` and ``prefix`` in its extra).

    :param store_conn_id: the connection, or None for the configuration's.
    """

    conn_name_attr = "store_conn_id"
    default_conn_name = "mlops_store_default"
    hook_name = "MLOps store"

    def __init__(self, store_conn_id: str | None = None) -> None:
        super().__init__()
        self.store_conn_id = store_conn_id

    @cached_property
    def connection(self) -> Connection | None:
        """The connection, which must exist, or None on the embedded back end.

        :raises CannotReachError: if it cannot be had.
        """
        conn_id = self.store_conn_id
        if conn_id is None:
            if backend.name() == "embedded":
                return None
            conn_id = conf.get(backend.SECTION, "store_conn_id", fallback=self.default_conn_name)
        return backend.connection(conn_id)

    @cached_property
    def uri(self) -> str:
        """The store's URI, without credentials.

        :raises SpecError: if the connection is of a type that holds no store, or names no place.
        """
        connection = self.connection
        if connection is None:
            return (backend.home() / "store").as_uri()
        if connection.conn_type == "aws":
            return _bucket_uri(connection)
        if connection.conn_type != "fs":
            raise SpecError(
                f"the connection {connection.conn_id!r} has type {connection.conn_type!r}; a store is a connection of "
                "type 'fs' whose path is a folder that all workers see, or of type 'aws' with a 'bucket' in its extra"
            )
        path = connection.extra_dejson.get("path") or connection.host
        if not path or not Path(path).is_absolute():
            raise SpecError(f"the connection {connection.conn_id!r} must give an absolute 'path', got {path!r}")
        return Path(path).as_uri()

    @cached_property
    def access(self) -> S3Access | None:
        """How a store on S3 is reached, credentials included; None for a folder."""
        if self.connection is None or self.connection.conn_type != "aws":
            return None
        from airflow_mlops.hooks.s3 import S3AccessHook

        return replace(S3AccessHook(str(self.connection.conn_id)).access, uri=self.uri)

    @property
    def environment(self) -> dict[str, str]:
        """The variable that carries the access to a store on S3 to a step."""
        return {STORE: self.access.to_json()} if self.access else {}

    def get_conn(self) -> Store:
        """Return the store."""
        return open_store(self.uri, self.access)


def _bucket_uri(connection: Connection) -> str:
    extra: dict[str, Any] = connection.extra_dejson
    service = (extra.get("service_config") or {}).get("s3") or {}
    bucket = extra.get("bucket") or service.get("bucket_name")
    if not isinstance(bucket, str) or not bucket.strip():
        raise SpecError(
            f"the connection {connection.conn_id!r} names no bucket: set 'bucket' in its extra, and 'prefix' if the "
            "store shall not begin at the bucket's root"
        )
    return open_store(f"s3://{bucket.strip()}/{str(extra.get('prefix') or '').strip('/')}").uri
