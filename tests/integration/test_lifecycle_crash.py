"""Collections and erasures killed at every crash point, and beside runs that use what they delete."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.data.dataset import read_table, write_table
from airflow_mlops.core.data.publishing import data_key
from airflow_mlops.core.faults import CRASH_POINTS, PAUSE_VARIABLE, VARIABLE
from airflow_mlops.core.lifecycle import sweep, uses
from airflow_mlops.core.lifecycle.erase import RECORDS, Subject, erase
from airflow_mlops.core.lifecycle.gc import collect, limits_of
from airflow_mlops.core.registry.ledger import LEASE_VARIABLE
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.training.rowkeys import load_row_keys, save_row_keys
from airflow_mlops.core.vocabulary import DatasetRef

PREAMBLE = """
import json, sys
from airflow_mlops.core.lifecycle.erase import Subject, erase
from airflow_mlops.core.lifecycle.gc import collect, limits_of
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
context = StepContext(store=LocalStore(sys.argv[1]), tracking_uri=sys.argv[2])
"""
COLLECT = PREAMBLE + 'collect(context, limits_of(), by="ana")'
ERASE = PREAMBLE + 'erase(context, Subject(("2",)), by="ana", reason="asked")'


@pytest.fixture(autouse=True)
def lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits a minute for a dead process here."""
    monkeypatch.setenv(LEASE_VARIABLE, "1")


def start(context: StepContext, code: str, **variables: str) -> subprocess.Popen[str]:
    assert isinstance(context.store, LocalStore)
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(context.store.root), str(context.tracking_uri)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(context: StepContext, code: str, point: str) -> None:
    process = start(context, code, **{VARIABLE: point})
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    time.sleep(1.1)  # Its lease.


def table(*customers: int) -> pa.Table:
    return pa.table({"customer": list(customers), "spent": [float(one) for one in customers]})


def aged(store: Any, days: int = 30) -> None:
    then = (dt.datetime.now() - dt.timedelta(days=days)).timestamp()
    for key in list(store.keys()):
        os.utime(store.path_of(key), (then, then))


def contents(store: Any) -> dict[str, bytes]:
    """Everything but the records of collections and erasures."""
    return {k: store.get_bytes(k) for k in list(store.keys()) if not k.startswith(("lifecycle/", "erasures/"))}


def refs(store: Any) -> list[DatasetRef]:
    """Three snapshots; an approval waits for the last one."""
    found = [write_table(store, table(i, i + 1), name=f"n{i}", roles={"key": "customer"}) for i in (1, 2, 3)]
    store.put_json("policies/1.json", {"dataset": found[2].to_dict()})
    return found


@pytest.mark.parametrize("point", CRASH_POINTS["collect_garbage"])
def test_a_collection_killed_and_run_again_ends_as_one_clean_run(point, mlflow_context, tmp_path):
    store = mlflow_context.store
    refs(store)
    aged(store)
    clean = tmp_path / "clean"
    shutil.copytree(store.root, clean)
    # copytree keeps the times.
    other = StepContext(store=LocalStore(clean), tracking_uri=mlflow_context.tracking_uri)
    collect(other, limits_of(), by="ana")

    killed(mlflow_context, COLLECT, point)
    record = collect(mlflow_context, limits_of(), by="ana")

    assert contents(store) == contents(other.store)
    assert list(store.keys(sweep.TRASH)) == []
    records = [store.get_json(key) for key in store.keys(sweep.RECORDS)]
    assert sorted(one["state"] for one in records) == ["done", "settled"]
    assert len(record["settled"]) == 1
    # What went, in one of the two, is on record.
    gone = {key for one in records for deleted in one["deleted"] for key in deleted["keys"]}
    assert {key for key in gone if store.exists(key)} == set()
    assert len([key for key in gone if key.endswith(".parquet")]) == 2


@pytest.mark.parametrize("point", CRASH_POINTS["erase_rows"])
def test_an_erasure_killed_and_run_again_ends_as_one_clean_run(point, mlflow_context, log_model, tmp_path):
    import numpy as np
    import pandas

    from airflow_mlops.core.training.rowkeys import hash_rows

    store = mlflow_context.store
    found = refs(store)
    keys = hash_rows(pandas.DataFrame({"customer": [1, 2]}), {"key": "customer"})
    uri = save_row_keys(store, np.asarray(keys))
    training = {"dataset_digest": found[0].digest, "row_keys_uri": uri, "row_key_columns": ["customer"]}
    model = log_model("1", training=training)
    clean = tmp_path / "clean"
    shutil.copytree(store.root, clean)
    other = StepContext(store=LocalStore(clean), tracking_uri=mlflow_context.tracking_uri)
    expected = erase(other, Subject(("2",)), by="ana", reason="asked")

    killed(mlflow_context, ERASE, point)
    record = erase(mlflow_context, Subject(("2",)), by="ana", reason="asked")

    same = [path for path in contents(store) if path.startswith(("data/", "rowkeys/"))]
    assert same == [path for path in contents(other.store) if path.startswith(("data/", "rowkeys/"))]
    assert [read_table(store, ref).column("customer").to_pylist() for ref in found] == [[1], [3], [3, 4]]
    assert len(load_row_keys(store, uri)) == 1
    for key in ("rows", "objects", "state"):
        assert record[key] == expected[key], key
    assert [one["uri"] for one in record["models"]] == [model["uri"]]
    assert len(list(store.keys(RECORDS))) == 1, "it goes on under the record that it began"


def test_a_snapshot_taken_again_while_it_is_being_collected_is_not_lost(mlflow_context, tmp_path):
    """The collector has looked and is about to delete; then the same content comes again."""
    store = mlflow_context.store
    ref = write_table(store, table(1, 2), name="n")
    source = tmp_path / "source.parquet"
    pq.write_table(table(1, 2), source)
    for point in ("gc.planned", "gc.copied", "gc.decided", "gc.deleted"):
        aged(store)
        collector = start(mlflow_context, COLLECT, **{PAUSE_VARIABLE: f"{point}:3", LEASE_VARIABLE: "30"})
        _until(lambda point=point: _reached(store, ref, point), collector)

        again = write_table(store, table(1, 2), name="n")
        assert again.digest == ref.digest
        assert read_table(store, again).num_rows == 2
        _, errors = collector.communicate(timeout=60)

        assert collector.returncode == 0, errors
        assert read_table(store, again).num_rows == 2
        assert store.exists(data_key(ref.digest))
        for key in [*store.keys("lifecycle")]:
            store.delete(key)


def _reached(store: Any, ref: DatasetRef, point: str) -> bool:
    if point == "gc.planned":
        return bool(list(store.keys(sweep.RECORDS)))
    # The ref goes first, then the content: its copy is in the trash.
    trashed = any(key.endswith(".parquet") for key in store.keys(sweep.TRASH))
    return trashed and (point != "gc.deleted" or not store.exists(data_key(ref.digest)))


def test_who_is_told_that_an_object_is_there_finds_it_there(mlflow_context):
    """The collector has decided to delete it; the word that it is there must not come before it is back."""
    store = mlflow_context.store
    ref = write_table(store, table(1, 2), name="n")
    aged(store)
    key = data_key(ref.digest)
    collector = start(mlflow_context, COLLECT, **{PAUSE_VARIABLE: "gc.decided:2", LEASE_VARIABLE: "60"})
    _until(lambda: store.exists(f"{sweep.TRASH}/{collection(store)}/{key}"), collector)

    assert uses.keep(store, key)

    in_hand, there = store.exists(f"{uses.IN_HAND}/{key}.json"), store.exists(key)
    _, errors = collector.communicate(timeout=60)
    assert collector.returncode == 0, errors
    assert (in_hand, there) == (False, True)
    assert store.exists(key)
    assert list(store.keys(uses.IN_HAND)) == []


def collection(store: Any) -> str:
    """The id of the last collection."""
    return next(reversed([key.rpartition("/")[2].removesuffix(".json") for key in store.keys(sweep.RECORDS)]), "none")


def test_nobody_waits_for_a_collector_that_was_killed_beyond_its_lease(mlflow_context):
    store = mlflow_context.store
    ref = write_table(store, table(1, 2), name="n")
    aged(store)
    killed(mlflow_context, COLLECT, "gc.decided")
    assert list(store.keys(uses.IN_HAND)), "it has its hand on something"

    assert uses.keep(store, data_key(ref.digest))

    collect(mlflow_context, limits_of(), by="ana")
    assert read_table(store, ref).num_rows == 2
    assert list(store.keys(uses.IN_HAND)) == []


def _until(condition: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


RACE = """
import random, sys, time, datetime as dt, os
import pyarrow as pa
from airflow_mlops.core.data.dataset import read_table, write_table
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.training.rowkeys import load_row_keys, save_row_keys
import numpy as np
store = LocalStore(sys.argv[1])
rng = random.Random(os.getpid())
while not os.path.exists(os.path.join(sys.argv[1], "..", "stop")):
    n = rng.randrange(6)
    ref = write_table(store, pa.table({"n": [n] * 3}), name=f"n{n}")
    uri = save_row_keys(store, np.asarray([n, n + 1], dtype="uint64"))
    # From here on it must be there for a grace period.
    for _ in range(3):
        time.sleep(rng.random() / 50)
        assert read_table(store, ref).num_rows == 3
        assert len(load_row_keys(store, uri)) == 2
    # Then nobody cares for it any more, and it is old.
    then = time.time() - 40 * 86400
    for key in (store.key_of(ref.uri), store.key_of(uri)):
        for one in (key + ".used", key):
            if rng.random() < 0.5:
                try:
                    os.utime(store.path_of(one), (then, then))
                except FileNotFoundError:
                    pass
"""


def test_one_writer_and_a_collector_in_a_loop_lose_nothing(mlflow_context, tmp_path, monkeypatch):
    """A writer publishes, relies, and forgets; a collector goes round and round."""
    monkeypatch.setenv(LEASE_VARIABLE, "60")  # Nobody dies here, and a busy machine may be slow.
    store = mlflow_context.store
    writer = start(mlflow_context, RACE)
    deleted = put_back = 0
    deadline = time.monotonic() + 15
    try:
        while time.monotonic() < deadline and writer.poll() is None:
            record = collect(mlflow_context, limits_of(), by="ana")
            deleted += len(record["deleted"])
            put_back += len(record["restored"])
    finally:
        (tmp_path / "stop").touch()
        _, errors = writer.communicate(timeout=60)
    assert writer.returncode == 0, errors
    assert deleted > 20, "it has to have something to collect"
    print(json.dumps({"deleted": deleted, "put_back": put_back}))
    assert list(store.keys(sweep.TRASH)) == []
