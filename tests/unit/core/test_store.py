"""Objects are whole or absent, and of several creators exactly one wins."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import IntegrityError, NotFoundError, SpecError, UnsupportedError
from airflow_mlops.core.local_files import STAGING
from airflow_mlops.core.store import LocalStore, Store, check_key, open_store, safe_name

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each back end, with the same promises."""
    found: Store = LocalStore(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_store")
    return found


def test_what_is_put_is_got(store: Store) -> None:
    assert store.put_bytes("a/b.bin", b"\x00\xff")
    assert store.get_bytes("a/b.bin") == b"\x00\xff"
    assert store.exists("a/b.bin")
    with store.open_input("a/b.bin") as file:
        file.seek(1)
        assert file.read() == b"\xff"


def test_json_keeps_huge_integers_and_text_that_utf_8_cannot_hold(store: Store) -> None:
    value = {"huge": 2**200, "text": "Zürich", "lone": "a\ud800", "nan": float("nan")}
    store.put_json("x.json", value)
    assert store.get_json("x.json") == {"huge": 2**200, "text": "Zürich", "lone": "a\\ud800", "nan": None}


def test_an_object_that_was_altered_into_no_json_is_an_integrity_error(store: Store) -> None:
    assert store.find_json("x.json") is None
    store.put_bytes("x.json", b"{half")
    with pytest.raises(IntegrityError, match="altered outside"):
        store.get_json("x.json")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "a/../b", "..", ".", "a/.", "a\\b", "a\0b"])
def test_a_key_cannot_lead_out_of_the_store(store: Store, key: str) -> None:
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


def test_an_object_that_is_missing_is_named(store: Store) -> None:
    store.put_bytes("a/b", b"")
    for key in ("nothing", "a", "a/b/c"):
        with pytest.raises(NotFoundError, match=key):
            store.get_bytes(key)
    store.delete("nothing")


def test_keys_are_sorted_and_a_prefix_is_whole_parts(store: Store) -> None:
    for key in ("a/b/2", "a/b/1", "a/bc", "a.x", "z"):
        store.put_bytes(key, b"")
    assert list(store.keys()) == sorted(["a/b/2", "a/b/1", "a/bc", "a.x", "z"])
    assert list(store.keys("a/b")) == ["a/b/1", "a/b/2"]
    assert list(store.keys("a/bc")) == ["a/bc"]
    assert list(store.keys("q")) == []


def test_a_conditional_create_leaves_what_is_there(store: Store) -> None:
    assert store.put_bytes("x", b"first", if_absent=True)
    assert not store.put_bytes("x", b"second", if_absent=True)
    assert store.get_bytes("x") == b"first"
    assert store.put_bytes("x", b"third")
    assert store.get_bytes("x") == b"third"


def test_a_file_stays_where_it_is_and_later_changes_to_it_do_not_reach_the_store(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "elsewhere" / "big.bin"
    source.parent.mkdir()
    source.write_bytes(b"one")
    assert store.put_file("x", source)
    source.write_bytes(b"two")
    assert store.get_bytes("x") == b"one"


def _race(uri: str, number: int, start: object, results: object) -> None:
    store = open_store(uri)
    start.wait()  # type: ignore[attr-defined]
    won = [store.put_bytes(f"race/{round}", f"{number}".encode(), if_absent=True) for round in range(50)]
    results.put((number, won))  # type: ignore[attr-defined]


def test_of_eight_processes_that_create_exactly_one_wins_each_round(store: Store) -> None:
    start, results = FORK.Barrier(8), FORK.Queue()
    writers = [FORK.Process(target=_race, args=(store.uri, n, start, results)) for n in range(8)]
    for writer in writers:
        writer.start()
    won = dict(results.get(timeout=60) for _ in writers)
    for writer in writers:
        writer.join(10)
    for round in range(50):
        winners = [number for number, rounds in won.items() if rounds[round]]
        assert len(winners) == 1
        assert store.get_bytes(f"race/{round}") == str(winners[0]).encode()


def test_a_reader_never_sees_half_an_object(store: Store) -> None:
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


@pytest.mark.parametrize(("scheme", "kind"), [("gs", UnsupportedError), ("s3", SpecError)])
def test_what_is_no_store_is_refused_without_its_credentials(scheme: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        open_store(f"{scheme}://key:secret@bucket/x")
    assert "secret" not in str(caught.value) + str(caught.value.__dict__)


@given(st.text(), st.text())
def test_safe_names_are_keys_and_unequal_for_unequal_texts(one: str, other: str) -> None:
    assert "/" not in check_key(safe_name(one))
    assert len(safe_name(one).encode()) < 200
    assert (safe_name(one) == safe_name(other)) == (one == other)


def test_a_safe_name_of_a_safe_name_is_another_one() -> None:
    name = safe_name("a b")
    assert safe_name(name) != name, "a DAG of that name would share the other's folder"
    assert safe_name("flights.v2_a-b") == "flights.v2_a-b"


def test_an_object_has_a_size_and_an_age(store: Store) -> None:
    before = dt.datetime.now(dt.timezone.utc)
    store.put_bytes("data/one.bin", b"12345")
    found = store.stat("data/one.bin")

    assert found.size == 5
    assert abs((found.modified - before).total_seconds()) < 60
    assert dict(store.stats("data")) == {"data/one.bin": found}
    with pytest.raises(NotFoundError):
        store.stat("data/two.bin")


def test_a_copy_is_an_object_of_its_own(store: Store) -> None:
    store.put_bytes("a/one", b"1")
    store.copy("a/one", "b/two")
    store.delete("a/one")

    assert store.get_bytes("b/two") == b"1"
    store.put_bytes("a/one", b"2")
    store.copy("a/one", "b/two")
    store.put_bytes("a/one", b"3")
    assert store.get_bytes("b/two") == b"2"
    with pytest.raises(NotFoundError):
        store.copy("a/none", "b/three")
