"""From a connection of type ``docker`` to the engine that is meant, and an engine's refusals in our words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError, DockerException

from airflow_mlops.core.errors import (
    CannotReachError,
    ConflictError,
    CredentialsError,
    MissingExtraError,
    NotFoundError,
    SpecError,
    UnsupportedError,
)
from airflow_mlops.runtimes.docker_engine import ContainerLostError, Engine, engine_errors, engine_of


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path))
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "AIRFLOW__MLOPS__BACKEND"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(conn_id: str = "engine", conn_type: str = "docker", **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": conn_type, **fields}))

    return make


class TestConnection:
    def test_it_names_the_engine_its_certificates_and_a_registry(self, connect: Any, tmp_path: Path) -> None:
        files = {f"tls_{name}": str(tmp_path / name) for name in ("ca_cert", "client_cert", "client_key")}
        for file in files.values():
            Path(file).touch()
        connect(host="registry.example.com", login="bot", extra={"docker_url": "tcp://gpu-box:2376", **files})
        found = engine_of("engine")
        assert (found.url, found.conn_id, found.login, found.local) == ("tcp://gpu-box:2376", "engine", True, False)
        pair = (files["tls_client_cert"], files["tls_client_key"])
        assert found.tls == {"ca_cert": files["tls_ca_cert"], "client_cert": pair, "verify": True}

    def test_without_an_address_it_is_the_engine_of_this_machine(
        self, connect: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(host="registry.example.com")
        assert engine_of("engine") == Engine("unix:///var/run/docker.sock", "engine")
        monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
        assert engine_of("engine").url == "unix:///run/user/1000/docker.sock"

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"conn_type": "ssh"}, "has type 'ssh', expected 'docker'"),
            ({"extra": {"docker_ulr": "tcp://x"}}, r"extra field 'docker_ulr'; did you mean 'docker_url'\?"),
            ({"extra": {"docker_url": "gpu-box:2376"}}, "must begin with unix:// or tcp://, got 'gpu-box:2376'"),
            ({"extra": {"tls_client_cert": "/x"}}, "both tls_client_cert and tls_client_key, or none"),
            ({"extra": {"tls_ca_cert": "/nowhere/ca.pem"}}, r"not on this worker: \['/nowhere/ca.pem'\]"),
        ],
    )
    def test_one_that_cannot_serve(self, connect: Any, fields: dict[str, Any], message: str) -> None:
        connect(**fields)
        with pytest.raises(SpecError, match=message):
            engine_of("engine")


class TestDefault:
    def test_on_the_embedded_back_end_it_is_this_machines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert engine_of(None) == Engine("unix:///var/run/docker.sock")
        monkeypatch.setenv("DOCKER_HOST", "tcp://box:2376")
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", "/certs")
        tls = {"ca_cert": "/certs/ca.pem", "client_cert": ("/certs/cert.pem", "/certs/key.pem"), "verify": True}
        assert engine_of(None) == Engine("tcp://box:2376", tls=tls)

    def test_unless_somebody_defined_docker_default(self, connect: Any) -> None:
        connect("docker_default", extra={"docker_url": "tcp://box:2375"})
        assert engine_of(None) == Engine("tcp://box:2375", "docker_default")

    def test_one_that_is_named_must_be_had_and_so_must_the_default_with_connections(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(CannotReachError, match=r"'nobody' cannot be had: .*the secrets back end"):
            engine_of("nobody")
        monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "connections")
        with pytest.raises(CannotReachError, match="'docker_default' cannot be had"):
            engine_of(None)


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "text", "error", "message"),
        [
            (500, "boom", CannotReachError, "the Docker Engine at tcp://box:2376 fails with 500: boom"),
            (409, 'Conflict. The container name "/x" is already in use', ConflictError, "already in use"),
            (409, "container is marked for removal", ContainerLostError, "removed while it was in use"),
            (404, "No such container: x", ContainerLostError, "no longer has the container"),
            (404, "network nowhere not found", NotFoundError, "docker network ls"),
            (401, "no", CredentialsError, "refuses the credentials"),
            (400, "invalid CPU count", SpecError, "refuses the container"),
            (500, 'could not select device driver "" with capabilities: [[gpu]]', UnsupportedError, "nvidia-ctk"),
            (400, "bind source path does not exist: /x", SpecError, "mount the folder at the same path"),
        ],
    )
    def test_a_refusal_names_its_cause_and_cure(self, status: int, text: str, error: Any, message: str) -> None:
        class Response:
            status_code = status
            reason = url = ""

        with pytest.raises(error, match=message), engine_errors(Engine("tcp://u:hush@box:2376")):
            raise APIError("refused", response=Response(), explanation=text)

    def test_one_that_does_not_answer_is_for_a_retry_and_shows_no_password(self) -> None:
        with (
            pytest.raises(CannotReachError, match="systemctl status docker") as caught,
            engine_errors(Engine("tcp://u:hush@box:2376", "engine")),
        ):
            raise DockerException("tcp://u:hush@box:2376 refused")
        assert caught.value.retryable
        assert "hush" not in str(caught.value)

    def test_without_airflows_provider_it_says_which_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "airflow.providers.docker.hooks.docker", None)
        with pytest.raises(MissingExtraError, match=r"airflow-provider-mlops\[docker\]"):
            Engine("unix:///x").client()
