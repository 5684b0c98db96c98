"""Which object of the store a report's address stands for. Knows nothing of HTTP."""

from __future__ import annotations

from typing import IO

from airflow_mlops.core.errors import NotFoundError, SpecError
from airflow_mlops.core.store import LocalStore, Store, check_key, safe_name

#: Content types that are shown in the browser; whatever else stands in a report's folder is a download.
SHOWN = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "css": "text/css; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
}
DOWNLOAD = "application/octet-stream"


def content_type(path: str) -> str:
    """Return the content type for a file's name; :data:`DOWNLOAD` for one that no page needs."""
    return SHOWN.get(path.rpartition(".")[2].lower() if "." in path else "", DOWNLOAD)


def open_report(store: Store, dag_id: str, path: str) -> IO[bytes]:
    """Open a file of a DAG's reports.

    :param path: below ``reports/<dag>/``, decoded.
    :raises NotFoundError: if there is none, or the path leads anywhere else.
    """
    folder = f"reports/{safe_name(dag_id)}"
    try:
        key = check_key(f"{folder}/{path}")
    except SpecError as error:
        raise NotFoundError("there is no such report") from error
    if any(part.startswith(".") for part in path.split("/")) or not _inside(store, key, folder):
        raise NotFoundError("there is no such report")
    return store.open_input(key)


def _inside(store: Store, key: str, folder: str) -> bool:
    """Return whether no symbolic link leads the key out of the folder."""
    if not isinstance(store, LocalStore):
        return True
    try:
        file = store.path_of(key).resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return file.is_file() and file.is_relative_to(store.path_of(folder).resolve())
