"""ModelServerHook: from a connection to where servers run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import CannotReachError, SpecError
from airflow_mlops.hooks.model_server import ModelServerHook
from servers.serving import World
from servers.serving import world as world


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Define the connection ``gateway``; returns its hook."""
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "mlops"))

    def define(**fields: Any) -> ModelServerHook:
        monkeypatch.setenv("AIRFLOW_CONN_GATEWAY", json.dumps({"conn_type": "model_server", **fields}))
        return ModelServerHook("gateway")

    return define


def test_it_asks_through_the_gateway(connection: Any, world: World) -> None:
    world.deploy("a")
    hook = connection(host="127.0.0.1", port=world.port)
    assert hook.served("flights")["deployment"] == "1"
    assert hook.test_connection() == (True, f"The gateway answers at 127.0.0.1:{world.port}")
    with pytest.raises(SpecError, match="/nobody/model answers 404: there is no such server"):
        hook.served("nobody")


def test_containers_need_a_folder_and_an_image(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/some.sock")
    extra = {"backend": "docker", "gateway_folder": "/srv/gateway", "image": "models:1", "memory": "1g"}
    place = connection(host="gateway", port=8600, extra=extra).place
    assert (place.backend, place.gateway, place.image, place.url) == (
        *("docker", "/srv/gateway", "models:1"),
        "http://gateway:8600",
    )
    assert place.user == f"{os.getuid()}:{os.getgid()}"
    assert place.engine["url"] == "unix:///run/some.sock"
    for key in ("gateway_folder", "image"):
        with pytest.raises(SpecError, match=f"no '{key}' in its extra"):
            _ = connection(host="g", extra={name: value for name, value in extra.items() if name != key}).place


def test_the_configuration_may_name_a_connection_beside_the_embedded_back_end(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection(host="127.0.0.1", port=8600)
    assert ModelServerHook().connection is None
    monkeypatch.setenv("AIRFLOW__MLOPS__SERVER_CONN_ID", "gateway")
    assert ModelServerHook().place.url == "http://127.0.0.1:8600"


def test_what_no_gateway_could_be(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="has an extra field 'imge'; did you mean 'image'"):
        _ = connection(host="g", extra={"imge": "x"}).place
    with pytest.raises(SpecError, match="backend must be 'processes' or 'docker', got 'swarm'"):
        _ = connection(host="g", extra={"backend": "swarm"}).place
    with pytest.raises(SpecError, match="type 'http', expected 'model_server'"):
        _ = connection(conn_type="http", host="g").place
    with pytest.raises(CannotReachError, match="'nobody' cannot be had"):
        _ = ModelServerHook("nobody").place
    works, said = connection(host="127.0.0.1", port=1).test_connection()
    assert (works, "does not answer /gateway/health" in said) == (False, True)


def test_processes_are_refused_where_workers_may_sit_on_several_machines(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    with pytest.raises(SpecError, match="keeps files on one machine"):
        _ = connection(host="g").place
