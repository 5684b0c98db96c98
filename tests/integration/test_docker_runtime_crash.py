"""Workers and engines that die while a container trains: the next try finds it, and there is one run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from airflow_mlops.core.errors import CannotReachError, StoppedError
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.tracking import sqlite_uri
from airflow_mlops.runtimes.base import Job
from airflow_mlops.runtimes.docker import DockerRuntime
from servers.docker import Engine
from servers.docker_steps import on_engine as on_engine
from servers.docker_steps import ours as ours
from servers.docker_steps import wait_for

pytestmark = pytest.mark.usefixtures("on_engine")

#: It counts its starts, and waits until it may end.
TRAINER = """
import os, time
from pathlib import Path
from sklearn.linear_model import LogisticRegression

def train(X, y, *, folder):
    with open(f"{folder}/starts", "a") as starts:
        starts.write("x")
    while not os.path.exists(f"{folder}/go"):
        time.sleep(0.1)
    print("went on")
    return LogisticRegression().fit(X, y)
"""

#: What a worker does, in a process that may be killed.
WORKER = """
import json, logging, sys
log = logging.Logger("worker")
log.addHandler(logging.StreamHandler(sys.stderr))
from airflow_mlops.runtimes.base import Job
from airflow_mlops.runtimes.docker import DockerRuntime
given = json.load(open(sys.argv[1]))
job = Job(given["spec"], {}, tuple(given["code"]))
result = DockerRuntime(given["runtime"]).run(job, log)
sys.stdout.write(json.dumps(result))
"""


@pytest.fixture
def home(tmp_path: Path, migrated_database: Path) -> Path:
    """Rows, a trainer, a store and an MLflow of the test's own."""
    for name in ("code", "home/store"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(migrated_database, tmp_path / "home" / "mlflow.db")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2)), columns=["a", "b"])
    frame.assign(y=(frame["a"] > 0).astype(int)).to_parquet(tmp_path / "rows.parquet", index=False)
    (tmp_path / "code" / "patient.py").write_text(TRAINER)
    return tmp_path


def job_of(home: Path, **args: Any) -> Job:
    arguments = {
        "dataset": str(home / "rows.parquet"),
        "target": "y",
        "trainer": "patient:train",
        "hyperparameters": {"folder": str(home / "home" / "store")},
    }
    spec = {
        "step": "train_model",
        "args": {**arguments, **args},
        "store": (home / "home" / "store").as_uri(),
        "tracking_uri": sqlite_uri(home / "home" / "mlflow.db"),
        "key": f"etl/{home.name}/train/-1",
        "run": {"dag_id": "etl", "run_id": home.name, "task_id": "train", "map_index": -1},
    }
    return Job(spec, {}, (str(home / "code"),))


class Worker:
    """A worker in a process of its own."""

    def __init__(self, home: Path, job: Job, image: str, **environment: str) -> None:
        path = home / "job.json"
        path.write_text(json.dumps({"spec": job.spec, "code": job.code, "runtime": {"image": image}}))
        self.said = home / f"said-{time.monotonic_ns()}"
        self.result_path = self.said.with_suffix(".result")
        with self.said.open("w") as said, self.result_path.open("w") as result:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER, str(path)],
                env={**os.environ, **environment},
                stdout=result,
                stderr=said,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Return the exit code once it has ended."""
        return self.process.wait(120)

    def result(self) -> dict[str, Any]:
        assert self.end() == 0, self.said.read_text()
        found: dict[str, Any] = json.loads(self.result_path.read_text())
        return found


@pytest.fixture
def worker(home: Path, ml_image: str) -> Iterator[Callable[..., Worker]]:
    """Start workers; those that still run in the end are killed."""
    started: list[Worker] = []

    def start(job: Job, **environment: str) -> Worker:
        started.append(Worker(home, job, ml_image, **environment))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def starts(home: Path) -> str:
    path = home / "home" / "store" / "starts"
    return path.read_text() if path.exists() else ""


def go(home: Path) -> None:
    (home / "home" / "store" / "go").touch()


def runs(home: Path) -> list[Any]:
    uri = sqlite_uri(home / "home" / "mlflow.db")
    client = MlflowClient(uri, uri)
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()]))


def one_finished_run(home: Path, found: dict[str, Any]) -> None:
    """Check that MLflow has what one undisturbed training leaves."""
    made = runs(home)
    assert [run.info.status for run in made] == ["FINISHED"]
    assert made[0].info.run_id == found["run_id"]
    assert len(made[0].outputs.model_outputs) == 1


class TestWorkerKilled:
    def test_the_retry_waits_for_the_container_that_trains(self, home: Path, worker: Any, ours: Any) -> None:
        first = worker(job_of(home))
        wait_for(lambda: starts(home))
        first.kill()
        assert [one["State"] for one in ours()] == ["running"]
        container = ours()[0]["Id"]
        second = worker(job_of(home))
        wait_for(lambda: "of an earlier try, which runs since" in second.said.read_text())
        assert [one["Id"] for one in ours()] == [container]
        go(home)
        one_finished_run(home, second.result())
        assert starts(home) == "x"
        assert ours() == []
        # What was said before the crash is in the new try's log too.
        assert "Fitting patient:train" in second.said.read_text()
        assert "went on" in second.said.read_text()

    def test_the_retry_takes_the_result_of_one_that_has_ended(self, home: Path, worker: Any, ours: Any) -> None:
        first = worker(job_of(home))
        wait_for(lambda: starts(home))
        first.kill()
        go(home)
        wait_for(lambda: [one for one in ours() if one["State"] == "exited"])
        second = worker(job_of(home))
        one_finished_run(home, second.result())
        assert "which has ended: taking its result" in second.said.read_text()
        assert starts(home) == "x"
        assert ours() == []

    @pytest.mark.parametrize("point", CRASH_POINTS["docker_runtime"])
    def test_at_each_crash_point(self, home: Path, worker: Any, ours: Any, point: str) -> None:
        go(home)
        first = worker(job_of(home), **{VARIABLE: point})
        assert first.end() == -signal.SIGKILL
        one_finished_run(home, worker(job_of(home)).result())
        assert starts(home) == "x"
        assert ours() == []

    def test_another_spec_ends_the_container_of_the_first(self, home: Path, worker: Any, ours: Any) -> None:
        first = worker(job_of(home))
        wait_for(lambda: starts(home))
        first.kill()
        before = ours()[0]["Id"]
        (home / "code" / "patient.py").write_text(TRAINER.replace("went on", "mended"))
        second = worker(job_of(home))
        wait_for(lambda: len(starts(home)) == 2)
        assert [one["State"] for one in ours()] == ["running"]
        assert ours()[0]["Id"] != before
        go(home)
        second.result()
        assert "mended" in second.said.read_text()
        assert ours() == []

    def test_two_tries_at_once_share_one_container(self, home: Path, worker: Any, ours: Any) -> None:
        both = [worker(job_of(home)), worker(job_of(home))]
        wait_for(lambda: starts(home))
        wait_for(lambda: any("an earlier try, which runs since" in one.said.read_text() for one in both))
        assert len(ours()) == 1
        go(home)
        # One of them may see the container removed by the other; the run is one in any case.
        assert 0 in [one.end() for one in both]
        assert [run.info.status for run in runs(home)] == ["FINISHED"]
        assert starts(home) == "x"
        assert ours() == []


class TestEngineRestarted:
    @pytest.fixture
    def own(self, docker_engine: Engine) -> Engine:
        if not docker_engine.own:
            pytest.skip(
                "the engine of this machine is not the tests' to stop; without DOCKER_HOST they start their own"
            )
        return docker_engine

    def test_a_restart_fails_the_try_and_the_retry_goes_on_with_the_run(
        self, home: Path, own: Engine, ml_image: str, ours: Any
    ) -> None:
        failed: list[BaseException] = []
        said: list[str] = []

        def run() -> None:
            try:
                DockerRuntime({"image": ml_image}).run(job_of(home), listening(said))
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        wait_for(lambda: starts(home))
        own.restart()
        thread.join()
        assert isinstance(failed[0], CannotReachError)
        assert "was ended from outside before its step was done" in str(failed[0])
        assert ours() == []
        go(home)
        one_finished_run(home, DockerRuntime({"image": ml_image}).run(job_of(home), listening(said)))
        assert starts(home) == "xx"

    def test_an_engine_that_stays_away_says_so_and_keeps_the_container(
        self, home: Path, own: Engine, ml_image: str, ours: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_mlops.runtimes.docker.AWAY_SECONDS", 1.0)
        failed: list[BaseException] = []

        def run() -> None:
            try:
                DockerRuntime({"image": ml_image}).run(job_of(home), listening([]))
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        wait_for(lambda: starts(home))
        own.stop()
        try:
            thread.join()
            assert isinstance(failed[0], CannotReachError)
            assert "does not answer" in str(failed[0])
            assert "a retry waits for it if it still runs" in str(failed[0])
            with pytest.raises(CannotReachError, match="systemctl status docker"):
                DockerRuntime({"image": ml_image}).run(job_of(home), listening([]))
        finally:
            own.start()
        go(home)
        one_finished_run(home, DockerRuntime({"image": ml_image}).run(job_of(home), listening([])))
        assert ours() == []


class TestCancelled:
    def test_the_container_is_gone(self, home: Path, ml_image: str, ours: Any) -> None:
        runtime = DockerRuntime({"image": ml_image})
        cancel = threading.Thread(target=lambda: (wait_for(lambda: starts(home)), runtime.cancel()))
        cancel.start()
        with pytest.raises(StoppedError, match="the task was cancelled"):
            runtime.run(job_of(home), listening([]))
        cancel.join()
        assert ours() == []


def listening(said: list[str]) -> Any:
    import logging

    log = logging.Logger("listening")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    return log
