"""Objects are whole or absent, and of several creators exactly one wins."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core import store as module
from airflow_mlops.core.errors import CannotReachError, IntegrityError, NotFoundError, SpecError, UnsupportedError
from airflow_mlops.core.store import STAGING, LocalStore, check_key, open_store, safe_name

FORK = multiprocessing.get_context("fork")


def test_what_is_put_is_got(store: LocalStore) -> None:
    assert store.put_bytes("a/b.bin", b"\x00\xff")
    assert store.get_bytes("a/b.bin") == b"\x00\xff"
    assert store.exists("a/b.bin")
    with store.open_input("a/b.bin") as file:
        file.seek(1)
        assert file.read() == b"\xff"


def test_json_keeps_huge_integers_and_text_that_utf_8_cannot_hold(store: LocalStore) -> None:
    value = {"huge": 2**200, "text": "Zürich", "lone": "a\ud800", "nan": float("nan")}
    store.put_json("x.json", value)
    assert store.get_json("x.json") == {"huge": 2**200, "text": "Zürich", "lone": "a\\ud800", "nan": None}


def test_an_object_that_was_altered_into_no_json_is_an_integrity_error(store: LocalStore) -> None:
    store.put_bytes("x.json", b"{half")
    with pytest.raises(IntegrityError, match="altered outside"):
        store.get_json("x.json")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/../b", "..", ".", "a/.", "a\\b", "a\0b"])
def test_a_key_cannot_lead_out_of_the_store(store: LocalStore, key: str) -> None:
    for call in (store.get_bytes, store.exists, store.delete, lambda k: store.put_bytes(k, b"")):
        with pytest.raises(SpecError, match="not a store key"):
            call(key)


def test_what_is_not_yet_published_has_no_key(store: LocalStore) -> None:
    with store.staging() as folder:
        (folder / "half").write_bytes(b"half")
        assert list(store.keys()) == []
        with pytest.raises(SpecError):
            store.get_bytes(f"{STAGING}/{folder.name}/half")
    assert not folder.exists()


def test_an_object_that_is_missing_is_named(store: LocalStore) -> None:
    store.put_bytes("a/b", b"")
    for key in ("nothing", "a", "a/b/c"):
        with pytest.raises(NotFoundError, match=key):
            store.get_bytes(key)
    store.delete("nothing")


def test_keys_are_sorted_and_a_prefix_is_whole_parts(store: LocalStore) -> None:
    for key in ("a/b/2", "a/b/1", "a/bc", "a.x", "z"):
        store.put_bytes(key, b"")
    assert list(store.keys()) == sorted(["a/b/2", "a/b/1", "a/bc", "a.x", "z"])
    assert list(store.keys("a/b")) == ["a/b/1", "a/b/2"]
    assert list(store.keys("a/bc")) == ["a/bc"]
    assert list(store.keys("q")) == []


def test_listing_ten_thousand_objects_takes_no_second(store: LocalStore) -> None:
    for folder in range(10):
        (store.root / str(folder)).mkdir(parents=True)
        for one in range(1000):
            (store.root / str(folder) / f"{one:04}").touch()
    started = time.perf_counter()
    assert len(list(store.keys())) == 10_000
    assert time.perf_counter() - started < 1


def test_a_conditional_create_leaves_what_is_there(store: LocalStore) -> None:
    assert store.put_bytes("x", b"first", if_absent=True)
    assert not store.put_bytes("x", b"second", if_absent=True)
    assert store.get_bytes("x") == b"first"
    assert store.put_bytes("x", b"third")
    assert store.get_bytes("x") == b"third"


def test_a_file_stays_where_it_is_and_later_changes_to_it_do_not_reach_the_store(
    store: LocalStore, tmp_path: Path
) -> None:
    source = tmp_path / "elsewhere" / "big.bin"
    source.parent.mkdir()
    source.write_bytes(b"one")
    assert store.put_file("x", source)
    source.write_bytes(b"two")
    assert store.get_bytes("x") == b"one"


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


def _race(root: Path, number: int, start: object, results: object) -> None:
    store = LocalStore(root)
    start.wait()  # type: ignore[attr-defined]
    won = [store.put_bytes(f"race/{round}", f"{number}".encode(), if_absent=True) for round in range(50)]
    results.put((number, won))  # type: ignore[attr-defined]


def test_of_eight_processes_that_create_exactly_one_wins_each_round(store: LocalStore) -> None:
    start, results = FORK.Barrier(8), FORK.Queue()
    writers = [FORK.Process(target=_race, args=(store.root, n, start, results)) for n in range(8)]
    for writer in writers:
        writer.start()
    won = dict(results.get(timeout=60) for _ in writers)
    for writer in writers:
        writer.join(10)
    for round in range(50):
        winners = [number for number, rounds in won.items() if rounds[round]]
        assert len(winners) == 1
        assert store.get_bytes(f"race/{round}") == str(winners[0]).encode()


def test_a_reader_never_sees_half_an_object(store: LocalStore) -> None:
    size, stop, seen = 1 << 20, threading.Event(), set()
    store.put_bytes("x", b"a" * size)

    def read() -> None:
        while not stop.is_set():
            data = store.get_bytes("x")
            seen.add((len(data), len(set(data))))

    reader = threading.Thread(target=read)
    reader.start()
    for round in range(40):
        store.put_bytes("x", bytes([97 + round % 26]) * size)
    stop.set()
    reader.join()
    assert seen == {(size, 1)}


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
    long_ago = time.time() - module.STALE_SECONDS - 60
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
    flush = module._flush
    monkeypatch.setattr(module, "_flush", lambda path: (flushed.append(path), flush(path)))
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

    monkeypatch.setattr(module.os, "link", refuse)
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


def test_a_scheme_without_a_back_end_is_refused_without_its_credentials() -> None:
    with pytest.raises(UnsupportedError) as caught:
        open_store("s3://key:secret@bucket/x")
    assert "secret" not in str(caught.value) + str(caught.value.fields)


@given(st.text(), st.text())
def test_safe_names_are_keys_and_unequal_for_unequal_texts(one: str, other: str) -> None:
    assert "/" not in check_key(safe_name(one))
    assert len(safe_name(one).encode()) < 200
    assert (safe_name(one) == safe_name(other)) == (one == other)


def test_a_safe_name_of_a_safe_name_is_another_one() -> None:
    name = safe_name("a b")
    assert safe_name(name) != name, "a DAG of that name would share the other's folder"
    assert safe_name("flights.v2_a-b") == "flights.v2_a-b"
