"""Which files are new, which are whole, and that the same files have the same id."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from airflow_mlops.core.data import arrivals
from airflow_mlops.core.data.arrivals import Watermark
from airflow_mlops.core.data.reading import open_source
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import parse_instant
from servers.s3 import S3Server

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.csv").write_text("v\n1\n")
    return tmp_path / "in"


def files(folder: Path) -> dict[str, arrivals.FileState]:
    return arrivals.files_of((str(folder),))


def paths(found: dict[str, object] | None) -> list[str]:
    assert found is not None
    return [Path(path).name for path in found["new"]["paths"]]  # type: ignore[index]


def test_without_a_watermark_everything_is_new_and_with_it_nothing_is(folder: Path) -> None:
    found = arrivals.arrival(str(folder), files(folder), Watermark())
    assert found is not None
    assert paths(found) == ["a.csv", "b.csv"]
    assert (found["files"], found["bytes"], found["new"]["bytes"]) == (2, 8, 8)
    assert arrivals.arrival(str(folder), files(folder), Watermark.of(found)) is None
    assert arrivals.arrival(str(folder), files(folder), Watermark.of(Watermark.of(found).to_dict())) is None


def test_a_file_that_was_written_to_is_new_and_one_that_went_is_not(folder: Path) -> None:
    first = arrivals.arrival(str(folder), files(folder), Watermark())
    (folder / "a.csv").write_text("v\n1\n2\n")
    second = arrivals.arrival(str(folder), files(folder), Watermark.of(first))
    assert paths(second) == ["a.csv"]
    (folder / "a.csv").unlink()
    assert arrivals.arrival(str(folder), files(folder), Watermark.of(second)) is None


def test_a_file_that_is_moved_in_is_new_whatever_its_time_of_modification(folder: Path) -> None:
    first = arrivals.arrival(str(folder), files(folder), Watermark())
    outside = folder.parent / "c.csv"
    outside.write_text("v\n3\n")
    os.utime(outside, (0, 0))
    outside.rename(folder / "c.csv")
    assert paths(arrivals.arrival(str(folder), files(folder), Watermark.of(first))) == ["c.csv"]


def test_where_the_files_before_are_known_times_do_not_count(folder: Path) -> None:
    before = files(folder)
    first = arrivals.arrival("x", before, Watermark())
    later = Watermark(first["id"], dt.datetime(2999, 1, 1, tzinfo=dt.timezone.utc)) if first else Watermark()
    (folder / "c.csv").write_text("")
    assert paths(arrivals.arrival("x", files(folder), later, before)) == ["c.csv"]


def test_an_instant_says_what_is_new(folder: Path) -> None:
    now = dt.datetime.now(dt.timezone.utc)
    assert arrivals.arrival("x", files(folder), Watermark.of((now + HOUR).isoformat())) is None
    assert paths(arrivals.arrival("x", files(folder), Watermark.of((now - HOUR).isoformat()))) == ["a.csv", "b.csv"]
    for nothing in (None, "", "None"):
        assert Watermark.of(nothing) == Watermark()
    for wrong in ("yesterday", {"files": 2}):
        with pytest.raises(SpecError):
            Watermark.of(wrong)


def test_so_many_it_takes(folder: Path) -> None:
    assert arrivals.arrival("x", files(folder), Watermark(), min_files=3) is None
    assert arrivals.arrival("x", files(folder), Watermark(), min_files=2) is not None


def test_the_id_is_of_all_files_whoever_looks_and_changes_with_any(folder: Path) -> None:
    one = arrivals.arrival("x", files(folder), Watermark())
    assert one == arrivals.arrival("x", dict(reversed(files(folder).items())), Watermark())
    (folder / "c.csv").write_text("")
    first_look = arrivals.arrival("x", files(folder), Watermark())
    after = arrivals.arrival("x", files(folder), Watermark.of(one))
    assert one
    assert first_look
    assert after
    assert first_look["id"] == after["id"] != one["id"]


def test_a_file_that_grows_between_two_looks_has_not_settled(folder: Path) -> None:
    first = files(folder)
    (folder / "a.csv").write_text("v\n1\n2\n")
    assert [Path(path).name for path in arrivals.settled(first, files(folder))] == ["b.csv"]


def test_only_what_is_old_by_any_clock_is_whole_at_first_sight(folder: Path) -> None:
    settle = dt.timedelta(seconds=60)
    assert arrivals.old(files(folder), settle) == {}
    later = dt.datetime.now(dt.timezone.utc) + arrivals.OLD + 2 * settle
    assert arrivals.old(files(folder), settle, later) == files(folder)


def test_nothing_yet_is_no_error_and_many_are_counted_not_named(folder: Path) -> None:
    assert arrivals.files_of((str(folder / "none*.csv"), str(folder.parent / "nowhere"))) == {}
    assert arrivals.arrival("x", {}, Watermark()) is None
    for number in range(30):
        (folder / f"n{number:02}.csv").write_text("")
    found = arrivals.arrival("x", files(folder), Watermark())
    assert len(paths(found)) == arrivals.MAX_PATHS
    assert found
    assert found["new"]["files"] == 32


def test_a_folder_of_partitions_can_be_waited_for(folder: Path) -> None:
    (folder / "day=1").mkdir()
    (folder / "day=1" / "c.csv").write_text("")
    found = arrivals.arrival("x", files(folder), Watermark())
    assert paths(found) == ["a.csv", "b.csv", "c.csv"]


def test_on_s3_the_version_counts(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.core import s3

    uri = f"s3://{s3_server.bucket()}/in"
    with s3.using(s3_server.access):
        assert arrivals.files_of((uri,)) == {}
        s3_server.put(f"{uri}/day=1/x.csv", b"")
        assert list(arrivals.files_of((uri,))) == [f"{uri}/day=1/x.csv"]
        s3_server.client.delete_object(Bucket=uri.split("/")[2], Key="in/day=1/x.csv")
        s3_server.put(f"{uri}/a.csv", b"v\n1\n")
        first = arrivals.arrival(uri, arrivals.files_of((uri,)), Watermark())
        assert first
        assert first["new"]["paths"] == [f"{uri}/a.csv"]
        assert parse_instant(first["latest"]) <= dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=1)
        # In the same second, by the server's clock.
        s3_server.put(f"{uri}/b.csv", b"v\n2\n")
        second = arrivals.arrival(uri, arrivals.files_of((uri,)), Watermark.of(first))
        assert second
        assert second["new"]["paths"] == [f"{uri}/b.csv"]
        before = arrivals.files_of((uri,))
        s3_server.put(f"{uri}/a.csv", b"v\n9\n")
        third = arrivals.arrival(uri, arrivals.files_of((uri,)), Watermark.of(second), before)
        assert third
        assert third["new"]["paths"] == [f"{uri}/a.csv"]
        assert open_source(uri).rows == 2
