"""Datasets as arguments: refs, paths, and data that is no longer what its ref says."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.data.dataset import read_frame, read_table, resolve, write_table
from airflow_mlops.core.errors import (
    EmptyDataError,
    IntegrityError,
    MissingColumnError,
    NotFoundError,
    SourceChangedError,
    SpecError,
)
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.vocabulary import DatasetRef
from airflow_mlops.core.xcom import fit_xcom

TABLE = pa.table({"id": [1, 2, 3], "größe": [1.5, None, float("nan")], "late": [True, None, False]})


def data_path(store: LocalStore, ref: DatasetRef) -> Path:
    return store.path_of(store.key_of(ref.uri) or "")


def test_a_table_comes_back_as_it_went_whatever_its_types(store: LocalStore) -> None:
    at = dt.datetime(2013, 1, 1, 12, 30, 1, 5)
    table = pa.table(
        {
            "half": pa.array([1.5, None], pa.float16()),
            "u64": pa.array([2**64 - 1, None], pa.uint64()),
            "time": pa.array([at.time(), None], pa.time64("us")),
            "time s": pa.array([at.time().replace(microsecond=0), None], pa.time32("s")),
            "length": pa.array([dt.timedelta(days=1), None], pa.duration("us")),
            "ns": pa.array([1, None], pa.timestamp("ns", "Europe/Berlin")),
            "fixed": pa.array([b"ab", None], pa.binary(2)),
            "money": pa.array([None, 3], pa.decimal128(12, 2)),
            "null": pa.nulls(2),
            "list": pa.array([[[1], None], None], pa.list_(pa.large_list(pa.int8()))),
            "pair": pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
            "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
            "struct": pa.array([{"a": "x"}, None], pa.struct([("a", pa.dictionary(pa.int8(), pa.string()))])),
            "code": pa.array(["x", None]).dictionary_encode(),
            "milli": pa.array([at.replace(microsecond=1000), None], pa.timestamp("ms")),
        }
    )
    ref = write_table(store, table, name="t")
    back = read_table(store, ref)
    assert back.to_pydict() == table.to_pydict()
    assert write_table(store, back, name="t").digest == ref.digest
    assert ref.columns is not None
    assert ref.columns["list"] == "list<element: list<element: int8>>"
    assert back.schema.metadata is None or b"pandas" not in back.schema.metadata


def test_equal_content_is_stored_once_and_a_repeated_ref_is_the_first_one(store: LocalStore) -> None:
    first = write_table(store, TABLE, name="a", roles={"target": "late"})
    again = write_table(
        store, pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)]), name="a", roles={"target": "late"}
    )
    assert again == first
    other = write_table(store, TABLE, name="b")
    assert (other.uri, other.digest) == (first.uri, first.digest)
    assert len([k for k in store.keys("data") if k.endswith(".parquet")]) == 1
    assert len(list(store.keys("datasets"))) == 2
    assert write_table(store, TABLE.slice(1), name="a").digest != first.digest


class Collected(LocalStore):
    """A store of which an object goes, as a collection's deletion does it, just before it is read."""

    gone: str | None = None

    def open_input(self, key: str) -> IO[bytes]:
        if self.gone and self.gone in key:
            self.gone = None
            self.delete(key)
        return super().open_input(key)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("gone", [".parquet", "datasets/"])
def test_content_that_a_collection_takes_while_it_is_written_again(tmp_path: Path, gone: str, recorded: bool) -> None:
    store = Collected(tmp_path / "store")
    first = write_table(store, TABLE, name="t")
    if not recorded:
        data_path(store, first).with_suffix(".json").unlink()
    store.gone = gone

    again = write_table(store, TABLE, name="t")

    assert store.gone is None, "nothing was taken away"
    assert again.digest == first.digest
    assert read_table(store, again).num_rows == 3
    assert len(list(store.keys("datasets"))) == 1


def test_an_empty_table_is_not_stored(store: LocalStore) -> None:
    with pytest.raises(EmptyDataError):
        write_table(store, TABLE.slice(0, 0), name="a")
    assert list(store.keys()) == []


def test_columns_come_in_the_order_that_was_asked_for(store: LocalStore) -> None:
    ref = write_table(store, TABLE, name="a")
    assert read_table(store, ref, ["late", "id"]).column_names == ["late", "id"]
    assert list(read_frame(store, ref, ["größe"]).columns) == ["größe"]
    with pytest.raises(MissingColumnError, match="did you mean 'größe'"):
        read_table(store, ref, ["grösse"])


def test_a_frame_has_a_fresh_index_and_can_be_written_to(store: LocalStore) -> None:
    frame = TABLE.to_pandas().iloc[1:]
    ref = write_table(store, pa.Table.from_pandas(frame, preserve_index=False), name="a")
    back = read_frame(store, ref)
    assert list(back.index) == [0, 1]
    back.loc[0, "id"] = 9
    assert back["id"].tolist() == [9, 3]


@pytest.mark.parametrize("recorded", [True, False], ids=["with a record", "without a record"])
def test_an_altered_snapshot_is_an_integrity_error(store: LocalStore, recorded: bool) -> None:
    ref = write_table(store, TABLE, name="a")
    path = data_path(store, ref)
    if not recorded:
        path.with_suffix(".json").unlink()
        assert read_table(store, ref).num_rows == 3
    pq.write_table(TABLE.set_column(0, "id", pa.array([1, 2, 4])), path)
    with pytest.raises(IntegrityError, match="altered"):
        read_table(store, ref)
    path.write_bytes(b"")
    with pytest.raises(IntegrityError):
        read_table(store, ref)


def test_the_same_snapshot_taken_again_puts_an_altered_file_right(store: LocalStore) -> None:
    ref = write_table(store, TABLE, name="a")
    data_path(store, ref).write_bytes(b"PAR1")
    assert write_table(store, TABLE, name="a") == ref
    assert read_table(store, ref).num_rows == 3


def test_a_ref_cannot_be_pointed_at_other_data(store: LocalStore) -> None:
    one, other = write_table(store, TABLE, name="a"), write_table(store, TABLE.slice(1), name="a")
    with pytest.raises(IntegrityError):
        read_table(store, dataclasses.replace(one, uri=other.uri))


def test_a_snapshot_that_is_gone_is_not_found(store: LocalStore) -> None:
    ref = write_table(store, TABLE, name="a")
    data_path(store, ref).unlink()
    with pytest.raises(NotFoundError, match=r"snapshot .a. .* is not in the store .*or take the snapshot again"):
        read_table(store, ref)


def test_a_path_is_read_in_place_and_nothing_is_copied(store: LocalStore, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "x.parquet")
    ref = resolve(store, str(tmp_path / "*.parquet"), roles={"key": "id"}, target="late", name="mine")
    assert (ref.name, ref.rows, ref.format) == ("mine", 3, "parquet")
    assert ref.columns == {"id": "int64", "größe": "double", "late": "bool"}
    assert ref.roles == {"key": "id", "target": "late"}
    assert read_table(store, resolve(store, ref.to_dict()))["id"].to_pylist() == [1, 2, 3]
    assert list(store.keys()) == []


def test_text_is_read_in_place_with_its_types(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,x\n2.5,\n")
    (tmp_path / "x.jsonl").write_text('{"a": 1, "b": "x"}\n{"a": 2.5}\n')
    for name in ("x.csv", "x.jsonl"):
        ref = resolve(store, str(tmp_path / name))
        assert ref.columns == {"a": "double", "b": "string"}
        frame = read_frame(store, ref, ["b", "a"])
        assert frame["a"].tolist() == [1, 2.5]
        assert frame["b"].isna().tolist() == [False, True]


def test_data_in_place_that_changed_since_its_ref_is_refused(store: LocalStore, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "1.parquet")
    ref = resolve(store, f"{tmp_path}/*.parquet")
    pq.write_table(TABLE, tmp_path / "2.parquet")
    with pytest.raises(SourceChangedError, match="no longer"):
        read_table(store, ref)
    assert read_table(store, resolve(store, f"{tmp_path}/*.parquet")).num_rows == 6
    os.utime(tmp_path / "1.parquet", (1, 1))
    with pytest.raises(SourceChangedError):
        read_table(store, ref)


def test_roles_of_the_ref_stay_and_added_ones_win(store: LocalStore) -> None:
    ref = write_table(store, TABLE, name="a", roles={"target": "late", "key": "id"})
    assert resolve(store, ref.to_dict(), target="größe").roles == {"target": "größe", "key": "id"}
    with pytest.raises(SpecError, match="did you mean 'target'"):
        resolve(store, ref.to_dict(), roles={"targte": "late"})


def test_a_validation_report_stands_for_its_dataset(store: LocalStore) -> None:
    ref = write_table(store, TABLE, name="a")
    assert resolve(store, {"kind": "validation", "passed": True, "dataset": ref.to_dict()}) == ref
    with pytest.raises(SpecError, match="expected a dataset"):
        resolve(store, {"kind": "model", "uri": "models:/x/1"})


def test_beyond_a_hundred_columns_the_schema_stands_in_the_store(store: LocalStore, tmp_path: Path) -> None:
    table = pa.table({f"column number {i}": [i] for i in range(700)})
    pq.write_table(table, tmp_path / "wide.parquet")
    for ref in (write_table(store, table, name="wide"), resolve(store, str(tmp_path / "wide.parquet"))):
        assert ref.columns is None
        listed = store.get_json(store.key_of(ref.schema_uri or "") or "")["columns"]
        assert listed[0] == ["column number 0", "int64"]
        assert len(listed) == 700
        assert "trimmed" not in fit_xcom(ref.to_dict())
        assert read_table(store, ref).num_columns == 700
