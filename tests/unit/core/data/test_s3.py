"""Sources on S3: what a URI stands for, that all formats are read, and what is said when the server fails."""

from __future__ import annotations

import glob
import gzip
import io
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core import s3
from airflow_mlops.core.data import s3_files
from airflow_mlops.core.data.dataset import read_table, resolve
from airflow_mlops.core.data.reading import Source, open_source
from airflow_mlops.core.errors import (
    CannotReachError,
    CorruptDataError,
    CredentialsError,
    MissingSourceError,
    SourceChangedError,
    SpecError,
    UnsupportedError,
)
from airflow_mlops.core.store import LocalStore
from servers.s3 import SECRET, Proxy, S3Server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a bucket that sources are read from."""
    monkeypatch.setenv(s3.SOURCE, s3_server.access.to_json())
    monkeypatch.delenv(s3.STORE, raising=False)
    return f"s3://{s3_server.bucket()}"


def parquet(*values: int, **settings: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"v": list(values), "text": [f"t{v}" for v in values]}), out, **settings)
    return out.getvalue()


def values(source: Source | str) -> list[int]:
    opened = open_source(source) if isinstance(source, str) else source
    return [value for batch in opened.batches(["v"]) for value in batch.column(0).to_pylist()]


def test_objects_prefixes_globs_and_lists_give_files_sorted_by_uri(bucket: str, s3_server: S3Server) -> None:
    for name, value in (("b.parquet", 2), ("a.parquet", 1), ("sub/c.parquet", 3), ("_SUCCESS", 0), (".x.parquet", 0)):
        s3_server.put(f"{bucket}/größe [1]/{name}", parquet(value) if name.endswith("parquet") else b"")
    s3_server.put(f"{bucket}/größe [1]/sub/", b"")
    s3_server.put(f"{bucket}/größe [1]x/d.parquet", parquet(9))
    folder = f"{bucket}/größe [1]"
    escaped = folder.replace("[", "[[]")

    assert values(f"{folder}/a.parquet") == [1]
    assert values(folder) == values(folder + "/") == [1, 2, 3]
    assert values(f"{escaped}/*.parquet") == [1, 2]
    assert values(f"{escaped}/**/*.parquet") == [1, 2, 3]
    assert values(open_source([f"{folder}/sub/c.parquet", f"{escaped}/a*"])) == [1, 3]
    assert open_source(f"{folder}/a.parquet").name == "a"
    assert open_source(f"{escaped}/*.parquet").name != "größe [1]", "a magic part names nothing"
    assert open_source(f"{escaped}/sub/*.parquet").name == "sub"
    assert values(f"{bucket}/größe [1]x") == [9]


@pytest.mark.parametrize(
    "pattern",
    ["*.csv", "a*/*", "**/*.csv", "**", "a/**", "?.csv", "[ab].csv", "[!a].csv", "a/[^x]/*", ".h*", "a/.h/*", "*/*/*"],
)
def test_a_glob_means_what_pythons_glob_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    names = ["a.csv", "b.csv", "c.txt", "ab.csv", "a/1.csv", "a/x/2.csv", "a/^/3.csv", "a/.h/4.csv", ".hid/5.csv", ".h"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    expected = {path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
    assert {name for name in names if re.fullmatch(s3_files.translate(pattern), name)} == expected


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("ending", "text"), [("csv", 'v,t\n1,a\n2,"b, c"\n'), ("jsonl", '{"v": 1}\n{"v": 2}\n')])
@pytest.mark.parametrize("verify", [True, False], ids=["Arrow reads", "boto3 reads"])
def test_text_is_read(
    bucket: str,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    text: str,
    compressed: bool,
    verify: bool,
) -> None:
    monkeypatch.setenv(s3.SOURCE, replace(s3_server.access, verify=verify).to_json())
    data = text.encode()
    uri = f"{bucket}/x.{ending}" + ".gz" * compressed
    s3_server.put(uri, gzip.compress(data) if compressed else data)
    assert values(uri) == [1, 2]
    assert open_source(uri).rows == 2


@pytest.mark.parametrize("ahead", [64 << 20, 0], ids=["row groups at once", "through buffers"])
def test_row_groups_are_read_in_order_and_only_the_columns_asked_for(
    bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    monkeypatch.setattr("airflow_mlops.core.data.parquet.AHEAD_BYTES", ahead)
    s3_server.put(f"{bucket}/x.parquet", parquet(*range(1000), row_group_size=100))
    assert values(f"{bucket}/x.parquet") == list(range(1000))
    table = pa.Table.from_batches(list(open_source(f"{bucket}/x.parquet").batches()))
    assert table.column("text").to_pylist() == [f"t{v}" for v in range(1000)]


def test_nothing_matches_and_the_nearest_is_named(bucket: str, s3_server: S3Server) -> None:
    s3_server.put(f"{bucket}/landing/flights-2013-01.csv", b"a\n1\n")
    with pytest.raises(MissingSourceError, match=r"did you mean 'flights-2013-01\.csv'"):
        open_source(f"{bucket}/landing/flight-2013-01.csv")
    with pytest.raises(MissingSourceError, match=r"landing has flights-2013-01\.csv"):
        open_source(f"{bucket}/landing/*.parquet")
    with pytest.raises(MissingSourceError, match="did you mean 'landing'"):
        open_source(f"{bucket}/landign/x.csv")
    with pytest.raises(SpecError, match="there is no bucket 'b-nothing'"):
        open_source("s3://b-nothing/x.csv")


def test_table_formats_and_partitions_by_name_are_refused(bucket: str, s3_server: S3Server) -> None:
    s3_server.put(f"{bucket}/delta/part-0.parquet", parquet(1))
    s3_server.put(f"{bucket}/delta/_delta_log/0.json", b"{}")
    s3_server.put(f"{bucket}/ice/data/p/part-0.parquet", parquet(1))
    s3_server.put(f"{bucket}/ice/metadata/v1.metadata.json", b"{}")
    s3_server.put(f"{bucket}/days/day=1/part-0.parquet", parquet(1))
    for source, kind in ((f"{bucket}/delta", "Delta Lake"), (f"{bucket}/ice/data/*/*.parquet", "Iceberg")):
        with pytest.raises(UnsupportedError, match=kind):
            open_source(source)
    with pytest.raises(UnsupportedError, match="day=1"):
        open_source(f"{bucket}/days")
    assert values(f"{bucket}/days/day=1") == [1]


def test_an_object_that_is_replaced_while_it_is_read_is_no_source(bucket: str, s3_server: S3Server) -> None:
    s3_server.put(f"{bucket}/x/a.parquet", parquet(1))
    source = open_source(f"{bucket}/x")
    assert values(source) == [1]
    source.check_unchanged()
    s3_server.put(f"{bucket}/x/b.parquet", parquet(2))
    with pytest.raises(SourceChangedError, match=r"b\.parquet appeared"):
        source.check_unchanged()
    source = open_source(f"{bucket}/x")
    s3_server.put(f"{bucket}/x/a.parquet", parquet(3))
    with pytest.raises(SourceChangedError, match=r"a\.parquet was written to"):
        source.check_unchanged()


def test_a_dataset_that_is_read_in_place_is_held_to_its_entity_tags(
    bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    store = LocalStore(tmp_path)
    s3_server.put(f"{bucket}/x.parquet", parquet(1, 2))
    ref = resolve(store, f"{bucket}/x.parquet")
    assert (ref.rows, ref.name, ref.uri) == (2, "x", f"{bucket}/x.parquet")
    assert read_table(store, ref).column("v").to_pylist() == [1, 2]
    s3_server.put(f"{bucket}/x.parquet", parquet(1, 2))
    assert resolve(store, f"{bucket}/x.parquet").digest == ref.digest, "the same bytes are the same version"
    s3_server.put(f"{bucket}/x.parquet", parquet(1, 3))
    with pytest.raises(SourceChangedError):
        read_table(store, ref)


def test_damaged_bytes_are_corrupt_data_and_not_a_broken_server(bucket: str, s3_server: S3Server) -> None:
    whole = parquet(*range(1000))
    s3_server.put(f"{bucket}/x.parquet", whole[: len(whole) // 2])
    with pytest.raises(CorruptDataError, match=r"x\.parquet cannot be read as parquet"):
        open_source(f"{bucket}/x.parquet").schema  # noqa: B018
    s3_server.put(f"{bucket}/y.csv.gz", gzip.compress(b"v\n" + os.urandom(5000).hex().encode())[:-900])
    with pytest.raises(CorruptDataError, match="ends early or is damaged"):
        open_source(f"{bucket}/y.csv.gz").schema  # noqa: B018


@pytest.fixture
def through(bucket: str, s3_server: S3Server, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """A proxy that the source is read through, with a large object behind it."""
    monkeypatch.setenv(s3.SOURCE, replace(s3_server.access, endpoint_url=s3_proxy.url).to_json())
    s3_server.put(f"{bucket}/x.parquet", parquet(*range(50_000), row_group_size=10_000))
    return s3_proxy


@pytest.mark.parametrize("what", ["slow_down", "error", "cut_answer", "cut_download"])
def test_a_server_that_fails_a_few_times_is_asked_again(through: Proxy, bucket: str, what: str) -> None:
    source = open_source(f"{bucket}/x.parquet")
    assert source.rows == 50_000
    fault = through.fail("GET", r"/x\.parquet", what, times=2)
    assert values(source) == list(range(50_000))
    assert fault.hit == 2


@pytest.mark.parametrize("what", ["slow_down", "error", "cut_answer"])
def test_a_server_that_keeps_failing_is_for_a_retry_and_its_text_is_not_told(
    through: Proxy, bucket: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)  # or the test waits as long as a task would
    source = open_source(f"{bucket}/x.parquet")
    assert source.rows == 50_000
    through.fail("GET", r"/x\.parquet", what, times=1000)
    with pytest.raises(CannotReachError) as caught:
        values(source)
    assert caught.value.retryable
    assert f"{bucket}/x.parquet" in str(caught.value)
    assert SECRET not in str(caught.value) + repr(caught.value.fields)


def test_wrong_credentials_name_the_cure(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(s3.SOURCE, "")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(CredentialsError, match="aws_conn_id"):
        open_source(f"{bucket}/x.parquet")
    with pytest.raises(SpecError, match="must not carry credentials") as caught:
        open_source("s3://key:pw123@bucket/x.parquet")
    assert "pw123" not in str(caught.value)


def test_each_place_is_reached_by_the_connection_that_is_meant_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store = s3.S3Access(key="store", secret="1", uri="s3://lake/mlops")
    source = s3.S3Access(key="source", secret="2")
    monkeypatch.setenv(s3.STORE, store.to_json())
    monkeypatch.delenv(s3.SOURCE, raising=False)
    assert s3.access_for("s3://lake/mlops/data/x.parquet") == store
    assert s3.access_for("s3://lake/raw/x.csv") == store, "the store's bucket is on the store's server"
    assert s3.access_for("s3://lake2/mlops/x.csv") == s3.S3Access(), "no other bucket is shown the store's key"
    monkeypatch.setenv(s3.SOURCE, source.to_json())
    assert s3.access_for("s3://lake/mlops/data/x.parquet") == store
    assert s3.access_for("s3://lake/mlops2/x.csv") == source
    assert s3.access_for("s3://lake/raw/x.csv") == source
