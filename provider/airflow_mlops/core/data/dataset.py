"""Datasets as arguments: what a ref, path, glob or URI stands for, and reading it.

:func:`resolve` and the readers are what every step uses; how files are read is in :mod:`.reading`, and the digest of
content in :mod:`.content`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core.extras import require
from airflow_mlops.core.store import Store
from airflow_mlops.core.vocabulary import DatasetRef, check_roles

if TYPE_CHECKING:
    import pandas
    import pyarrow


def resolve(
    store: Store,
    dataset: Any,
    *,
    roles: dict[str, Any] | None = None,
    target: str | None = None,
    name: str | None = None,
) -> DatasetRef:
    """Return the ref of a dataset argument.

    :param dataset: a dataset ref (dict), or a path, glob or ``file://`` URI, which is read in place; its digest is
        then that of the manifest of paths, sizes and modification times.
    :param roles: added to the ref's own; these win.
    :param target: short for ``roles={"target": ...}``.
    """
    added = check_roles({**(roles or {}), **({"target": target} if target else {})})
    if isinstance(dataset, dict):
        ref = DatasetRef.from_dict(dataset)
        return DatasetRef(**{**_fields(ref), "roles": {**ref.roles, **added}})
    from airflow_mlops.core.data.reading import open_source

    source = open_source(str(dataset))
    return DatasetRef(
        name=name or source.name,
        uri=str(dataset),
        digest=source.manifest_digest(),
        format=source.format,
        rows=source.rows,
        columns=source.columns,
        roles=added,
        source=str(dataset),
    )


def _fields(ref: DatasetRef) -> dict[str, Any]:
    return {name: getattr(ref, name) for name in ref.__dataclass_fields__ if name != "kind"}


def read_table(store: Store, ref: DatasetRef, columns: list[str] | None = None) -> pyarrow.Table:
    """Return a dataset's rows as an Arrow table.

    :param columns: only these, in this order; default all.
    :raises MissingColumnError: if one is not there.
    :raises NotFoundError: if a stored snapshot is gone.
    :raises IntegrityError: if a stored snapshot's content no longer has the ref's digest.
    """
    raise NotImplementedError


def read_frame(store: Store, ref: DatasetRef, columns: list[str] | None = None) -> pandas.DataFrame:
    """Return a dataset's rows as a pandas frame with a fresh index; see :func:`read_table`."""
    require("pandas", "reading a dataset as a frame")
    return read_table(store, ref, columns).to_pandas()  # type: ignore[no-any-return]


def write_table(
    store: Store,
    table: pyarrow.Table,
    *,
    name: str,
    roles: dict[str, Any] | None = None,
    window: dict[str, Any] | None = None,
    source: str | None = None,
) -> DatasetRef:
    """Store a table as content-addressed Parquet and return its ref; equal content is stored once."""
    raise NotImplementedError
