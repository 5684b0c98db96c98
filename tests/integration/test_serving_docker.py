"""Models in containers of a real engine, behind a real gateway; the step is run as a task runs it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import ConflictError
from airflow_mlops.core.faults import VARIABLE
from airflow_mlops.core.serving import capture
from airflow_mlops.core.serving.deploy import deploy_model
from airflow_mlops.core.serving.gateway import Gateway, Settings
from airflow_mlops.core.serving.places import Place
from airflow_mlops.core.serving.processes import GatewayProcess
from airflow_mlops.core.serving.state import ServerState
from airflow_mlops.core.serving.withdraw import withdraw
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri
from servers.docker import Engine
from servers.docker_steps import wait_for
from servers.models import log_model
from servers.s3 import free_port

KINDS = {"good": 0.0, "better": 0.5, "wrong": 1.0, "slow": 2.0, "crash": 3.0, "late_crash": 4.0, "late_wrong": 5.0}
#: Short enough to wait for. How fast a model is here says something of the machine, not of the model.
CANARY: dict[str, Any] = {"steps": [40], "interval": "2s", "min_requests": 15, "min_rows": 10, "max_latency_ratio": 1e3}


@dataclass
class Site:
    """A gateway, an engine, and tasks that deploy to it."""

    context: StepContext
    gateway: GatewayProcess
    port: int
    place: dict[str, Any]
    models: dict[str, dict[str, Any]]
    engine: Engine

    def deploy(self, model: str, task: str, **more: Any) -> dict[str, Any]:
        """Deploy as a task of that name does."""
        context = dataclasses.replace(self.context, key=f"etl/r/{task}/-1")
        settings = {"checks": [{"kind": "offline"}], "capture": {"flush_seconds": 0.2}, **more}
        return deploy_model(context, model=self.models[model], server="flights", place=self.place, **settings)

    def deploy_in_a_process(self, model: str, task: str, tmp_path: Path, crash_at: str = "") -> dict[str, Any] | None:
        """Deploy in a process of its own, which may die; return the report."""
        spec = {
            "step": "deploy_model",
            "args": {"model": self.models[model], "server": "flights", "place": self.place, "checks": []},
            "store": self.context.store.uri,
            "tracking_uri": self.context.tracking_uri,
            "key": f"etl/r/{task}/-1",
        }
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        (tmp_path / "report.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "airflow_mlops.core", "--spec", tmp_path / "spec.json"]
        done = subprocess.run(
            [*command, "--report", tmp_path / "report.json"], env={**os.environ, VARIABLE: crash_at}, check=False
        )
        if crash_at:
            assert done.returncode == -9, done
            return None
        found: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
        return found

    def ask(self, a: float = 1.0) -> Any:
        """Ask through the gateway; return the prediction, or the status of a failure."""
        body = json.dumps({"dataframe_split": {"columns": ["a"], "data": [[a]]}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/flights/invocations", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read())["predictions"][0]
        except urllib.error.HTTPError as error:
            return f"status {error.code}"
        except OSError as error:
            return f"error {error}"

    @property
    def live(self) -> int:
        """The number of the deployment that serves."""
        found = ServerState(self.context.store, "flights").live()
        assert found is not None
        return found.seq

    @property
    def containers(self) -> list[str]:
        """The numbers of the deployments that have a container."""
        found = self.engine.containers("airflow_mlops.server=flights")
        return sorted(one["Labels"]["airflow_mlops.deployment"] for one in found)


@dataclass
class Load:
    """Some requests a second until the block ends."""

    site: Site
    answers: list[Any] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.answers.append(self.site.ask())
            time.sleep(0.02)


@pytest.fixture(scope="module")
def site(
    docker_engine: Engine, ml_image: str, migrated_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """All of it, with nothing deployed."""
    folder = tmp_path_factory.mktemp("serving")
    (folder / "mlflow.db").write_bytes(migrated_database.read_bytes())
    context = StepContext(
        store=LocalStore(folder / "store"),
        tracking_uri=sqlite_uri(folder / "mlflow.db"),
        run={"dag_id": "etl", "run_id": "r", "task_id": "deploy", "map_index": -1},
    )
    models = {
        name: log_model(context, folder / "code", value, "good" if name == "better" else name)
        for name, value in KINDS.items()
    }
    port = free_port()
    gateway = GatewayProcess(Gateway(folder / "gateway", Settings(bind=f"127.0.0.1:{port}")), print)
    place = {
        "backend": "docker",
        "gateway": str(folder / "gateway"),
        "image": ml_image,
        "engine": {"url": docker_engine.url},
        "url": f"http://127.0.0.1:{port}",
        "user": f"{os.getuid()}:{os.getgid()}",
    }
    gateway.ensure()
    made = Site(context, gateway, port, place, models, docker_engine)
    try:
        yield made
    finally:
        gateway.close()
        for one in docker_engine.containers("airflow_mlops.server=flights"):
            docker_engine.command("rm", "-f", one["Id"])


def test_a_container_takes_over_from_another_without_a_failed_request(site: Site) -> None:
    first = site.deploy("good", "first", capture={"flush_seconds": 3600})
    assert first["passed"], first["summary"]
    assert site.ask(3.0) == 6.0
    (container,) = site.engine.containers("airflow_mlops.server=flights")
    assert "docker-init" in site.engine.command("top", container["Id"], "-o", "pid,args").stdout, "reaps zombies"
    with Load(site) as load:
        second = site.deploy("better", "second")
    assert second["passed"], second["summary"]
    assert set(load.answers) == {2.0, 2.5}
    assert site.containers == [str(second["seq"])]
    # Told to end, it wrote what it had captured, which it would have kept for an hour.
    rows = capture.read(site.context.store, "flights", deployment=first["seq"])
    assert {2.0, 6.0} <= set(rows["prediction"])
    wait_for(lambda: capture.read(site.context.store, "flights", deployment=second["seq"]) is not None)
    rows = capture.read(site.context.store, "flights", deployment=second["seq"])
    assert set(rows["prediction_digest"]) == {site.models["better"]["digest"]}


def test_an_engine_that_restarts_has_the_model_back_by_itself(site: Site) -> None:
    if not site.engine.own:
        pytest.skip("the engine is not the tests' own")
    before = site.ask()
    site.engine.restart()
    wait_for(lambda: site.ask() == before)
    assert site.containers == [str(site.live)]


@pytest.mark.parametrize("point", ["deploy.started", "deploy.switched"])
def test_a_task_that_is_killed_and_tried_again_ends_as_one_clean_run(site: Site, tmp_path: Path, point: str) -> None:
    live, model = site.live, "better" if site.ask() == 2.0 else "good"
    with Load(site) as load:
        site.deploy_in_a_process(model, f"killed-{point}", tmp_path, crash_at=point)
        report = site.deploy_in_a_process(model, f"killed-{point}", tmp_path)
    assert report is not None
    assert report["passed"], report
    assert report["seq"] == live + 1
    assert site.containers == [str(report["seq"])]
    assert set(load.answers) <= {2.0, 2.5}


def test_one_that_crashes_is_taken_back(site: Site) -> None:
    live, answer = site.live, site.ask()
    report = site.deploy("crash", "crash", checks=[{"kind": "example"}])
    assert not report["passed"]
    assert "it ended while it was checked: its container ended (exit code 9)" in report["summary"]
    assert site.containers == [str(live)]
    assert site.ask() == answer


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("slow", "p95 of 5 requests is"), ("wrong", "predictions differ from those that the same files")],
)
def test_one_that_is_slow_or_answers_wrongly_never_gets_a_request(site: Site, kind: str, reason: str) -> None:
    live, answer = site.live, site.ask()
    # It sleeps 300 ms; how long a request takes beyond that is the machine's.
    checks = [{"kind": "latency", "p95_ms": 290, "requests": 5}] if kind == "slow" else [{"kind": "offline"}]
    with Load(site) as load:
        report = site.deploy(kind, kind, checks=checks)
    assert (report["passed"], reason in report["summary"]) == (False, True), report["summary"]
    assert (site.containers, site.live, set(load.answers)) == ([str(live)], live, {answer})


def test_of_two_deployments_at_once_one_wins_and_the_other_says_why(site: Site) -> None:
    outcomes: dict[str, Any] = {}
    barrier = threading.Barrier(2)

    def deploy(name: str) -> None:
        barrier.wait()
        try:
            outcomes[name] = site.deploy(name, f"race-{name}", checks=[])
        except ConflictError as error:
            outcomes[name] = error.message

    threads = [threading.Thread(target=deploy, args=(name,)) for name in ("good", "better")]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    (winner,) = [one for one in outcomes.values() if isinstance(one, dict)]
    (loser,) = [one for one in outcomes.values() if isinstance(one, str)]
    assert winner["passed"], winner["summary"]
    assert f"the server 'flights' is busy: deployment {winner['seq']} " in loser
    assert site.containers == [str(winner["seq"])]


def test_a_canary_whose_deferred_task_is_cancelled_gets_nothing_any_more(site: Site) -> None:
    live, answer = site.live, site.ask()
    model = "better" if answer == 2.0 else "good"
    slow = {**CANARY, "interval": "10m"}
    more: dict[str, Any] = {"strategy": "canary", "canary": slow, "wait": False}
    with Load(site) as load:
        while site.gateway.gateway.slots()["flights"][_slot(site, live + 1)].weight != 40:
            assert site.deploy(model, "cancelled", **more)["kind"] == "deployment_wait"
        wait_for(lambda: {2.0, 2.5} <= set(load.answers))
        # As the trigger does, in another process than the task's.
        context = dataclasses.replace(site.context, key="")
        assert withdraw(context, "flights", Place.of(site.place), seconds=300, seq=live + 1)
        load.answers.clear()
        time.sleep(0.5)
    assert (set(load.answers), site.containers, site.live) == ({answer}, [str(live)], live)


def _slot(site: Site, seq: int) -> str:
    """The place of a deployment at the gateway; of none yet, one with no weight."""
    state = ServerState(site.context.store, "flights")
    live = state.live()
    assert live is not None
    return state.read(seq).slot if state.last() >= seq else ("green" if live.slot == "blue" else "blue")


def test_a_canary_that_turns_bad_goes_back_without_a_failed_request(site: Site) -> None:
    live = site.live
    with Load(site) as load:
        wrong = site.deploy("late_wrong", "wrong", strategy="canary", canary=CANARY)
    assert "answers that it gave live are not what its own files predict" in wrong["summary"]
    assert [one for one in load.answers if isinstance(one, str)] == []
    assert site.containers == [str(live)]


def test_a_canary_that_dies_takes_with_it_only_what_it_had_in_hand(site: Site) -> None:
    """What it was asked but had not read, the system resets, and the gateway does not ask that again."""
    live = site.live
    with Load(site) as load:
        dead = site.deploy("late_crash", "dead", strategy="canary", canary=CANARY)
        assert isinstance(site.ask(), float)
    assert not dead["passed"]
    assert "it ended as a canary" in dead["summary"] or "requests failed" in dead["summary"]
    assert len([one for one in load.answers if isinstance(one, str)]) < len(load.answers) / 4
    assert site.containers == [str(live)]


def test_a_canary_goes_through_although_the_gateway_restarts(site: Site) -> None:
    model = "better" if site.ask() == 2.0 else "good"
    outcome: list[Any] = []

    def deploy() -> None:
        canary = {**CANARY, "steps": [40, 60], "interval": "5s"}
        outcome.append(site.deploy(model, "restarted", strategy="canary", canary=canary))

    deploying = threading.Thread(target=deploy)
    deploying.start()
    with Load(site) as load:
        wait_for(lambda: {2.0, 2.5} <= set(load.answers))
        site.gateway.close()
        site.gateway.ensure()
        load.answers.clear()
        wait_for(lambda: {2.0, 2.5} <= set(load.answers))
        deploying.join()
    (report,) = outcome
    assert report["passed"], report["summary"]
    steps = _details(site, report)["canary"]["steps"]
    assert [one["weight"] for one in steps] == [40, 60]
    assert all(one["rows"] >= CANARY["min_rows"] for one in steps)
    assert site.containers == [str(report["seq"])]


def _details(site: Site, report: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = site.context.store.get_json(str(site.context.store.key_of(report["details_uri"])))
    return found
