"""What only a store in a folder does: links, flushes, one file system, files of dead writers."""

from __future__ import annotations

import datetime as dt
import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from airflow_mlops.core import local_files
from airflow_mlops.core.errors import CannotReachError, SpecError, UnsupportedError
from airflow_mlops.core.local_files import STAGING
from airflow_mlops.core.store import LocalStore, open_store

FORK = multiprocessing.get_context("fork")


def test_ten_thousand_objects_are_listed(store: LocalStore) -> None:
    for folder in range(10):
        (store.root / str(folder)).mkdir(parents=True)
        for one in range(1000):
            (store.root / str(folder) / f"{one:04}").touch()
    assert len(list(store.keys())) == 10_000


def test_a_file_on_another_file_system_is_published(store: LocalStore) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == store.root.parent.stat().st_dev:
        other = store.root.parent
    source = other / f"mlops-test-{os.getpid()}"
    source.write_bytes(b"far")
    try:
        assert store.put_file("x", source, if_absent=True)
        assert not store.put_file("x", source, if_absent=True)
    finally:
        source.unlink()
    assert store.get_bytes("x") == b"far"


def test_a_writer_killed_in_the_middle_leaves_nothing_that_can_be_seen(store: LocalStore) -> None:
    ready = FORK.Event()

    def write() -> None:
        with store.staging() as folder:
            (folder / "object").write_bytes(b"half")
            ready.set()
            time.sleep(60)

    writer = FORK.Process(target=write)
    writer.start()
    assert ready.wait(20)
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    assert list(store.keys()) == []
    assert store.put_bytes("x", b"whole", if_absent=True)
    assert [path.name for path in (store.root / STAGING).iterdir()] == [], "the next write removes what it left"


def test_what_another_machine_left_goes_after_a_day_and_not_before(store: LocalStore) -> None:
    staging = store.root / STAGING
    old, young, busy = (staging / f"w-0123456789ab-1-{name}" for name in ("old", "young", "busy"))
    for folder in (old, young, busy):
        folder.mkdir(parents=True)
    (busy / "object").touch()
    long_ago = time.time() - local_files.STALE_SECONDS - 60
    os.utime(old, (long_ago, long_ago))
    os.utime(busy, (long_ago, long_ago))
    store.put_bytes("x", b"")
    assert not old.exists()
    assert young.exists()
    assert busy.exists(), "a file in it was written to a moment ago"


def test_folders_and_objects_are_flushed_before_a_create_is_reported(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    flush = local_files.flush
    monkeypatch.setattr(local_files, "flush", lambda path: (flushed.append(path), flush(path)))
    store.put_bytes("a/b/x", b"", if_absent=True)
    names = [str(path.relative_to(store.root.parent)) for path in flushed if STAGING not in path.parts]
    assert names[-1] == "store/a/b", "the name of the object last"
    assert {"store", "store/a"} <= set(names), "the names of new folders too"
    flushed.clear()
    assert not store.put_bytes("a/b/x", b"", if_absent=True)
    assert flushed == [store.root / "a/b"], "the loser makes sure of what it relies on"


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, CannotReachError, "cannot be written now"),
        (errno.EROFS, SpecError, "right to read and write"),
        (errno.EACCES, SpecError, "right to read and write"),
        (errno.EXDEV, UnsupportedError, "hard links"),
    ],
)
def test_what_the_disk_refuses_is_said_with_its_cure(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], text: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number), "x")

    monkeypatch.setattr(local_files.os, "link", refuse)
    with pytest.raises(kind, match=text):
        store.put_bytes("x", b"", if_absent=True)
    monkeypatch.undo()
    assert not store.exists("x")


def test_a_store_is_the_same_by_path_and_by_uri(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "a b#c?%20é")
    store.put_bytes("ü/x y", b"")
    assert open_store(store.uri).root == open_store(str(store.root)).root == store.root  # type: ignore[attr-defined]
    assert store.key_of(store.uri_of("ü/x y")) == "ü/x y"
    assert store.key_of(store.uri) is None
    assert store.key_of(store.uri + "/../x") is None
    assert store.key_of("s3://bucket/x") is None
    assert store.key_of((tmp_path / "elsewhere").as_uri()) is None


@pytest.mark.parametrize("uri", ["", "relative/path", "file:relative", "file://host/share"])
def test_a_store_without_an_absolute_path_is_refused(uri: str) -> None:
    with pytest.raises(SpecError, match="absolute path"):
        open_store(uri)


def test_what_writers_left_is_found_and_removed(store: LocalStore) -> None:
    folder = Path(store.staging_folder())
    (folder / "data.parquet").write_bytes(b"12")
    now = dt.datetime.now(dt.timezone.utc)

    assert list(store.leftovers(now - dt.timedelta(days=1))) == []
    ((name, found),) = store.leftovers(now + dt.timedelta(days=1))
    assert (name, found.size) == (f".staging/{folder.name}", 2)
    assert folder.exists()
    assert len(list(store.leftovers(now + dt.timedelta(days=1), delete=True))) == 1
    assert not folder.exists()
