"""Snapshots, collections and erasures on a store on S3: killed anywhere, and beside each other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.data.dataset import read_table, write_table
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.lifecycle import sweep
from airflow_mlops.core.lifecycle.erase import Subject, erase
from airflow_mlops.core.lifecycle.gc import collect, limits_of, plan
from airflow_mlops.core.registry.ledger import LEASE_VARIABLE
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.s3 import SOURCE
from airflow_mlops.core.steps import StepContext, run_step
from airflow_mlops.core.store import Store, open_store
from airflow_mlops.core.vocabulary import DatasetRef
from servers.s3 import S3Server

PREAMBLE = """
import sys
from airflow_mlops.core.lifecycle.erase import Subject, erase
from airflow_mlops.core.lifecycle.gc import collect, limits_of
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import open_store
context = StepContext(store=open_store(sys.argv[1]), tracking_uri=sys.argv[2])
"""
COLLECT = PREAMBLE + 'collect(context, limits_of(), by="ana")'
ERASE = PREAMBLE + 'erase(context, Subject(("2",)), by="ana", reason="asked")'


@pytest.fixture
def store(s3_store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the contexts of these tests are on; nobody waits a minute for a dead process here."""
    monkeypatch.setenv(LEASE_VARIABLE, "1")
    return s3_store


def start(context: StepContext, code: str, *more: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, context.store.uri, str(context.tracking_uri), *more],
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


def contents(store: Store) -> list[str]:
    """Everything but the records of collections and erasures."""
    return [key for key, _ in store.stats() if not key.startswith(("lifecycle/", "erasures/"))]


def refs(store: Store) -> list[DatasetRef]:
    """Three snapshots; an approval waits for the last one."""
    found = [write_table(store, table(i, i + 1), name=f"n{i}", roles={"key": "customer"}) for i in (1, 2, 3)]
    store.put_json("policies/1.json", {"dataset": found[2].to_dict()})
    return found


@pytest.fixture
def source(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file in another bucket, of some parts."""
    pq.write_table(pa.table({"id": list(range(1000)), "name": [f"n{i}" for i in range(1000)]}), tmp_path / "x.parquet")
    uri = f"s3://{s3_server.bucket()}/in/x.parquet"
    s3_server.put(uri, (tmp_path / "x.parquet").read_bytes())
    monkeypatch.setenv(SOURCE, s3_server.access.to_json())
    return uri


@pytest.mark.parametrize("point", CRASH_POINTS["snapshot_data"])
def test_a_snapshot_killed_and_taken_again_is_one_clean_run(store: Store, source: str, tmp_path: Path, point: str):
    spec = {"step": "snapshot_data", "args": {"source": source, "roles": {"key": "id"}}, "key": "d/r/t/-1"}

    def run(uri: str, **variables: str) -> tuple[int, Any]:
        file, report = tmp_path / "spec.json", tmp_path / "report.json"
        report.unlink(missing_ok=True)
        file.write_text(json.dumps({**spec, "store": uri}))
        command = [sys.executable, "-m", "airflow_mlops.core", "--spec", str(file), "--report", str(report)]
        done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=False, timeout=120)
        return done.returncode, json.loads(report.read_text()) if report.exists() else done.stderr

    code, ref = run(store.uri, **{VARIABLE: point})
    assert code == -signal.SIGKILL, ref
    code, ref = run(store.uri)
    assert code == 0, ref
    assert run(store.uri) == (0, ref)

    clean = open_store(store.uri + "-clean", store.access)  # type: ignore[attr-defined]
    run_step({**spec, "store": clean.uri})
    assert contents(store) == contents(clean)
    assert [store.get_bytes(key) for key in store.keys("data")] == [clean.get_bytes(key) for key in clean.keys("data")]
    assert read_table(store, DatasetRef.from_dict(ref)).num_rows == 1000


def test_what_a_champion_rests_on_stays_and_what_nothing_needs_goes(mlflow_context, log_model, s3_server):
    store = mlflow_context.store
    training, unused = write_table(store, table(1, 2), name="train"), write_table(store, table(8, 9), name="unused")
    model = log_model("1", training={"dataset_digest": training.digest}, test_dataset=training.to_dict())
    register_model(mlflow_context, model=model, model_name="churn")
    promote_model(mlflow_context, model="churn/1", evidence=[])
    assert plan(mlflow_context, limits_of()).garbage == [], "all of it is young"
    s3_server.age(store.uri)

    before = contents(store)
    dry = plan(mlflow_context, limits_of())
    assert contents(store) == before
    assert store.key_of(unused.uri) in {key for one in dry.garbage for key in one.keys}
    record = collect(mlflow_context, limits_of(), by="ana")

    assert set(before) - set(contents(store)) == {key for one in dry.garbage for key in one.keys}
    assert not store.exists(store.key_of(unused.uri))
    assert read_table(store, training).num_rows == 2
    assert record["state"] == "done"
    assert list(store.keys(sweep.TRASH)) == []


def test_an_abandoned_upload_is_shown_and_goes_with_the_garbage(mlflow_context, monkeypatch):
    import datetime as dt

    from airflow_mlops.core import s3_upload

    store = mlflow_context.store
    store.put_bytes("policies/x", b"")
    s3_upload.Upload(store.client, store.bucket, f"{store.prefix}/data/x.parquet", {}).__enter__()
    assert plan(mlflow_context, limits_of()).staging == []
    later = limits_of(now=dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=15))
    assert [name for name, _ in plan(mlflow_context, later).staging] == ["upload of some/prefix/data/x.parquet"]
    record = collect(mlflow_context, later, by="ana")
    assert [one["name"] for one in record["staging"]] == ["upload of some/prefix/data/x.parquet"]
    assert list(s3_upload.unfinished(store.client, store.bucket, "")) == []


@pytest.mark.parametrize("point", CRASH_POINTS["collect_garbage"])
def test_a_collection_killed_and_run_again_ends_as_one_clean_run(point, mlflow_context, s3_server):
    store = mlflow_context.store
    refs(store)
    kept = [key for key in contents(store) if "n3" in key or key.startswith("policies")]
    s3_server.age(store.uri)

    killed(mlflow_context, COLLECT, point)
    record = collect(mlflow_context, limits_of(), by="ana")

    left = contents(store)
    assert set(kept) <= set(left)
    assert len([key for key in left if key.endswith(".parquet")]) == 1
    assert list(store.keys(sweep.TRASH)) == []
    records = [store.get_json(key) for key in store.keys(sweep.RECORDS)]
    assert sorted(one["state"] for one in records) == ["done", "settled"]
    assert len(record["settled"]) == 1


@pytest.mark.parametrize("point", CRASH_POINTS["erase_rows"])
def test_an_erasure_killed_and_run_again_ends_as_one_clean_run(point, mlflow_context):
    store = mlflow_context.store
    found = refs(store)
    killed(mlflow_context, ERASE, point)
    record = erase(mlflow_context, Subject(("2",)), by="ana", reason="asked")
    assert [read_table(store, ref).column("customer").to_pylist() for ref in found] == [[1], [3], [3, 4]]
    assert record["state"] == "done"
    for key in store.keys("data"):
        if key.endswith(".parquet"):
            with store.open_input(key) as file:
                assert 2 not in pq.read_table(file).column("customer").to_pylist()


RACE = """
import os, random, sys, time
import pyarrow as pa
from airflow_mlops.core.data.dataset import read_table, write_table
from airflow_mlops.core.store import open_store
from servers.s3 import S3Server
store, server = open_store(sys.argv[1]), S3Server(sys.argv[4])
rng = random.Random(os.getpid())
while not os.path.exists(sys.argv[3]):
    n = rng.randrange(6)
    ref = write_table(store, pa.table({"n": [n] * 3}), name=f"n{n}")
    for _ in range(3):
        time.sleep(rng.random() / 20)
        assert read_table(store, ref).num_rows == 3
    # Then nobody cares for it any more, and it is old.
    if rng.random() < 0.7:
        server.age(ref.uri.removesuffix(".parquet"), 40)
        server.age(f"{store.uri}/datasets/n{n}", 40)
"""


def test_a_writer_and_a_collector_in_a_loop_lose_nothing(mlflow_context, s3_server, tmp_path):
    folder = str(Path(__file__).resolve().parents[1])
    stop = tmp_path / "stop"
    writer = start(mlflow_context, RACE, str(stop), s3_server.url, PYTHONPATH=folder)
    deleted = 0
    deadline = time.monotonic() + 20
    try:
        while time.monotonic() < deadline and writer.poll() is None:
            deleted += len(collect(mlflow_context, limits_of(), by="ana")["deleted"])
    finally:
        stop.touch()
        _, errors = writer.communicate(timeout=60)
    assert writer.returncode == 0, errors
    assert deleted > 3, "it has to have something to collect"
    assert list(mlflow_context.store.keys(sweep.TRASH)) == []
