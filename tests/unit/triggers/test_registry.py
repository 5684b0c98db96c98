"""A moved alias in a real MLflow: each move is told of, and one poll serves many watchers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, TaskDeferred

from airflow_mlops.exceptions import MlopsFailed
from airflow_mlops.sensors.registry import ModelAliasSensor
from airflow_mlops.triggers import registry
from airflow_mlops.triggers.registry import ModelAliasEventTrigger, ModelAliasSensorTrigger
from servers.mlflow import start_mlflow, stop_mlflow
from triggering import AssetState, check_serialized, run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[str]:
    """An MLflow server."""
    url, process = start_mlflow(tmp_path_factory.mktemp("server"), migrated_database)
    yield url
    stop_mlflow(process)


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its client, behind the connection ``tracking``."""
    from mlflow import MlflowClient

    host, _, port = server.removeprefix("http://").partition(":")
    monkeypatch.setenv("AIRFLOW_CONN_TRACKING", json.dumps({"conn_type": "mlflow", "host": host, "port": int(port)}))
    return MlflowClient(tracking_uri=server, registry_uri=server)


def make(client: Any, name: str, versions: int = 3) -> str:
    client.create_registered_model(name)
    run = client.create_run("0")
    for _ in range(versions):
        client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    return name


def watcher(name: str, state: AssetState | None = None, **more: Any) -> ModelAliasEventTrigger:
    given = {"model_name": name, "mlflow_conn_id": "tracking", "poll_interval": 0.05, **more}
    trigger = ModelAliasEventTrigger(**given)
    if state is not None:
        trigger.asset_state_store = state  # type: ignore[assignment]
    return trigger


@pytest.mark.parametrize("kind", [ModelAliasSensorTrigger, ModelAliasEventTrigger])
def test_what_is_serialized_makes_the_same_trigger(kind: Any) -> None:
    one = kind(model_name="m", alias="staging", mlflow_conn_id="c", poll_interval=7.0)
    check_serialized(one, asset=kind is ModelAliasEventTrigger)


def test_each_move_is_told_of_also_one_back_and_one_after_a_removal(client: Any) -> None:
    name = make(client, "back")

    def point(version: int) -> None:
        client.set_registered_model_alias(name, "champion", str(version))

    def again() -> None:
        client.delete_registered_model_alias(name, "champion")

    point(1)
    events = run(watcher(name), lambda: point(2), lambda: point(1), lambda: point(2))
    assert [(one["previous_version"], one["version"]) for one in events] == [(None, 1), (1, 2), (2, 1), (1, 2)]
    assert len({one["id"] for one in events}) == 4
    assert events[1]["uri"] == "models:/back/2"
    assert events[1]["kind"] == "model_alias"

    async def removed() -> Any:
        stream = watcher(name, state).run()
        await asyncio.wait_for(anext(stream), 60)
        waiting = asyncio.ensure_future(anext(stream))
        again()
        for _ in range(6000):
            await asyncio.sleep(0.01)
            if '"version": null' in state.text:
                break
        point(2)
        return (await asyncio.wait_for(waiting, 60)).payload

    state = AssetState()
    assert asyncio.run(removed())["previous_version"] is None


def test_a_restart_goes_on_from_what_was_told(client: Any) -> None:
    name, state = make(client, "restart"), AssetState()
    client.set_registered_model_alias(name, "champion", "1")
    (first,) = run(watcher(name, state))
    (again,) = run(watcher(name, state))
    assert again["id"] == first["id"], "killed before it could write down what it told"
    one, two = run(watcher(name, state), lambda: client.set_registered_model_alias(name, "champion", "2"))
    assert (one["id"], two["version"]) == (first["id"], 2)
    (told,) = run(watcher(name, state))
    assert told["id"] == two["id"]


def test_many_watchers_share_one_poll(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a triggerer of Airflow 3.3 does it."""
    shared_stream = pytest.importorskip("airflow.triggers.shared_stream", reason="Airflow before 3.3 shares no polls")
    names = [make(client, f"many-{number}") for number in range(5)]
    for name in names:
        client.set_registered_model_alias(name, "champion", "3")
    looks: list[Any] = []

    def look(*arguments: Any, look: Any = registry._look) -> Any:
        looks.append(arguments)
        return look(*arguments)

    monkeypatch.setattr(registry, "_look", look)

    async def watch() -> list[Any]:
        manager = shared_stream.SharedStreamManager(log=shared_stream.log)
        waiting = []
        for number, name in enumerate(names):
            trigger = watcher(name, poll_interval=600.0)
            stream = manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
            waiting.append(asyncio.ensure_future(anext(trigger.filter_shared_stream(stream))))
        try:
            return [(await asyncio.wait_for(one, 120)).payload for one in waiting]
        finally:
            await manager.stop_all()

    events = asyncio.run(watch())
    assert [(one["model_name"], one["version"]) for one in events] == [(name, 3) for name in names]
    assert len(looks) == 1


def sensor(name: str, **more: Any) -> ModelAliasSensor:
    given = {"model_name": name, "mlflow_conn_id": "tracking", "poke_interval": 0.05, "timeout": 5.0}
    return ModelAliasSensor(**{"task_id": "wait", **given, **more})


def test_the_sensor_returns_the_same_deferred_or_not(client: Any) -> None:
    task = sensor("later", deferrable=True)
    with pytest.raises(TaskDeferred) as caught:
        task.execute({})
    name = make(client, "later")
    client.set_registered_model_alias(name, "champion", "1")
    event, end = run(caught.value.trigger, lambda: None)
    assert end == "end"
    found = getattr(task, caught.value.method_name)({}, event=event)
    assert found == sensor(name).execute({}) == sensor(name, deferrable=True).execute({})
    for more in ({"since": found}, {"since": "1"}, {"version": 2}):
        with pytest.raises(AirflowSensorTimeout):
            sensor(name, timeout=0.3, **more).execute({})
    client.set_registered_model_alias(name, "champion", "2")
    assert sensor(name, since=found, version="2").execute({})["previous_version"] == 1


def test_the_embedded_back_end_is_watched_too(
    tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    (tmp_path / "mlflow.db").write_bytes(migrated_database.read_bytes())
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    name = make(MlflowClient(tracking_uri=uri, registry_uri=uri), "here", versions=1)
    MlflowClient(tracking_uri=uri, registry_uri=uri).set_registered_model_alias(name, "champion", "1")
    (event,) = run(watcher(name, mlflow_conn_id=None))
    assert event["version"] == 1


def test_a_server_that_is_down_is_outlived_and_wrong_arguments_are_not(
    client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = make(client, "down")
    client.set_registered_model_alias(name, "champion", "1")
    good = registry._look
    failures = [registry.SpecError("first"), RuntimeError("surprise")]

    def look(*arguments: Any) -> Any:
        if failures:
            raise failures.pop(0)
        return good(*arguments)

    monkeypatch.setattr(registry, "_look", look)
    (event,) = run(watcher(name))
    assert event["version"] == 1
    assert "surprise" in caplog.text
    with pytest.raises(MlopsFailed, match="number of a version"):
        sensor(name, since="soon").execute({})
