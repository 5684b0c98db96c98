"""Real models served by processes of this machine, deployed to by the step as a task runs it."""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.alerts.step import alert
from airflow_mlops.core.errors import CannotReachError, ConflictError, IntegrityError, SupersededError
from airflow_mlops.core.registry import overview
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.serving import capture
from airflow_mlops.core.serving.deploy import deploy_model
from airflow_mlops.core.serving.gateway import Settings
from airflow_mlops.core.serving.serve import serve
from airflow_mlops.core.serving.state import ServerState
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri
from servers.docker_steps import wait_for
from servers.models import log_model
from servers.s3 import free_port


@dataclass
class Site:
    """What ``airflow mlops serve`` owns, and tasks that deploy to it."""

    context: StepContext
    folder: Path
    port: int
    models: dict[str, dict[str, Any]]

    def deploy(self, model: Any, task: str, server: str = "flights", **more: Any) -> dict[str, Any]:
        """Deploy as a task of that name does."""
        capture = {"flush_seconds": 0.2}
        context = dataclasses.replace(self.context, key=f"etl/r/{task}/-1")
        return deploy_model(context, model=model, server=server, **{"capture": capture, **more})

    def ask(self, rows: list[float], server: str = "flights", key: str = "") -> tuple[int, Any]:
        """Ask through the gateway, in somebody's name."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json", **({"X-Key": key} if key else {})}
        body = json.dumps({"dataframe_split": {"columns": ["a"], "data": [[a] for a in rows]}})
        try:
            connection.request("POST", f"/{server}/invocations", body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()


@pytest.fixture(scope="module")
def site(migrated_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Some models, and the process's loop in a thread."""
    folder = tmp_path_factory.mktemp("serving")
    (folder / "mlflow.db").write_bytes(migrated_database.read_bytes())
    context = StepContext(
        store=LocalStore(folder / "store"),
        tracking_uri=sqlite_uri(folder / "mlflow.db"),
        run={"dag_id": "etl", "run_id": "r", "task_id": "deploy", "map_index": -1},
    )
    kinds = {"good": 0.0, "better": 0.5, "wrong": 1.0, "slow": 2.0, "crash": 3.0}
    models = {
        name: log_model(context, folder / "code", value, name if name in ("wrong", "slow", "crash") else "good")
        for name, value in kinds.items()
    }
    site = Site(context, folder, free_port(), models)
    with running(site):
        yield site


class running:  # noqa: N801 - reads as a word
    """Run the loop while the block lasts."""

    def __init__(self, site: Site) -> None:
        self.site, self.stop, self.errors = site, threading.Event(), []  # type: ignore[var-annotated]

    def __enter__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        heartbeat = self.site.context.store.root / "serving" / "reconciler.json"
        wait_for(lambda: self.errors or heartbeat.exists())

    def __exit__(self, *_: Any) -> None:
        self.stop.set()
        self.thread.join()
        assert not self.errors, self.errors

    def _run(self) -> None:
        settings = Settings(bind=f"127.0.0.1:{self.site.port}")
        try:
            serve(self.site.context, self.site.folder / "serving", settings, stop=self.stop)
        except Exception as error:
            self.errors.append(error)


def test_a_model_is_deployed_once_and_serves(site: Site) -> None:
    report = site.deploy(site.models["good"], "deploy")
    assert (report["kind"], report["passed"], report["checks"]) == ("deployment", True, {"total": 3, "failed": 0})
    assert report["address"] == f"http://127.0.0.1:{site.port}/flights"
    assert report["subject"] == site.models["good"]["digest"]
    assert site.ask([1.0, 2.5]) == (200, {"predictions": [2.0, 5.0]})
    again = site.deploy(site.models["good"], "deploy")
    assert (again["seq"], again["report_uri"]) == (report["seq"], report["report_uri"])
    page = site.context.store.get_bytes(site.context.store.key_of(again["report_uri"])).decode()
    assert "Checks before any traffic" in page


def test_a_better_one_takes_over_and_an_old_run_does_not_undo_it(site: Site) -> None:
    site.deploy(site.models["good"], "deploy")
    report = site.deploy(site.models["better"], "deploy_better")
    assert report["previous"]["uri"] == site.models["good"]["uri"]
    assert site.ask([1.0]) == (200, {"predictions": [2.5]})
    with pytest.raises(SupersededError, match="superseded by deployment 2"):
        site.deploy(site.models["good"], "deploy")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("wrong", "2 of 2 predictions differ from those that the same files give without a server"),
        ("slow", "p95 of 5 requests is 3"),
        ("crash", "does not answer /invocations"),
    ],
)
def test_a_bad_one_never_gets_a_request(site: Site, kind: str, reason: str) -> None:
    before = site.deploy(site.models["better"], f"before_{kind}")
    checks = [{"kind": "example"}, {"kind": "offline"}, {"kind": "latency", "p95_ms": 250, "requests": 5}]
    report = site.deploy(site.models[kind], f"deploy_{kind}", checks=checks)
    assert not report["passed"]
    assert reason in str(report["failures"]) + report["summary"]
    assert "goes on serving" in report["summary"]
    assert site.ask([1.0]) == (200, {"predictions": [2.5]})
    state = ServerState(site.context.store, "flights")
    assert state.live().seq == before["seq"]  # type: ignore[union-attr]
    # Cleared on purpose, the task tries anew.
    assert state.last() == report["seq"]


def test_requests_and_answers_are_captured(site: Site) -> None:
    import pandas as pd

    report = site.deploy(site.models["better"], "captured")
    since = pd.Timestamp.now(tz="UTC")
    site.ask([7.0, 8.0])

    def captured() -> Any:
        return capture.read(site.context.store, "flights", since=since)

    wait_for(lambda: (found := captured()) is not None and len(found) == 2)
    rows = captured()
    assert rows["a"].tolist() == [7.0, 8.0]
    assert rows["prediction"].tolist() == [14.5, 16.5]
    assert set(rows["prediction_digest"]) == {report["model"]["digest"]}
    assert rows["prediction_key"].is_unique


def test_a_canary_is_held_against_its_own_files_and_stays_with_those_who_met_it(site: Site, tmp_path: Path) -> None:
    late = register_model(site.context, model=log_model(site.context, tmp_path, 0.5, "late_wrong"), model_name="late")
    site.deploy(site.models["good"], "before", server="canary", checks=[])
    answers: dict[int, list[float]] = {}
    stop = threading.Event()

    def users() -> None:
        for n in itertools.cycle(range(100)):
            if stop.is_set():
                return
            time.sleep(0.01)
            status, found = site.ask([1.0], "canary", f"user {n}")
            answers.setdefault(n, []).append(found["predictions"][0] if status == 200 else -1)

    asking = threading.Thread(target=users)
    asking.start()
    try:
        # 58 good requests are enough for a step; its answers are wrong from the ninth on.
        canary = {"steps": [40], "interval": 1, "max_latency_ratio": 1000}
        given: dict[str, Any] = {"server": "canary", "checks": [], "strategy": "canary", "canary": canary}
        bad = site.deploy(late, "late", **given)
        met = {n for n, found in answers.items() if {2.5, 3.5} & {*found}}
        assert 20 < len(met) < 60
        answers.clear()
        good = site.deploy(site.models["better"], "better", **given)
    finally:
        stop.set()
        asking.join()
    assert (bad["passed"], bad["severity"]) == (False, "warning")
    assert "are not what its own files predict for the same rows" in bad["summary"]
    assert "goes on serving" in bad["summary"]
    (row,) = overview.history(site.context, "late")
    assert (row["action"], row["version"], row["state"]) == ("canary", 1, "rolled_back")
    tags = RegisteredModel(site.context, "late").version(1).tags
    assert tags["mlops.deployment.canary"].startswith("rolled back (deployment 2): ")
    # Whoever is told of it by an alert is told in the digest.
    alerted = alert(site.context, reports=bad, subject="late")
    assert [one["channel"] for one in alerted["incidents"]] == ["digest"]
    # Nor is it released by anybody who gives that report as evidence.
    refused = promote_model(site.context, model="models:/late/1", evidence=[bad], refuse="return")
    assert refused["kind"] == "refusal"
    assert refused["reason"].startswith("the deployment did not pass: ")
    assert "None" not in refused["reason"]
    assert good["passed"], good["summary"]
    released = promote_model(site.context, model=site.models["better"], to_name="better", evidence=[good])
    assert released["evidence"][0]["kind"] == "deployment"
    details = site.context.store.get_json(str(site.context.store.key_of(good["details_uri"])))
    (step,) = details["canary"]["steps"]
    assert (step["passed"], step["disagreeing"], step["errors"]) == (True, 0, 0)
    assert step["compared_requests"] >= 48
    # Who has met the new one does not meet the old one any more.
    assert all(found == sorted(found) for found in answers.values())
    assert set().union(*answers.values()) == {2.0, 2.5}


def test_a_server_that_dies_is_started_again(site: Site) -> None:
    import os
    import signal

    site.deploy(site.models["better"], "dies")
    command = f"{site.folder}/serving/servers/flights".encode()
    (pid,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if command in _read(path) and b"serving.server" in _read(path)
    ]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: site.ask([1.0]) == (200, {"predictions": [2.5]}))


def test_two_deployments_at_once(site: Site) -> None:
    outcomes: dict[str, Any] = {}
    barrier = threading.Barrier(2)

    def deploy(name: str) -> None:
        barrier.wait()
        try:
            outcomes[name] = site.deploy(site.models[name], f"race_{name}", server="race", checks=[])["state"]
        except ConflictError as error:
            outcomes[name] = error.message

    threads = [threading.Thread(target=deploy, args=(name,)) for name in ("good", "better")]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(outcomes.values(), key=len)[0] == "live"
    assert "the server 'race' is busy: deployment 1" in sorted(outcomes.values(), key=len)[1]


def test_files_that_were_changed_are_not_served(site: Site, tmp_path: Path) -> None:
    ref = {**log_model(site.context, tmp_path / "code", 9.0), "digest": f"sha256:{'0' * 64}"}
    with pytest.raises(IntegrityError, match="carries digest"):
        site.deploy(ref, "changed")


def test_where_nobody_serves_the_task_says_how_to(site: Site, store: LocalStore) -> None:
    context = dataclasses.replace(site.context, store=store)
    with pytest.raises(CannotReachError, match=r"airflow mlops serve` does not run\. Start it"):
        deploy_model(context, model=site.models["good"], server="flights", trust="unverified")
    assert list(store.keys()) == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
