"""Where the demo serves its models: containers where an engine has an image for them, processes where not, and why."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from servers.docker import Engine

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the demo look at an engine, and return what it found and the connection that it made."""
    from demo_serving import Serving

    for name in ("MLOPS_DEMO_IMAGE", "PYTHON_IMAGE"):
        monkeypatch.delenv(name, raising=False)

    def look(url: str, **environment: str) -> tuple[Serving, dict[str, Any]]:
        for name, value in {"DOCKER_HOST": url, **environment}.items():
            monkeypatch.setenv(name, value)
        made: list[Any] = []
        airflow: Any = SimpleNamespace(
            home=tmp_path, environment={}, ports={"models": 8600}, api=lambda *call: made.append(call)
        )
        serving = Serving(airflow)
        serving.look()
        serving._thread.join()
        serving.decide()
        assert airflow.environment["AIRFLOW__MLOPS__SERVER_CONN_ID"] == made[0][2]["connection_id"]
        again = Serving(airflow)
        again.recall()
        assert (again.image, again.why) == (serving.image, serving.why)
        return serving, made[0][2]

    return look


def test_without_an_engine_by_processes(demo: Any, capsys: pytest.CaptureFixture[str]) -> None:
    serving, connection = demo("unix:///no/engine.sock")
    assert serving.image == ""
    assert '"backend": "processes"' in connection["extra"]
    said = "Models are served by processes of this machine: no Docker Engine answers at unix:///no/engine.sock."
    assert said in capsys.readouterr().out
    serving.forget()  # nothing to remove, and nobody to ask


def test_an_engine_that_has_nothing_to_serve_with_is_passed_over(
    demo: Any, docker_engine: Engine, base_image: str
) -> None:
    serving, _ = demo(docker_engine.url, PYTHON_IMAGE="no/such-python:1")
    assert "has no image airflow-mlops-demo:latest, nor no/such-python:1 to make one from" in serving.why
    serving, connection = demo(docker_engine.url, MLOPS_DEMO_IMAGE=base_image)
    assert f"its image {base_image} cannot serve models" in serving.why
    assert "No package metadata" in serving.why
    assert '"backend": "processes"' in connection["extra"]


def test_an_image_that_cannot_be_made_is_passed_over(demo: Any, docker_engine: Engine, base_image: str) -> None:
    """The base image of the tests has no pip."""
    serving, _ = demo(docker_engine.url, PYTHON_IMAGE=base_image)
    assert (serving.image, f"cannot be made from {base_image}" in serving.why) == ("", True), serving.why


def test_an_engine_that_has_an_image_is_used(demo: Any, docker_engine: Engine, ml_image: str) -> None:
    serving, connection = demo(docker_engine.url, MLOPS_DEMO_IMAGE=ml_image)
    assert (serving.image, f"runs, and has the image {ml_image}" in serving.why) == (ml_image, True), serving.why
    assert (connection["port"], '"backend": "docker"' in connection["extra"]) == (8600, True)
    assert docker_engine.command("ps", "--all", "--quiet", "--filter", f"ancestor={ml_image}").stdout == ""
