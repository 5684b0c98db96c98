"""A dataset opened for a comparison: its columns as batches, as often as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.arrow_types import normal_schema
from airflow_mlops.core.data.dataset import current, open_in_place, open_snapshot
from airflow_mlops.core.data.timespan import Span
from airflow_mlops.core.errors import MissingColumnError, SpecError, UnsupportedError, did_you_mean
from airflow_mlops.core.extras import require
from airflow_mlops.core.vocabulary import DatasetRef, Window

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.core.data.reading import Source
    from airflow_mlops.core.store import Store

#: Rows of a batch: its columns fit into a processor's cache one at a time.
BATCH_ROWS = 65_536


@dataclass
class Opened:
    """A dataset that can be read again and again.

    :param ref: what it is.
    :param schema: in normal form.
    :param rows: how many there are, before a window is applied.
    :param window: only rows inside are given, by the time role.
    """

    ref: DatasetRef
    schema: pyarrow.Schema
    rows: int
    window: Window | None
    time: str | None
    _source: Source | None
    _store: Store
    _key: str | None

    def batches(self, columns: list[str], dictionaries: list[str] | None = None) -> Iterator[Any]:
        """Yield these columns of all rows as record batches.

        :param dictionaries: columns of text, which come as dictionaries where the file has them so.
        """
        span = None
        names = list(columns)
        if self.window is not None:
            span = Span(self.schema, self.time, self.window)
            if self.time not in names:
                names.append(str(self.time))
        batches = (
            self._stored(names, dictionaries or []) if self._source is None else self._in_place(names, dictionaries)
        )
        for batch in span.keep(batches) if span else batches:
            if batch.num_rows:
                yield batch

    def check_unchanged(self) -> None:
        """Make sure that what was read in place is still what it was."""
        if self._source is not None:
            self._source.check_unchanged()

    def _in_place(self, names: list[str], dictionaries: list[str] | None) -> Iterator[Any]:
        assert self._source is not None
        return self._source.batches(names, BATCH_ROWS, dictionaries=tuple(dictionaries or ()))

    def _stored(self, names: list[str], dictionaries: list[str]) -> Iterator[Any]:
        import pyarrow.parquet as pq

        assert self._key is not None
        with (
            self._store.open_input(self._key) as file,
            pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 18, read_dictionary=dictionaries) as parquet,
        ):
            yield from parquet.iter_batches(batch_size=BATCH_ROWS, columns=names, use_threads=True)


def open_dataset(store: Store, ref: DatasetRef, window: dict[str, Any] | None = None) -> Opened:
    """Open a dataset.

    :param window: only the rows inside, by the time role.
    :raises SpecError: for a window without a time role.
    :raises MissingColumnError: if the time role names no column.
    """
    require("pyarrow.parquet", "comparing datasets")
    require("numpy", "comparing datasets")
    if ref.format in ("table", "query"):
        raise UnsupportedError(
            f"{ref.name!r} is a {ref.format} in a database ({ref.uri}); take a snapshot of it, and compare that"
        )
    ref = current(store, ref)
    key = store.key_of(ref.uri)
    if key is not None and key.startswith("data/"):
        opened = _open_stored(store, ref, key)
    else:
        source = open_in_place(ref)
        opened = Opened(ref, source.schema, source.rows, None, None, source, store, None)
    asked = Window.of(window)
    if asked is not None:
        time = ref.roles.get("time")
        if not time:
            raise SpecError(
                f"a window of {ref.name!r} needs to know its time: give roles={{'time': ...}} with the column's name"
            )
        if time not in opened.schema.names:
            near = did_you_mean(str(time), opened.schema.names)
            raise MissingColumnError(
                f"the role 'time' names {time!r}, which is not in {ref.name!r}{near}", column=str(time)
            )
        Span(opened.schema, time, asked)
        opened.window, opened.time = asked, time
    return opened


def _open_stored(store: Store, ref: DatasetRef, key: str) -> Opened:
    import pyarrow.parquet as pq

    from airflow_mlops.core.data.publishing import verify

    with open_snapshot(store, ref, key) as file:
        verify(store, ref, file)
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            schema, rows = normal_schema(parquet.schema_arrow), parquet.metadata.num_rows
    return Opened(ref, schema, rows, None, None, None, store, key)


__all__ = ["BATCH_ROWS", "Opened", "open_dataset"]
