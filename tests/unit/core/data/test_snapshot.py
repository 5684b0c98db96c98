"""The step snapshot_data: what it keeps, what it records, and what it refuses."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.data import publishing, reading
from airflow_mlops.core.data.dataset import read_table
from airflow_mlops.core.data.snapshot import snapshot_data
from airflow_mlops.core.errors import (
    CorruptDataError,
    EmptyDataError,
    MissingColumnError,
    MissingSourceError,
    MixedSchemaError,
    MlopsError,
    SourceChangedError,
    SpecError,
)
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.vocabulary import DatasetRef

DAYS = [dt.datetime(2013, 1, day, 6) for day in range(1, 11)]
TABLE = pa.table({"id": list(range(10)), "at": pa.array(DAYS, pa.timestamp("us")), "late": [True, False] * 5})
ROLES = {"key": "id", "time": "at", "target": "late"}


@pytest.fixture
def source(tmp_path: Path) -> str:
    pq.write_table(TABLE, tmp_path / "flights.parquet")
    return str(tmp_path / "flights.parquet")


def ids(context: StepContext, ref: dict[str, Any]) -> list[int]:
    return read_table(context.store, DatasetRef.from_dict(ref))["id"].to_pylist()  # type: ignore[no-any-return]


def test_a_snapshot_says_what_it_holds(context: StepContext, source: str) -> None:
    ref = snapshot_data(context, source=source, roles=ROLES)
    assert ref["kind"] == "dataset"
    assert (ref["name"], ref["rows"], ref["format"], ref["source"]) == ("flights", 10, "parquet", source)
    assert ref["columns"] == {"id": "int64", "at": "timestamp[us]", "late": "bool"}
    assert ref["roles"] == ROLES
    # Half-open: the end is just after the latest row.
    assert ref["window"] == {"start": "2013-01-01T06:00:00+00:00", "end": "2013-01-10T06:00:00.000001+00:00"}
    assert ids(context, ref) == list(range(10))


def test_it_does_not_depend_on_the_source_afterwards(context: StepContext, source: str) -> None:
    ref = snapshot_data(context, source=source)
    Path(source).unlink()
    assert ids(context, ref) == list(range(10))


def test_the_same_content_is_one_object_whatever_its_files_and_format(context: StepContext, tmp_path: Path) -> None:
    table = TABLE.select(["id", "late"])
    pq.write_table(table, tmp_path / "one.parquet")
    for i in range(5):
        pq.write_table(table.slice(2 * i, 2), tmp_path / f"part-{i}.parquet", row_group_size=1)
    rows = table.to_pylist()
    (tmp_path / "x.csv").write_text("id,late\n" + "".join(f"{r['id']},{r['late']}\n" for r in rows))
    (tmp_path / "x.jsonl").write_text("".join(f'{{"id": {r["id"]}, "late": {str(r["late"]).lower()}}}\n' for r in rows))
    refs = [
        snapshot_data(context, source=f"{tmp_path}/{name}", name=name[:1])
        for name in ("one.parquet", "part-*.parquet", "x.csv", "x.jsonl")
    ]
    assert len({ref["digest"] for ref in refs}) == 1
    assert len([key for key in context.store.keys("data") if key.endswith(".parquet")]) == 1
    assert len({ref["source"] for ref in refs}) == 4


def test_taking_it_again_returns_the_same_ref(context: StepContext, source: str) -> None:
    first = snapshot_data(context, source=source, roles=ROLES)
    objects = [(key, context.store.get_bytes(key)) for key in list(context.store.keys())]
    assert snapshot_data(context, source=source, roles=ROLES) == first
    assert [(key, context.store.get_bytes(key)) for key in list(context.store.keys())] == objects
    assert snapshot_data(context, source=source)["created_at"] != first["created_at"]


# Windows


@pytest.mark.parametrize(
    ("window", "kept"),
    [
        ({"start": "2013-01-03", "end": "2013-01-05"}, [2, 3]),
        ({"start": "2013-01-03T06:00", "end": "2013-01-05T06:00"}, [2, 3]),
        ({"start": "2013-01-03T06:00+01:00", "end": "2013-01-05T06:00+01:00"}, [2, 3]),
        ({"start": "2013-01-03T06:00-01:00", "end": "2013-01-05T06:00-01:00"}, [3, 4]),
        ({"end": "2013-01-03", "length": "1d"}, [1]),
        ({"start": "2000-01-01", "end": "2030-01-01"}, list(range(10))),
    ],
)
@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "Asia/Tokyo")],
    ids=str,
)
def test_rows_outside_the_half_open_window_are_left_out(
    context: StepContext, tmp_path: Path, window: dict[str, str], kept: list[int], kind: pa.DataType
) -> None:
    instants = TABLE["at"].cast(pa.timestamp("us", "UTC")) if kind.tz else TABLE["at"]
    pq.write_table(TABLE.set_column(1, "at", instants.cast(kind)), tmp_path / "x.parquet")
    ref = snapshot_data(context, source=f"{tmp_path}/x.parquet", roles=ROLES, window=window)
    assert ids(context, ref) == kept
    assert ref["rows"] == len(kept)
    begin = dt.datetime.fromisoformat(ref["window"]["start"])
    assert begin.tzinfo is not None
    assert ref["window"].keys() == {"start", "end"}


def test_dates_are_midnights_in_utc(context: StepContext, tmp_path: Path) -> None:
    table = TABLE.set_column(1, "at", TABLE["at"].cast(pa.date32(), safe=False))
    pq.write_table(table, tmp_path / "x.parquet")
    source = f"{tmp_path}/x.parquet"
    whole = snapshot_data(context, source=source, roles=ROLES)
    assert whole["window"] == {"start": "2013-01-01T00:00:00+00:00", "end": "2013-01-11T00:00:00+00:00"}
    part = snapshot_data(context, source=source, roles=ROLES, window={"start": "2013-01-02T12:00", "end": "2013-01-04"})
    assert ids(context, part) == [2]


def test_rows_without_a_time_are_in_no_window(context: StepContext, tmp_path: Path) -> None:
    table = TABLE.set_column(1, "at", pa.array([None, *DAYS[1:]], pa.timestamp("us")))
    pq.write_table(table, tmp_path / "x.parquet")
    source = f"{tmp_path}/x.parquet"
    ref = snapshot_data(context, source=source, roles=ROLES, window={"start": "2000-01-01", "end": "2030-01-01"})
    assert ids(context, ref) == list(range(1, 10))
    assert snapshot_data(context, source=source, roles=ROLES)["rows"] == 10


def test_without_a_time_role_the_window_is_only_recorded(context: StepContext, source: str) -> None:
    window = {"start": "2012-01-01T00:00:00+00:00", "end": "2012-02-01T00:00:00+00:00"}
    ref = snapshot_data(context, source=source, window=window)
    assert (ref["rows"], ref["window"]) == (10, window)
    assert snapshot_data(context, source=source)["window"] is None


def test_nothing_in_the_window_says_what_there_is(context: StepContext, source: str) -> None:
    with pytest.raises(EmptyDataError, match=r"no rows in the window .*'at' goes from 2013-01-01T06:00:00"):
        snapshot_data(context, source=source, roles=ROLES, window={"start": "2014-01-01", "end": "2014-02-01"})
    assert list(context.store.keys()) == []


def test_a_time_role_that_is_no_time_says_how_to_make_it_one(context: StepContext, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "at": ["2013-01-01"]}), tmp_path / "x.parquet")
    with pytest.raises(SpecError, match=r"schema=\{'at': 'timestamp'\}"):
        snapshot_data(context, source=f"{tmp_path}/x.parquet", roles={"time": "at"})
    ref = snapshot_data(context, source=f"{tmp_path}/x.parquet", roles={"time": "at"}, schema={"at": "timestamp"})
    assert ref["window"]["start"] == "2013-01-01T00:00:00+00:00"


# Columns


def test_columns_are_chosen_and_ordered(context: StepContext, source: str) -> None:
    ref = snapshot_data(context, source=source, columns=["late", "id"])
    assert list(ref["columns"]) == ["late", "id"]
    with pytest.raises(SpecError, match="'at', which 'columns' leaves out"):
        snapshot_data(context, source=source, columns=["late", "id"], roles={"time": "at"})
    with pytest.raises(SpecError, match="different names"):
        snapshot_data(context, source=source, columns=["id", "id"])


def test_a_role_of_a_column_that_is_not_there_names_both(context: StepContext, source: str) -> None:
    with pytest.raises(MissingColumnError, match=r"'lat' .*role 'target'.*did you mean 'late'"):
        snapshot_data(context, source=source, roles={"target": "lat"})
    with pytest.raises(SpecError, match="did you mean 'target'"):
        snapshot_data(context, source=source, roles={"traget": "late"})
    ref = snapshot_data(context, source=source, roles={"private": ["id", "late"], "label_delay": "30d", "group": None})
    assert ref["roles"] == {"private": ["id", "late"], "label_delay": "30d"}


def test_names_of_any_script_and_columns_of_nothing_but_null(context: StepContext, tmp_path: Path) -> None:
    (tmp_path / "données.csv").write_text("größe,名前,leer\n1,é,\n2,,\n", encoding="utf-8")
    ref = snapshot_data(context, source=f"{tmp_path}/données.csv", name="飛行 ✈", roles={"target": "größe"})
    assert ref["columns"] == {"größe": "int64", "名前": "string", "leer": "null"}
    table = read_table(context.store, DatasetRef.from_dict(ref))
    assert table.to_pydict() == {"größe": [1, 2], "名前": ["é", None], "leer": [None, None]}


def test_one_row_nan_and_infinity_are_data(context: StepContext, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [float("nan")], "b": [float("inf")], "c": pa.nulls(1)}), tmp_path / "x.parquet")
    ref = snapshot_data(context, source=f"{tmp_path}/x.parquet")
    assert ref["rows"] == 1
    table = read_table(context.store, DatasetRef.from_dict(ref))
    assert repr(table.to_pylist()) == "[{'id': nan, 'b': inf, 'c': None}]"


# What is refused leaves nothing behind


def broken(tmp_path: Path, how: str) -> str:
    good = tmp_path / "a.parquet"
    pq.write_table(TABLE, good)
    other = tmp_path / "b.parquet"
    if how == "corrupt":
        other.write_bytes(good.read_bytes()[:-20])
    elif how == "mixed":
        pq.write_table(TABLE.set_column(0, "id", TABLE["id"].cast(pa.string())), other)
    elif how == "empty":
        pq.write_table(TABLE.slice(0, 0), good)
    elif how == "empty csv":
        (tmp_path / "e.csv").write_text("")
        return f"{tmp_path}/e.csv"
    elif how == "header only":
        (tmp_path / "e.csv").write_text("a,b\n")
        return f"{tmp_path}/e.csv"
    elif how == "empty jsonl":
        (tmp_path / "e.jsonl").write_text("\n\n")
        return f"{tmp_path}/e.jsonl"
    elif how == "missing":
        return f"{tmp_path}/c*.parquet"
    return f"{tmp_path}/*.parquet"


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("corrupt", CorruptDataError),
        ("mixed", MixedSchemaError),
        ("empty", EmptyDataError),
        ("empty csv", EmptyDataError),
        ("header only", EmptyDataError),
        ("empty jsonl", EmptyDataError),
        ("missing", MissingSourceError),
    ],
)
def test_a_bad_source_is_a_clear_error_and_leaves_nothing(
    context: StepContext, tmp_path: Path, how: str, error: type[MlopsError]
) -> None:
    with pytest.raises(error) as caught:
        snapshot_data(context, source=broken(tmp_path, how), roles={})
    assert type(caught.value) is error
    assert not caught.value.retryable
    assert list(context.store.keys()) == []
    assert not list((tmp_path / "store" / ".staging").glob("*"))


def test_an_empty_file_among_others_is_no_error(context: StepContext, tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 0), tmp_path / "a.parquet")
    pq.write_table(TABLE, tmp_path / "b.parquet")
    assert snapshot_data(context, source=f"{tmp_path}/*.parquet")["rows"] == 10


@pytest.mark.parametrize("change", ["appended", "added"])
def test_a_source_that_changes_while_it_is_read_publishes_nothing(
    context: StepContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    for name in ("a", "b"):
        pq.write_table(TABLE, tmp_path / f"{name}.parquet")
    plain = reading.Source.batches

    def changing(self: reading.Source, *args: Any, **kwargs: Any) -> Any:
        for i, batch in enumerate(plain(self, *args, **kwargs)):
            if i == 1 and change == "added":
                pq.write_table(TABLE, tmp_path / "c.parquet")
            elif i == 1:
                with open(tmp_path / "a.parquet", "ab") as file:
                    file.write(b"more")
            yield batch

    monkeypatch.setattr(reading.Source, "batches", changing)
    with pytest.raises(SourceChangedError) as caught:
        snapshot_data(context, source=f"{tmp_path}/*.parquet")
    assert caught.value.retryable
    assert list(context.store.keys()) == []


def test_row_groups_stay_small_whatever_the_source_has(
    context: StepContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"id": list(range(1000)), "text": ["x" * 1000] * 1000}), tmp_path / "x.parquet")
    monkeypatch.setattr(publishing, "GROUP_ROWS", 300)
    by_rows = snapshot_data(context, source=f"{tmp_path}/x.parquet", columns=["id"])
    groups = pq.ParquetFile(by_rows["uri"].removeprefix("file://")).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [300, 300, 300, 100]
    assert ids(context, by_rows) == list(range(1000))
    monkeypatch.undo()
    monkeypatch.setattr(publishing, "GROUP_BYTES", 100_000)
    batches = reading.Source.batches
    monkeypatch.setattr(reading.Source, "batches", lambda self, columns: batches(self, columns, rows=50))
    by_size = snapshot_data(context, source=f"{tmp_path}/x.parquet")
    assert pq.ParquetFile(by_size["uri"].removeprefix("file://")).num_row_groups == 10
    assert ids(context, by_size) == list(range(1000))


def test_progress_is_in_the_log(
    context: StepContext, source: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_mlops.core.data.snapshot.PROGRESS_SECONDS", -1.0)
    with caplog.at_level(logging.INFO, logger="airflow_mlops"):
        snapshot_data(context, source=source)
    assert "10 of 10 rows (100%)" in caplog.text
    assert "dataset flights: 10 rows, sha256:" in caplog.text


def test_a_source_without_read_permission_says_so(context: StepContext, source: str, tmp_path: Path) -> None:
    Path(source).chmod(0)
    spec, report = tmp_path / "spec.json", tmp_path / "report.json"
    spec.write_text(json.dumps({"step": "snapshot_data", "args": {"source": source}, "store": context.store.uri}))
    # Root reads everything unless it gives that right up.
    as_anybody = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*as_anybody, sys.executable, "-m", "airflow_mlops.core", "--spec", str(spec), "--report", str(report)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    error = json.loads(report.read_text())["error"]
    assert error["type"] == "MissingSourceError"
    assert "read permission" in error["message"]


def test_only_values_that_repeat_have_a_dictionary(context: StepContext, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": range(5000),
            "carrier": ["AA", "UA"] * 2500,
            "stops": [[{"at": "JFK"}]] * 5000,
            "of": pa.array([[("seat", 1)]] * 5000, pa.map_(pa.string(), pa.int64())),
        }
    )
    pq.write_table(table, tmp_path / "many.parquet")
    ref = snapshot_data(context, source=str(tmp_path / "many.parquet"))
    assert read_table(context.store, DatasetRef.from_dict(ref)).to_pylist() == table.to_pylist()
    with context.store.open_input(publishing.data_key(ref["digest"])) as file:
        group = pq.ParquetFile(file).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    having = {one.path_in_schema for one in columns if one.has_dictionary_page or "RLE_DICTIONARY" in one.encodings}
    assert having == {"carrier", "stops.list.element.at", "of.key_value.key", "of.key_value.value"}
