"""Publishing data: one content-addressed Parquet file for each content, and a record for each ref to it.

``data/<hex>.parquet`` is the content, whatever it is called. ``data/<hex>.json`` has the digest of the file's bytes,
so that a reader finds an altered file without decoding it. ``datasets/<name>/<hex>-<what it means>.json`` is the ref
as it was first given out: a retry returns that one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.data.content import ContentDigest, digest_of
from airflow_mlops.core.errors import IntegrityError, NotFoundError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.lifecycle import erasures, uses
from airflow_mlops.core.store import Store, safe_name
from airflow_mlops.core.vocabulary import MAX_COLUMNS, DatasetRef

if TYPE_CHECKING:
    import pyarrow

#: Rows of a row group of a snapshot, at most.
GROUP_ROWS = 131_072
#: Bytes in memory after which a row group ends early: wide rows do not make it grow.
GROUP_BYTES = 64 << 20
#: JSON bytes of columns in a ref: half of what XCom takes.
MAX_COLUMNS_BYTES = 8 * 1024
COMPRESSION = "zstd"
#: As quick as snappy and a tenth smaller on the rows of ``benchmarks/snapshot.py``.
COMPRESSION_LEVEL = 1
#: Rows by which a column is taken for one of many values, and the share of them that differ then.
SAMPLE_ROWS, MANY_VALUES = 4096, 0.9


class _HashingSink:
    """A file that takes the digest of what is written to it."""

    def __init__(self, path: Path) -> None:
        self.file = open(path, "xb")  # noqa: SIM115 - closed by the writer through this object
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.digest.update(view)
        self.size += len(view)
        return self.file.write(view)

    def flush(self) -> None:
        self.file.flush()

    def tell(self) -> int:
        return self.size

    def close(self) -> None:
        self.file.close()

    @property
    def closed(self) -> bool:
        return self.file.closed


def data_key(digest: str) -> str:
    """Return the store key of a content."""
    return f"data/{digests.hex_of(digest)}.parquet"


def record_key(digest: str) -> str:
    """Return the store key of the record of a content's bytes."""
    return f"data/{digests.hex_of(digest)}.json"


class Staged:
    """A Parquet file that is being written to a staging folder, with the digests of its content and bytes.

    :param path: a file that does not exist.
    :param schema: the schema in normal form, which all batches have.
    """

    def __init__(self, path: Path, schema: pyarrow.Schema) -> None:
        self.path = path
        self.schema = schema
        self.content = ContentDigest(schema)
        self._sink: Any = None

    def write(self, batches: Iterable[Any]) -> None:
        """Write all batches, in bounded memory; the digest is taken beside the compression."""
        sink = self._sink = _HashingSink(self.path)
        try:
            with (
                ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="digest") as pool,
                ExitStack() as stack,
            ):
                writer = None
                for group in _groups(batches, self.schema):
                    columns = self.content.submit(group, pool)
                    writer = writer or stack.enter_context(_writer(sink, self.schema, _repetitive(group)))
                    writer.write_table(group, row_group_size=GROUP_ROWS)
                    for column in columns:
                        column.result()
                if writer is None:
                    stack.enter_context(_writer(sink, self.schema, []))
        finally:
            sink.close()

    @property
    def rows(self) -> int:
        """How many rows were written."""
        return self.content.rows

    def bytes_record(self) -> dict[str, Any]:
        """Return the record of the file's bytes."""
        return {"sha256": self._sink.digest.hexdigest(), "size": self._sink.size, "rows": self.rows}


def _groups(batches: Iterable[Any], schema: Any) -> Iterable[Any]:
    """Yield tables of contiguous columns that become a row group each."""
    import pyarrow as pa

    pending: list[Any] = []
    rows = size = 0
    for batch in batches:
        while rows + batch.num_rows > GROUP_ROWS:
            pending.append(batch.slice(0, GROUP_ROWS - rows))
            batch = batch.slice(GROUP_ROWS - rows)
            yield pa.Table.from_batches(pending, schema)
            pending, rows, size = [], 0, 0
        if batch.num_rows:
            pending.append(batch)
            rows += batch.num_rows
            size += batch.nbytes
        if rows == GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(pending, schema)
            pending, rows, size = [], 0, 0
    if pending:
        yield pa.Table.from_batches(pending, schema)


def _writer(sink: Any, schema: Any, repetitive: list[str]) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(
        sink,
        schema,
        compression=COMPRESSION,
        compression_level=COMPRESSION_LEVEL,
        version="2.6",
        use_dictionary=repetitive or False,
    )


def _repetitive(group: Any) -> list[str]:
    """Return the columns, as Parquet names them, whose values a dictionary is worth its work for.

    One of values that hardly repeat takes four times as long to make as they take to write, and is larger.
    """
    import pyarrow.compute as pc
    import pyarrow.types as types

    rows = group.num_rows
    sample = group.take(list(range(0, rows, -(-rows // SAMPLE_ROWS)))) if rows else group
    found: list[str] = []
    for field in group.schema:
        leaves = _leaves(field.name, field.type)
        if types.is_nested(field.type) or types.is_null(field.type):
            found += leaves
            continue
        values = sample.column(field.name)
        if pc.count_distinct(values, mode="all").as_py() < MANY_VALUES * max(len(values), 1):
            found += leaves
    return found


def _leaves(path: str, kind: Any) -> list[str]:
    """Return the paths of the Parquet columns that a column becomes."""
    import pyarrow.types as types

    if types.is_map(kind):
        entry = f"{path}.key_value"
        return [*_leaves(f"{entry}.key", kind.key_type), *_leaves(f"{entry}.value", kind.item_type)]
    if types.is_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    if types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    return [path]


def publish(store: Store, staged: Staged) -> str:
    """Publish a staged file unless its content is there, and return the content's digest.

    A stored file that was altered is put right.

    :raises SpecError: if it is content that somebody's rows were erased from.
    """
    digest = staged.content.digest()
    erasures.refuse(store, digest)
    record = staged.bytes_record()
    crash_point("snapshot.staged")
    if not store.put_file(data_key(digest), staged.path, if_absent=True):
        known = stored_record(store, digest)
        # None where there is none, or where a collection takes it away at this moment.
        found = _bytes_of(store, digest) if uses.keep(store, data_key(digest)) else None
        if found and known is not None and found == (known["sha256"], known["size"]):
            return digest
        if found and known is None and _content_of(store, digest) == digest:
            record = dict(zip(("sha256", "size"), found, strict=True)) | {"rows": staged.rows}
        else:
            store.put_file(data_key(digest), staged.path)
    crash_point("snapshot.published")
    store.put_json(record_key(digest), record)
    crash_point("snapshot.recorded")
    return digest


def stored_record(store: Store, digest: str) -> dict[str, Any] | None:
    """Return the record of a content's bytes, or None."""
    try:
        record = store.get_json(record_key(digest))
    except (NotFoundError, IntegrityError):
        return None
    return record if isinstance(record, dict) and {"sha256", "size"} <= record.keys() else None


def _bytes_of(store: Store, digest: str) -> tuple[str, int] | None:
    """Return the SHA-256 and size of a stored file, or None if it is gone."""
    try:
        with store.open_input(data_key(digest)) as file:
            return hash_stream(file)
    except NotFoundError:
        return None


def hash_stream(file: IO[bytes]) -> tuple[str, int]:
    """Return the SHA-256 and size of a stream from where it stands to its end."""
    digest, size = hashlib.sha256(), 0
    while block := file.read(1 << 20):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def _content_of(store: Store, digest: str) -> str | None:
    """Return the digest of a stored file's content, or None if it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with store.open_input(data_key(digest)) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            return digest_of(parquet.iter_batches(), parquet.schema_arrow)
    except (pa.ArrowException, OSError, NotFoundError):
        return None


def verify(store: Store, ref: DatasetRef, file: IO[bytes]) -> None:
    """Make sure that an opened data object is what its ref says, and wind it back.

    The bytes are compared with the record; without one the content is read and its digest compared.

    :raises IntegrityError: if it was altered.
    """
    record = stored_record(store, ref.digest)
    if store.key_of(ref.uri) != data_key(ref.digest):
        good = False
    elif record is not None:
        good = hash_stream(file) == (record["sha256"], record["size"])
    else:
        good = _content_of(store, ref.digest) == ref.digest
    if not good:
        raise IntegrityError(
            f"{ref.uri} does not hold the data of digest {ref.digest}: it was altered in the store. Take the snapshot "
            "again from its source",
            uri=ref.uri,
            digest=ref.digest,
        )
    file.seek(0)


def refer(
    store: Store,
    digest: str,
    schema: pyarrow.Schema,
    *,
    rows: int,
    name: str,
    roles: dict[str, Any],
    window: dict[str, Any] | None,
    source: str | None,
) -> DatasetRef:
    """Return the ref of published data: the one on record, or a new one that is put on record.

    What makes it the same ref: name, content, roles, window, source.
    """
    columns, schema_uri = describe(store, {field.name: str(field.type) for field in schema})
    ref = DatasetRef(
        name=name,
        uri=store.uri_of(data_key(digest)),
        digest=digest,
        rows=rows,
        columns=columns,
        schema_uri=schema_uri,
        window=window,
        roles=roles,
        source=source,
    )
    meaning = digests.hex_of(digests.of_json([name, roles, window, source]))[:16]
    key = f"datasets/{safe_name(name)}/{digests.hex_of(digest)}-{meaning}.json"
    if not store.put_json(key, ref.to_dict(), if_absent=True):
        try:
            ref = DatasetRef.from_dict(store.get_json(key))
        except NotFoundError:  # A collection has just taken it.
            store.put_json(key, ref.to_dict())
    crash_point("snapshot.referenced")
    return ref


def describe(store: Store, columns: dict[str, str]) -> tuple[dict[str, str] | None, str | None]:
    """Return what a ref says of its columns: them, or where they are too many the URI of their list in the store."""
    if len(columns) <= MAX_COLUMNS and len(json.dumps(columns)) <= MAX_COLUMNS_BYTES:
        return columns, None
    listing = [[name, kind] for name, kind in columns.items()]
    key = f"schemas/{digests.hex_of(digests.of_json(listing))}.json"
    uses.put_shared(store, key, json.dumps({"columns": listing}, ensure_ascii=False, indent=1).encode())
    return None, store.uri_of(key)
