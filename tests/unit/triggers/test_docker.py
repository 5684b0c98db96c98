"""The trigger that waits for a container, on a real engine: what it shows, when it ends, what it outlives."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from docker.errors import NotFound

from airflow_mlops.core.errors import CannotReachError, from_dict
from airflow_mlops.runtimes.docker_engine import ContainerLostError
from airflow_mlops.triggers import docker
from airflow_mlops.triggers.docker import ContainerTrigger
from servers.docker import Engine
from servers.docker_steps import wait_for

NOWHERE = "unix:///nowhere/docker.sock"


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ENGINE", json.dumps({"conn_type": "docker", "extra": {"docker_url": url}}))


@pytest.fixture
def start(docker_engine: Engine, base_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Start a container that runs some Python, and return the trigger that waits for it."""
    use(monkeypatch, docker_engine.url)
    client = docker_engine.client
    started: list[str] = []

    def make(code: str) -> ContainerTrigger:
        name = f"trigger-{uuid.uuid4().hex[:12]}"
        started.append(client.create_container(base_image, ["python3", "-uc", code], name=name)["Id"])
        client.start(name)
        return ContainerTrigger(container=name, docker_conn_id="engine", poll_interval=0.1)

    yield make
    for one in started:
        try:
            client.remove_container(one, force=True)
        except NotFound:
            continue
    client.close()


def event_of(trigger: ContainerTrigger) -> dict[str, Any]:
    """Return the one event of a trigger."""

    async def collect() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (event,) = asyncio.run(asyncio.wait_for(collect(), 120))
    return dict(event)


def test_what_is_serialized_makes_the_same_trigger() -> None:
    one = ContainerTrigger(container="x", docker_conn_id="engine", poll_interval=7.0)
    path, arguments = json.loads(json.dumps(one.serialize()))
    assert path == "airflow_mlops.triggers.docker.ContainerTrigger"
    assert list(ContainerTrigger(**arguments).serialize()) == [path, arguments]


def test_lines_come_while_it_waits_and_the_event_says_which_was_the_last(start: Any, caplog: Any) -> None:
    trigger = start("import time; print('first'); time.sleep(1); print('last')")

    async def run() -> tuple[bool, dict[str, Any]]:
        waiting = asyncio.ensure_future(anext(trigger.run()))
        while "first" not in caplog.messages:
            await asyncio.sleep(0.05)
        return waiting.done(), (await waiting).payload

    with caplog.at_level(logging.INFO):
        early, event = asyncio.run(asyncio.wait_for(run(), 120))
    assert caplog.messages == ["first", "last"]
    assert not early
    assert event["container"] == trigger.container
    # So the task shows no line again.
    assert event["seen"].startswith("20")


def test_a_container_that_somebody_removed_is_an_error_of_the_task(start: Any, docker_engine: Engine) -> None:
    trigger = start("")
    docker_engine.command("rm", "-f", trigger.container)
    error = from_dict(event_of(trigger)["error"])
    assert isinstance(error, ContainerLostError)
    assert error.retryable


def test_an_engine_may_be_away_for_a_while(
    start: Any, docker_engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    trigger = start("print('went on')")
    use(monkeypatch, NOWHERE)

    async def sleep(seconds: float, wait: Any = asyncio.sleep) -> None:
        use(monkeypatch, docker_engine.url)
        await wait(seconds)

    monkeypatch.setattr(docker.asyncio, "sleep", sleep)
    with caplog.at_level(logging.INFO):
        assert event_of(trigger)["container"] == trigger.container
    assert any("does not answer" in one and one.endswith("looking again") for one in caplog.messages)
    assert caplog.messages[-1] == "went on"


def test_one_that_stays_away_is_told_to_the_task_and_the_container_goes_on(
    start: Any, docker_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = start("import time; time.sleep(600)")
    monkeypatch.setattr(docker, "AWAY_SECONDS", 0.3)
    use(monkeypatch, NOWHERE)
    error = from_dict(event_of(trigger)["error"])
    assert type(error) is CannotReachError
    assert docker_engine.client.inspect_container(trigger.container)["State"]["Running"]


def test_a_cancelled_task_removes_it(start: Any, docker_engine: Engine) -> None:
    trigger = start("import time; time.sleep(600)")
    asyncio.run(trigger.on_kill())
    wait_for(lambda: not docker_engine.client.containers(all=True, filters={"name": trigger.container}))
