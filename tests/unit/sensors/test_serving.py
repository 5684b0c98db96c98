"""ModelServerSensor: deferred or not, it waits for what the gateway's answers say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, TaskDeferred

from airflow_mlops.exceptions import MlopsFailed
from airflow_mlops.sensors.serving import ModelServerSensor
from servers.serving import World
from servers.serving import world as world


@pytest.fixture
def gateway(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A connection of the gateway."""
    monkeypatch.setenv("AIRFLOW_CONN_GATEWAY", f'{{"conn_type": "model_server", "host": "127.0.0.1:{world.port}"}}')
    return world


def sensor(model: Any, **more: Any) -> ModelServerSensor:
    arguments = {"task_id": "wait", "poke_interval": 0.05, "timeout": 1.0, "server_conn_id": "gateway", **more}
    return ModelServerSensor(server="flights", model=model, **arguments)


def deferred(task: ModelServerSensor) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        task.execute({})
    return caught.value


def finish(task: ModelServerSensor, caught: TaskDeferred) -> Any:
    async def first() -> Any:
        stream = caught.trigger.run()
        try:
            return (await asyncio.wait_for(anext(stream), 60)).payload
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    return getattr(task, caught.method_name)({}, event=asyncio.run(first()))


def test_what_serves_is_returned_at_once(gateway: World) -> None:
    gateway.deploy("a" * 64)
    wanted = {"digest": f"sha256:{'a' * 64}"}
    found = sensor(wanted).execute({})
    assert (found["server"], found["deployment"], found["digest"]) == ("flights", "1", wanted["digest"])
    assert sensor(wanted, deferrable=True).execute({}) == found


def test_another_model_is_waited_for_in_the_triggerer(gateway: World) -> None:
    gateway.deploy("a" * 64)
    task = sensor(f"sha256:{'b' * 64}", deferrable=True)
    caught = deferred(task)
    gateway.deploy("b" * 64)
    assert finish(task, caught)["deployment"] == "2"


def test_a_server_that_is_not_there_yet_is_waited_for(gateway: World) -> None:
    with pytest.raises(AirflowSensorTimeout):
        sensor(1).execute({})
    task = sensor(f"sha256:{'a' * 64}", deferrable=True)
    caught = deferred(task)
    gateway.deploy("a" * 64)
    assert finish(task, caught)["deployment"] == "1"


def test_what_cannot_be_waited_for(gateway: World) -> None:
    with pytest.raises(MlopsFailed, match="a ref with a digest or with name and version"):
        sensor("flights@champion").execute({})
    with pytest.raises(ValueError, match="answers must be 1 or more"):
        sensor(1, answers=0)
