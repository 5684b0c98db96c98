"""Containers under a real scheduler: what is left when triggerers and workers die, and when people stop tasks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from servers.docker import Engine
from servers.docker_steps import wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

pytestmark = pytest.mark.scheduler

DAG = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_mlops.operators.data import SnapshotDataOperator

for name, deferrable in (("waits_in_the_triggerer", True), ("waits_in_the_worker", False)):
    with DAG(name):
        SnapshotDataOperator(
            task_id="snapshot",
            source={rows!r},
            name="people",
            runtime={{"image": {image!r}, "docker_conn_id": "engine"}},
            deferrable=deferrable,
            retries=1,
            retry_delay=timedelta(0),
        )
"""

#: Python runs this module in the container before the step, which so tells when it starts, and waits.
HOOK = """
import sys
if sys.argv[0] == "-m":
    import os, time
    print("the step has begun", flush=True)
    with open({begun!r}, "a") as file:
        file.write("x")
    while not os.path.exists({go!r}):
        time.sleep(0.1)
"""


class Scheduled:
    """One Airflow with the two DAGs; each test has a run of its own, one after the other.

    :param folder: where containers say that they have begun, and wait for ``go``.
    """

    def __init__(self, airflow: Any, engine: Engine, folder: Path) -> None:
        self.airflow = airflow
        self.engine = engine
        self.begun, self.go = folder / "begun", folder / "go"

    def start(self, dag: str) -> str:
        """Start a run, wait until its container works, and return its id."""
        self.begun.unlink(missing_ok=True)
        self.go.unlink(missing_ok=True)
        self.airflow.wait_for_dag(dag)
        run: str = self.airflow.api("POST", f"/dags/{dag}/dagRuns", {"logical_date": None})["dag_run_id"]
        self.until(self.begun.exists)
        return run

    def task(self, dag: str, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.airflow.api("GET", f"/dags/{dag}/dagRuns/{run}/taskInstances/snapshot")
        return found

    def until(self, condition: Callable[[], Any]) -> None:
        try:
            wait_for(condition, 240)
        except AssertionError:
            raise AssertionError(self.airflow.log.read_text()[-6000:]) from None

    def until_state(self, dag: str, run: str, state: str) -> None:
        self.until(lambda: self.task(dag, run)["state"] == state)

    def containers(self, run: str) -> list[dict[str, Any]]:
        return self.engine.containers(f"airflow_mlops.run={run}")

    def kill(self, what: str) -> None:
        """Kill Airflow's processes of a kind, and give them no time to do anything about it."""
        children = psutil.Process(self.airflow.process.pid).children(recursive=True)
        lines = {}
        for one in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                lines[one] = " ".join(one.cmdline())
        found = [one for one, line in lines.items() if what in line]
        assert found, lines
        for one in found:
            one.kill()

    def logs(self, dag: str, run: str) -> str:
        folder = self.airflow.home / "logs" / f"dag_id={dag}" / f"run_id={run}"
        return "\n".join(file.read_text() for file in sorted(folder.rglob("*.log*")))


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory, docker_engine: Engine, ml_image: str) -> Iterator[Scheduled]:
    from airflow_home import Airflow

    folder = tmp_path_factory.mktemp("docker")
    dags, store = folder / "dags", folder / "home" / "mlops" / "store"
    dags.mkdir()
    store.mkdir(parents=True)
    (folder / "rows.csv").write_text("id,age\n1,41\n2,17\n3,33\n")
    (dags / "containers.py").write_text(DAG.format(rows=str(folder / "rows.csv"), image=ml_image))
    (dags / "sitecustomize.py").write_text(HOOK.format(begun=str(store / "begun"), go=str(store / "go")))
    airflow = Airflow(folder / "home", dags)
    connection = {"conn_type": "docker", "host": "registry.example.com", "extra": {"docker_url": docker_engine.url}}
    airflow.environment.update(
        {
            "AIRFLOW_CONN_ENGINE": json.dumps(connection),
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        }
    )
    with airflow.running():
        yield Scheduled(airflow, docker_engine, store)


def test_another_triggerer_goes_on_waiting_for_the_same_container(scheduled: Scheduled) -> None:
    dag = "waits_in_the_triggerer"
    run = scheduled.start(dag)
    scheduled.until_state(dag, run, "deferred")
    (before,) = scheduled.containers(run)
    scheduled.kill("triggerer")
    with (scheduled.airflow.home / "triggerer.log").open("ab") as log:
        other = subprocess.Popen(["airflow", "triggerer"], env=scheduled.airflow.environment, stdout=log, stderr=log)
    try:
        scheduled.go.touch()
        scheduled.until_state(dag, run, "success")
        assert scheduled.begun.read_text() == "x"
        assert scheduled.task(dag, run)["try_number"] == 1
        assert scheduled.containers(run) == []
        assert before["Names"][0].startswith("/airflow-mlops-snapshot-")
        assert "the step has begun" in scheduled.logs(dag, run)

        # Somebody marks the task as failed while it waits there.
        run = scheduled.start(dag)
        scheduled.until(lambda: "the step has begun" in scheduled.logs(dag, run))
        fail(scheduled, dag, run)
        scheduled.until(lambda: scheduled.containers(run) == [])
    finally:
        other.terminate()
        other.wait(60)


def test_a_task_that_is_marked_failed_while_its_worker_waits(scheduled: Scheduled) -> None:
    dag = "waits_in_the_worker"
    run = scheduled.start(dag)
    fail(scheduled, dag, run)
    scheduled.until(lambda: scheduled.containers(run) == [])


def test_the_retry_of_a_worker_that_was_killed_waits_for_the_same_container(scheduled: Scheduled) -> None:
    dag = "waits_in_the_worker"
    run = scheduled.start(dag)
    scheduled.kill(f"airflow worker -- {scheduled.task(dag, run)['id']}")
    scheduled.until(lambda: scheduled.task(dag, run)["try_number"] == 2)
    scheduled.until(lambda: "of an earlier try, which runs since" in scheduled.logs(dag, run))
    scheduled.go.touch()
    scheduled.until_state(dag, run, "success")
    assert scheduled.begun.read_text() == "x"
    assert scheduled.containers(run) == []


def fail(scheduled: Scheduled, dag: str, run: str) -> None:
    """Mark the task as failed, as people do in the UI."""
    scheduled.airflow.api("PATCH", f"/dags/{dag}/dagRuns/{run}/taskInstances/snapshot", {"new_state": "failed"})
