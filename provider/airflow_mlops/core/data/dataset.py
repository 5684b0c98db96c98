"""Datasets as arguments: what a ref, path, glob or URI stands for, and reading it.

:func:`resolve` and the readers are what every step uses; how files are read is in :mod:`.reading`, and the digest of
content in :mod:`.content`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from airflow_mlops.core.errors import EmptyDataError, NotFoundError, SourceChangedError, UnsupportedError
from airflow_mlops.core.extras import require
from airflow_mlops.core.lifecycle import erasures, uses
from airflow_mlops.core.store import Store
from airflow_mlops.core.vocabulary import DatasetRef, check_roles

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from airflow_mlops.core.data.reading import Source


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
        if dataset.get("kind") != DatasetRef.kind and isinstance(dataset.get("dataset"), dict):
            dataset = dataset["dataset"]
        ref = current(store, DatasetRef.from_dict(dataset))
        return DatasetRef(**{**_fields(ref), "roles": {**ref.roles, **added}})
    from airflow_mlops.core.data.publishing import describe
    from airflow_mlops.core.data.reading import open_source

    source = open_source(str(dataset))
    columns, schema_uri = describe(store, source.columns)
    return DatasetRef(
        name=name or source.name,
        uri=source.uri,
        digest=source.manifest_digest(),
        format=source.format,
        rows=source.rows,
        columns=columns,
        schema_uri=schema_uri,
        roles=added,
        source=str(dataset),
    )


def current(store: Store, ref: DatasetRef) -> DatasetRef:
    """Return the ref of what stands in the place of a snapshot that rows were erased from; else the ref itself."""
    from airflow_mlops.core.data.publishing import data_key

    if store.key_of(ref.uri) != data_key(ref.digest):
        return ref
    erased = erasures.successor(store, ref.digest)
    if erased is None:
        return ref
    erasures.log_note(erased, f"dataset {ref.name!r}")
    new = {"digest": erased.new, "uri": store.uri_of(data_key(erased.new)), "rows": erased.rows}
    return DatasetRef(**{**_fields(ref), **new})


def _fields(ref: DatasetRef) -> dict[str, Any]:
    return {name: getattr(ref, name) for name in ref.__dataclass_fields__ if name != "kind"}


def read_table(store: Store, ref: DatasetRef, columns: list[str] | None = None) -> pyarrow.Table:
    """Return a dataset's rows as an Arrow table.

    :param columns: only these, in this order; default all.
    :raises MissingColumnError: if one is not there.
    :raises NotFoundError: if a stored snapshot is gone.
    :raises IntegrityError: if a stored snapshot's bytes are not those on record.
    :raises SourceChangedError: if a dataset that is read in place is no longer what the ref says.
    """
    require("pyarrow.parquet", "reading a dataset")
    _refuse_database(ref)
    ref = current(store, ref)
    if (key := store.key_of(ref.uri)) is not None and key.startswith("data/"):
        return _read_stored(store, ref, key, columns)
    return _read_in_place(ref, columns)


def _refuse_database(ref: DatasetRef) -> None:
    if ref.format in ("table", "query"):
        raise UnsupportedError(
            f"{ref.name!r} is a {ref.format} in a database ({ref.uri}), validated where it is; take a snapshot of it, "
            "and go on with that",
            uri=ref.uri,
        )


def open_snapshot(store: Store, ref: DatasetRef, key: str) -> IO[bytes]:
    """Open a stored snapshot.

    :raises NotFoundError: saying where it may have gone.
    """
    # A collection that is deleting it puts it back, or it is found gone here.
    uses.keep(store, key)
    try:
        return store.open_input(key)
    except NotFoundError:
        raise NotFoundError(
            f"the snapshot {ref.name!r} ({ref.digest[:19]}) is not in the store {store.uri}: it was collected by "
            "'airflow mlops gc' or removed by hand, or this is another store than the one that it was taken into. Use "
            "that store, restore it from a backup, or take the snapshot again",
            name=ref.name,
            digest=ref.digest,
        ) from None


def _read_stored(store: Store, ref: DatasetRef, key: str, columns: list[str] | None) -> Any:
    import pyarrow.parquet as pq

    from airflow_mlops.core.data.publishing import verify
    from airflow_mlops.core.data.reading import check_columns

    with open_snapshot(store, ref, key) as file:
        verify(store, ref, file)
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            if columns is not None:
                check_columns(columns, parquet.schema_arrow.names, f"dataset {ref.name!r}")
            table = parquet.read(columns=columns)
    # Arrow reads a dotted name as a path as well, and gives the file's order.
    return table if columns is None else table.select(columns)


def open_in_place(ref: DatasetRef) -> Source:
    """Open a dataset that is read where it is.

    :raises SourceChangedError: if it is no longer what the ref says.
    """
    from airflow_mlops.core.data.reading import open_source

    source = open_source(ref.uri, format=ref.format)
    if source.manifest_digest() != ref.digest:
        raise SourceChangedError(
            f"{ref.uri} is no longer what {ref.name!r} was when its ref was made: a file was written to, added or "
            "removed. Resolve it again, or take a snapshot, which does not change",
            uri=ref.uri,
            digest=ref.digest,
        )
    return source


def _read_in_place(ref: DatasetRef, columns: list[str] | None) -> Any:
    import pyarrow as pa

    source = open_in_place(ref)
    batches = list(source.batches(columns))
    source.check_unchanged()
    wanted = source.schema if columns is None else pa.schema([source.schema.field(name) for name in columns])
    return pa.Table.from_batches(batches, wanted)


def read_batches(
    store: Store, ref: DatasetRef, columns: list[str] | None = None, rows: int = 65536
) -> tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]:
    """Return a dataset's schema in normal form and its rows as batches, in bounded memory; see :func:`read_table`.

    :param rows: about how many rows a batch may have.
    :raises SourceChangedError: at the end of the batches, if a dataset that is read in place changed meanwhile.
    """
    require("pyarrow.parquet", "reading a dataset")
    _refuse_database(ref)
    ref = current(store, ref)
    if (key := store.key_of(ref.uri)) is not None and key.startswith("data/"):
        return _stored_batches(store, ref, key, columns, rows)
    import pyarrow as pa

    from airflow_mlops.core.data.reading import check_columns

    source = open_in_place(ref)
    if columns is not None:
        check_columns(columns, source.schema.names, source.given)
    wanted = source.schema if columns is None else pa.schema([source.schema.field(name) for name in columns])

    def batches() -> Iterator[Any]:
        yield from source.batches(columns, rows)
        source.check_unchanged()

    return wanted, batches()


def _stored_batches(
    store: Store, ref: DatasetRef, key: str, columns: list[str] | None, rows: int
) -> tuple[Any, Iterator[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from airflow_mlops.core.data.arrow_types import normal_batch, normal_schema
    from airflow_mlops.core.data.publishing import verify
    from airflow_mlops.core.data.reading import check_columns

    with open_snapshot(store, ref, key) as file:
        verify(store, ref, file)
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            whole = parquet.schema_arrow
    if columns is not None:
        check_columns(columns, whole.names, f"dataset {ref.name!r}")
    schema = normal_schema(whole if columns is None else pa.schema([whole.field(name) for name in columns]))

    def batches() -> Iterator[Any]:
        with store.open_input(key) as file, pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as parquet:
            for batch in parquet.iter_batches(batch_size=rows, columns=schema.names):
                yield normal_batch(batch, schema)

    return schema, batches()


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
    """Store a table as content-addressed Parquet and return its ref; equal content is stored once.

    :raises EmptyDataError: if the table has no rows.
    """
    require("pyarrow.parquet", "writing a dataset")
    from airflow_mlops.core.data.arrow_types import normal_batch, normal_schema
    from airflow_mlops.core.data.publishing import Staged, publish, refer

    if table.num_rows == 0:
        raise EmptyDataError(f"dataset {name!r} has no rows; nothing was stored")
    schema = normal_schema(table.schema)
    with store.staging() as folder:
        staged = Staged(folder / "data.parquet", schema)
        staged.write(normal_batch(table, schema).to_batches())
        digest = publish(store, staged)
    return refer(
        store,
        digest,
        schema,
        rows=table.num_rows,
        name=name,
        roles=check_roles(roles),
        window=window,
        source=source,
    )
