"""Steps that tests run in containers, and what is left of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.runtimes.base import Job
from servers.docker import Engine

#: Python runs this module in each process that finds it, before the step.
HOOK = "sitecustomize.py"


@pytest.fixture
def on_engine(docker_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the runtime use the tests' engine."""
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """Make the job of a snapshot, of which ``first`` is run by the container's Python before anything else."""
    (tmp_path / "rows.csv").write_text("id,age\n1,41\n2,17\n3,33\n")

    def make(first: str = "", variables: dict[str, str] | None = None, dag: str = "etl", **args: Any) -> Job:
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        (code / HOOK).write_text(f"import sys\nif sys.argv[0] == '-m':\n    import os, time\n    {first or 'pass'}\n")
        spec = {
            "step": "snapshot_data",
            "args": {"source": str(tmp_path / "rows.csv"), "name": "people", **args},
            "store": (tmp_path / "store").as_uri(),
            "key": f"{dag}/{tmp_path.name}/snapshot/-1",
            "run": {"dag_id": dag, "run_id": tmp_path.name, "task_id": "snapshot", "map_index": -1},
        }
        return Job(spec, variables or {}, (str(code),))

    return make


@pytest.fixture
def ours(docker_engine: Engine, tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Return the containers of the test, running or not; none is left for others."""

    def found() -> list[dict[str, Any]]:
        return docker_engine.containers(f"airflow_mlops.run={tmp_path.name}")

    yield found
    for one in found():
        docker_engine.command("rm", "-f", one["Id"])


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Return the condition's first true value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")
