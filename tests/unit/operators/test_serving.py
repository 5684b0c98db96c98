"""DeployModelOperator's shell: what reaches XCom, what is retried, and the wait in the triggerer."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

from airflow_mlops.core.serving import places
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri
from airflow_mlops.exceptions import MlopsFailed, MlopsGateFailed, MlopsSuperseded, MlopsUnavailable
from airflow_mlops.operators.serving import DeployModelOperator
from airflow_mlops.triggers.serving import DeploymentTrigger
from servers.docker_steps import wait_for
from servers.serving import Behaviour, World
from servers.serving import world as world


@pytest.fixture
def context(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> StepContext:
    """The embedded back end."""
    home = tmp_path / "mlops"
    home.mkdir()
    (home / "mlflow.db").write_bytes(migrated_database.read_bytes())
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(home))
    return StepContext(store=LocalStore(home / "store"), tracking_uri=sqlite_uri(home / "mlflow.db"))


@pytest.fixture
def serving(world: World) -> Iterator[World]:
    """Somebody who carries deployments out, as ``airflow mlops serve`` does."""
    stop = threading.Event()

    def run() -> None:
        driver = world.driver()
        while not stop.wait(0.02):
            driver.advance()

    places.beat(world.context.store, f"http://127.0.0.1:{world.port}")
    thread = threading.Thread(target=run)
    thread.start()
    yield world
    stop.set()
    thread.join()


def task(run_id: str = "r") -> Any:
    """What a task is given, as far as the operator reads it."""
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(dag_id="churn", run_id=run_id, task_id="t", map_index=-1, try_number=1, pushed=pushed)
    ti.xcom_push = lambda key, value: pushed.update({key: value})
    return {"ti": ti, "dag_run": SimpleNamespace(run_type="manual", triggering_user_name="ana")}


def deploy(model: Any, **more: Any) -> DeployModelOperator:
    return DeployModelOperator(task_id="t", model=model, server="flights", **{"checks": [], "capture": False, **more})


def test_the_report_reaches_xcom_and_says_where_it_answers(serving: World, log_model: Any) -> None:
    operator = deploy(log_model())
    report = operator.execute(task())
    assert (report["kind"], report["passed"], report["server"], report["seq"]) == ("deployment", True, "flights", 1)
    assert report["address"] == f"http://127.0.0.1:{serving.port}/flights"
    assert operator.link_urls["report"].endswith("report.html")
    json.dumps(report, allow_nan=False)
    intent = serving.state.read(1).intent
    assert (intent["by"], intent["key"]) == ("ana", "churn/r/t/-1")


def test_a_deployment_that_was_taken_back_fails_without_a_retry(serving: World, log_model: Any) -> None:
    deploy(log_model(weights="1")).execute(task("first"))
    serving.fleet.behaviour = Behaviour(deaf=True)
    context = task("second")
    with pytest.raises(MlopsGateFailed, match=r"did not answer /ping within 0.3 seconds; .* goes on serving"):
        deploy(log_model(weights="2"), start_timeout="0.3s").execute(context)
    assert context["ti"].pushed["return_value"]["passed"] is False
    context = task("third")
    with pytest.raises(AirflowSkipException, match="goes on serving"):
        deploy(log_model(weights="2"), start_timeout="0.3s", on_rollback="skip").execute(context)
    assert context["ti"].pushed["return_value"]["severity"] == "error"
    serving.fleet.behaviour = Behaviour()


def test_an_old_run_that_is_cleared_undoes_nothing(serving: World, log_model: Any) -> None:
    first, second = log_model(weights="1"), log_model(weights="2")
    deploy(first).execute(task("first"))
    deploy(second).execute(task("second"))
    with pytest.raises(MlopsSuperseded, match="superseded by deployment 2"):
        deploy(first).execute(task("first"))


def test_the_wait_takes_no_slot(serving: World, log_model: Any) -> None:
    operator, context = deploy(log_model(), deferrable=True), task()
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(context)
    path, arguments = caught.value.trigger.serialize()
    assert path.endswith("triggers.serving.DeploymentTrigger")
    json.dumps(arguments)
    again = type(caught.value.trigger)(**{**arguments, "seconds": 0.05})

    async def fired() -> Any:
        return (await asyncio.wait_for(anext(again.run()), 60)).payload

    event = asyncio.run(fired())
    assert event == {"server": "flights", "seq": 1}
    assert operator.execute_complete(context, event)["passed"]


def busy(serving: World, log_model: Any, run_id: str = "second", **more: Any) -> tuple[Any, Any, threading.Thread]:
    """Have one serve, and another try to that never answers; return its operator, its context and the try."""
    deploy(log_model(weights="1")).execute(task("first"))
    serving.fleet.behaviour = Behaviour(deaf=True)
    operator, given = deploy(log_model(weights="2"), **more), task(run_id)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            operator.execute(given)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.errors = errors  # type: ignore[attr-defined]
    thread.start()
    wait_for(lambda: (opened := serving.state.open()) is not None and opened.phase == "starting")
    return operator, given, thread


def test_a_task_that_is_cancelled_withdraws_its_deployment(serving: World, log_model: Any) -> None:
    operator, given, thread = busy(serving, log_model)
    operator.on_kill()
    thread.join()
    (error,) = thread.errors  # type: ignore[attr-defined]
    assert "it was withdrawn: its task was cancelled; models:/m-" in str(error)
    assert "goes on serving" in str(error)
    assert (serving.state.read(2).state, serving.ask(), serving.fleet.running("flights")) == (
        "rolled_back",
        (200, 1),
        [1],
    )
    # Cleared, it is another attempt.
    serving.fleet.behaviour = Behaviour()
    assert operator.execute(given)["seq"] == 3


def test_a_task_that_is_cancelled_too_early_or_too_late_changes_nothing(serving: World, log_model: Any) -> None:
    operator = deploy(log_model())
    operator.on_kill()
    assert operator.execute(task())["passed"]
    operator.on_kill()
    assert (serving.state.read(1).state, serving.ask()) == ("live", (200, 1))


def test_a_task_that_is_cancelled_while_it_is_deferred_withdraws_its_deployment(serving: World, log_model: Any) -> None:
    _, given, thread = busy(serving, log_model, deferrable=True)
    thread.join()
    (deferred,) = thread.errors  # type: ignore[attr-defined]
    path, arguments = deferred.trigger.serialize()
    trigger = DeploymentTrigger(**json.loads(json.dumps(arguments)))
    assert path == f"{DeploymentTrigger.__module__}.DeploymentTrigger"

    async def cancelled() -> None:
        """As Airflow's triggerer does it when somebody marks the task."""
        waiting = asyncio.ensure_future(anext(trigger.run()))
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await trigger.on_kill()

    asyncio.run(cancelled())
    wait_for(lambda: serving.state.read(2).outcome is not None)
    assert (serving.state.read(2).state, serving.ask()) == ("rolled_back", (200, 1))
    serving.fleet.behaviour = Behaviour()
    deploy(log_model(weights="2"), deferrable=False).execute(given)
    assert serving.ask() == (200, 3)
    asyncio.run(trigger.on_kill())  # told late: it is not this deployment that is open
    assert serving.ask() == (200, 3)


def test_where_nobody_serves_a_retry_may_help(context: StepContext, log_model: Any) -> None:
    with pytest.raises(MlopsUnavailable, match="airflow mlops serve"):
        deploy(log_model()).execute(task())
    places.beat(context.store, "http://127.0.0.1:1")
    record = context.store.get_json(places.HEARTBEAT)
    context.store.put_json(places.HEARTBEAT, {**record, "t": time.time() - 3600})
    with pytest.raises(MlopsUnavailable, match="it was last seen at"):
        deploy(log_model()).execute(task())


def test_what_cannot_be_is_refused(context: StepContext, log_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="strategy must be 'replace' or 'canary', got 'bluegreen'"):
        deploy("models:/m/1", strategy="bluegreen")
    with pytest.raises(ValueError, match="trust must be"):
        deploy("models:/m/1", trust="yes")
    with pytest.raises(MlopsFailed, match="server must be a name of small letters"):
        DeployModelOperator(task_id="t", model=log_model(), server="Flights").execute(task())
    places.beat(context.store, "http://127.0.0.1:1")
    with pytest.raises(MlopsFailed, match="is not on record here"):
        deploy(log_model(record=False)["uri"]).execute(task())
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    with pytest.raises(MlopsFailed, match="keeps files on one machine"):
        deploy(log_model()).execute(task())
