"""``airflow mlops reap``, on a real engine: dry run first, and nobody's container that is still wanted."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.runtimes.docker import DockerRuntime
from servers.docker import Engine
from servers.docker_steps import job as job
from servers.docker_steps import on_engine as on_engine
from servers.docker_steps import ours as ours
from servers.docker_steps import wait_for

log = logging.getLogger("tests.reap")

pytestmark = pytest.mark.usefixtures("on_engine", "context")


@pytest.fixture
def reap(airflow: Any, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Run the command on the test's DAG; return the verdict by state."""

    def run(*words: str) -> dict[str, str]:
        code, printed = airflow("reap", "--dag", tmp_path.name, "--output", "json", *words)
        assert code == 0
        return {row["state"]: row["verdict"] for row in json.loads(printed)}

    return run


def test_what_has_ended_is_shown_first_and_removed_when_told(
    reap: Any, airflow: Any, job: Any, ours: Any, ml_image: str, tmp_path: Path
) -> None:
    # A worker that has started it and never comes back.
    DockerRuntime({"image": ml_image}).begin(job(dag=tmp_path.name), log)
    wait_for(lambda: [one["State"] for one in ours()] == ["exited"])
    assert reap() == {"exited": "too young"}
    assert reap("--delete") == {"exited": "too young"}
    assert reap("--grace", "0s") == {"exited": "would be removed"}
    assert "Dry run: 1 of 1 containers of steps on the Docker Engine at " in airflow.errors
    assert len(ours()) == 1
    assert reap("--grace", "0s", "--delete") == {"exited": "removed"}
    assert ours() == []
    assert reap() == {}


def test_what_runs_stays_until_it_is_asked_for(reap: Any, job: Any, ours: Any, ml_image: str, tmp_path: Path) -> None:
    DockerRuntime({"image": ml_image}).begin(job("time.sleep(600)", dag=tmp_path.name), log)
    assert reap("--grace", "0s", "--delete") == {"running": "it runs"}
    assert reap("--running", "--delete") == {"running": "too young"}
    assert len(ours()) == 1
    assert reap("--grace", "0s", "--running", "--delete") == {"running": "removed"}
    assert ours() == []


def test_what_was_kept_for_people_too(reap: Any, job: Any, ours: Any, ml_image: str, tmp_path: Path) -> None:
    DockerRuntime({"image": ml_image, "auto_remove": "never"}).run(job(dag=tmp_path.name), log)
    assert reap("--grace", "0s", "--delete") == {"exited": "kept for people"}
    assert len(ours()) == 1
    assert reap("--grace", "0s", "--kept", "--delete") == {"exited": "removed"}
    assert ours() == []


def test_containers_of_others_are_not_seen(airflow: Any, docker_engine: Engine, base_image: str) -> None:
    foreign = docker_engine.command("create", base_image, "true").stdout.strip()
    try:
        code, printed = airflow("reap", "--grace", "0s", "--running", "--kept", "--output", "json")
        assert code == 0
        assert foreign[:12] not in printed
        docker_engine.command("inspect", foreign)
    finally:
        docker_engine.command("rm", foreign)


def test_errors_are_one_line(airflow: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert airflow("reap", "--grace", "soon")[0].startswith("SpecError: --grace: 'soon' is not a duration")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    code, _ = airflow("reap")
    assert code.startswith(f"CannotReachError: the Docker Engine at unix://{tmp_path}/none.sock does not answer")
    assert len(code.splitlines()) == 1
