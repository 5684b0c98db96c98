"""NewDataSensor: in a worker and deferred it returns the same."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, TaskDeferred
from airflow.sdk.bases.sensor import PokeReturnValue

from airflow_mlops.core.data import arrivals
from airflow_mlops.exceptions import MlopsFailed, MlopsUnavailable
from airflow_mlops.sensors.data import NewDataSensor
from servers.s3 import KEY, SECRET, S3Server


@pytest.fixture
def context(tmp_path: Path) -> Any:
    ti = SimpleNamespace(bundle_instance=SimpleNamespace(path=tmp_path))
    return {"ti": ti, "dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py"))}


def sensor(**more: Any) -> NewDataSensor:
    return NewDataSensor(**{"task_id": "wait", "settle": "0.1s", "poke_interval": 0.05, "timeout": 1.0, **more})


def deferred(task: NewDataSensor, context: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context)
    return caught.value


def finish(task: NewDataSensor, context: Any, caught: TaskDeferred) -> Any:
    async def first() -> Any:
        stream = caught.trigger.run()
        try:
            return (await asyncio.wait_for(anext(stream), 20)).payload
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    return getattr(task, caught.method_name)(context, event=asyncio.run(first()))


def test_deferred_or_not_it_returns_the_same(tmp_path: Path, context: Any) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("v\n1\n")
    plain = sensor(source="in/*.csv").execute(context)
    task = sensor(source="in/*.csv", deferrable=True)
    caught = deferred(task, context)
    assert caught.timeout == dt.timedelta(seconds=1)
    assert finish(task, context, caught) == plain
    assert plain["source"] == str(tmp_path / "in/*.csv"), "a relative path is the bundle's"
    assert plain["new"]["paths"] == [str(tmp_path / "in/a.csv")]
    assert len(json.dumps(plain)) < 16384


def test_what_is_old_needs_neither_a_wait_nor_a_triggerer(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("v\n1\n")
    monkeypatch.setattr(arrivals, "OLD", dt.timedelta(seconds=-60))
    found = sensor(source="a.csv", settle="10s", deferrable=True).execute(context)
    assert found["files"] == 1


def test_a_former_result_is_what_is_not_new(tmp_path: Path, context: Any) -> None:
    (tmp_path / "a.csv").write_text("v\n1\n")
    first = sensor(source="*.csv").execute(context)
    with pytest.raises(AirflowSensorTimeout):
        sensor(source="*.csv", since=first, timeout=0.1).execute(context)
    (tmp_path / "b.csv").write_text("v\n1\n")
    second = sensor(source="*.csv", since=first).execute(context)
    assert second["new"]["paths"] == [str(tmp_path / "b.csv")]


def test_every_argument_goes_to_the_trigger(context: Any, tmp_path: Path) -> None:
    task = sensor(source=["a", "/b"], since="2013-01-01", min_files=3, deferrable=True, poke_interval=7)
    _, arguments = deferred(task, context).trigger.serialize()
    assert arguments == {
        "source": [str(tmp_path / "a"), "/b"],
        "since": "2013-01-01",
        "settle": "0.1s",
        "min_files": 3,
        "poll_interval": 7.0,
        "aws_conn_id": None,
    }


def test_an_object_on_s3_through_a_connection(s3_server: S3Server, context: Any, monkeypatch: Any) -> None:
    extra = {"endpoint_url": s3_server.url, "region_name": "eu-north-1"}
    lake = {"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(lake))
    uri = f"s3://{s3_server.bucket()}/in/day=1/a.csv"
    s3_server.put(uri, b"v\n1\n")
    task = sensor(source=uri, aws_conn_id="lake")
    found = task.execute(context)
    assert found["new"]["paths"] == [uri]
    task = sensor(source=uri, aws_conn_id="lake", deferrable=True)
    assert finish(task, context, deferred(task, context)) == found


def test_errors_say_whether_to_try_again(context: Any) -> None:
    for deferrable in (False, True):
        with pytest.raises(MlopsUnavailable, match="secrets back end"):
            sensor(source="s3://b-x/in", aws_conn_id="lake", deferrable=deferrable).execute(context)
        with pytest.raises(MlopsFailed, match="gs://"):
            sensor(source="gs://b-x/in", deferrable=deferrable).execute(context)
    event = {"error": {"type": "CannotReachError", "message": "m", "retryable": True, "fields": {}}}
    with pytest.raises(MlopsUnavailable, match="CannotReachError: m"):
        sensor(source="x").execute_complete(context, event)
    with pytest.raises(ValueError, match="not a duration"):
        sensor(source="x", settle="soon")
    with pytest.raises(ValueError, match="min_files"):
        sensor(source="x", min_files=0)


def test_a_file_that_is_being_written_is_not_taken(tmp_path: Path, context: Any) -> None:
    path = tmp_path / "a.csv"
    path.write_text("v\n")
    task = sensor(source="a.csv", settle="0.5s")
    pid = os.fork()
    if pid == 0:
        for _ in range(15):
            with path.open("a") as file:
                file.write("1\n")
            time.sleep(0.1)
        os._exit(0)
    assert task.poke(context) is False
    os.waitpid(pid, 0)
    assert isinstance(task.poke(context), PokeReturnValue)
