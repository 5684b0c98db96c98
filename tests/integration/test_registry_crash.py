"""Registering and promoting, killed at every crash point; and promoters that wake up late."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core import digests
from airflow_mlops.core.faults import CRASH_POINTS, PAUSE_VARIABLE, VARIABLE
from airflow_mlops.core.registry.ledger import LEASE_VARIABLE, Ledger
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.steps import StepContext, run_step

NAME = "churn"


@pytest.fixture(autouse=True)
def lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEASE_VARIABLE, "1")


def spec(context: StepContext, step: str, key: str, **args: Any) -> dict[str, Any]:
    return {
        "step": step,
        "args": args,
        "store": context.store.uri,
        "tracking_uri": context.tracking_uri,
        "key": key,
        "run": {"dag_id": "flights", "run_id": key, "task_id": step},
    }


def start(folder: Path, what: dict[str, Any], **variables: str) -> tuple[subprocess.Popen[str], Path]:
    """Run a step in a process of its own."""
    file, report = folder / f"{len(list(folder.iterdir()))}.spec.json", folder / "report.json"
    file.write_text(json.dumps(what))
    command = [sys.executable, "-m", "airflow_mlops.core", "--spec", str(file), "--report", str(report)]
    process = subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, report


def numbers(context: StepContext) -> list[int]:
    found = RegisteredModel(context, NAME).client.search_model_versions(f"name='{NAME}'")
    return sorted(int(version.version) for version in found)


@pytest.mark.parametrize("point", CRASH_POINTS["register_model"])
def test_register_killed_and_tried_again(point, mlflow_context, log_model, tmp_path):
    what = spec(mlflow_context, "register_model", "run/1", model=log_model(), model_name=NAME, tags={"team": "growth"})
    process, report = start(tmp_path, what, **{VARIABLE: point})
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    assert not report.exists()

    ref = run_step(what)

    assert (ref["name"], ref["version"]) == (NAME, 1)
    assert numbers(mlflow_context) == [1]
    assert RegisteredModel(mlflow_context, NAME).version(1).tags["team"] == "growth"
    assert list(mlflow_context.store.keys("versions")) == [f"versions/{NAME}/1.json"]
    assert run_step(what) == ref


@pytest.mark.parametrize("point", [*CRASH_POINTS["promote_model"], *CRASH_POINTS["model_card"]])
def test_promote_killed_and_tried_again(point, mlflow_context, log_model, tmp_path):
    for number in (1, 2):
        register_model(mlflow_context, model=log_model(str(number)), model_name=NAME)
    run_step(spec(mlflow_context, "promote_model", "run/1", model="churn/1"))
    what = spec(mlflow_context, "promote_model", "run/2", model="churn/2", expected_champion=1)
    process, _ = start(tmp_path, what, **{VARIABLE: point})
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    time.sleep(1.1)  # A retry comes after the lease.

    entry = run_step(what)

    assert (entry["seq"], entry["version"], entry["previous_version"]) == (2, 2, 1)
    entries = Ledger(mlflow_context.store, NAME).entries()
    assert [(e.seq, e.state) for e in entries] == [(1, "done"), (2, "done")]
    assert RegisteredModel(mlflow_context, NAME).alias("champion") == 2
    assert RegisteredModel(mlflow_context, NAME).version(2).tags["mlops.card"].endswith("cards/churn/2/card.md")


def regression(context: StepContext) -> dict[str, Any]:
    """Return a report that version 2 is better than version 3, which is released."""
    probation = {"alias": f"{NAME}@champion", "entry": 3, "version": 3, "previous": 2, "clock": "2026-05-01"}
    found = {
        "tests": [{"name": "auc", "kind": "previous", "passed": False, "severity": "error", "message": "0.1 worse"}],
        "probation": probation,
    }
    key = "reports/flights/probation/1/details.json"
    context.store.put_json(key, found)
    return {
        **{"kind": "model_test", "passed": False, "severity": "error", "summary": "0.1 worse", "probation": probation},
        **{"details_uri": context.store.uri_of(key), "digest": digests.of_json(found)},
    }


@pytest.mark.parametrize(
    ("point", "by_evidence"),
    [(CRASH_POINTS["rollback_model"][0], False), *((point, True) for point in CRASH_POINTS["rollback_model"])],
)
def test_rollback_killed_and_tried_again_goes_back_once(point, by_evidence, mlflow_context, log_model, tmp_path):
    for number in (1, 2, 3):
        register_model(mlflow_context, model=log_model(str(number)), model_name=NAME)
        run_step(spec(mlflow_context, "promote_model", f"run/{number}", model=f"churn/{number}"))
    evidence = {"evidence": regression(mlflow_context)} if by_evidence else {}
    what = spec(mlflow_context, "rollback_model", "run/back", model_name=NAME, **evidence)
    process, _ = start(tmp_path, what, **{VARIABLE: point})
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    time.sleep(1.1)  # A retry comes after the lease.

    entry = run_step(what)

    assert (entry["seq"], entry["action"], entry["version"], entry["previous_version"]) == (4, "rollback", 2, 3)
    assert run_step(what) == entry
    assert [(e.seq, e.state) for e in Ledger(mlflow_context.store, NAME).entries()] == [
        (number, "done") for number in (1, 2, 3, 4)
    ]
    assert RegisteredModel(mlflow_context, NAME).alias("champion") == 2


@pytest.mark.parametrize("point", CRASH_POINTS["record_approval"])
def test_an_answer_that_was_recorded_outlives_the_worker(point, mlflow_context, log_model, tmp_path):
    ref = register_model(mlflow_context, model=log_model(), model_name=NAME)
    question = spec(mlflow_context, "request_approval", "run/1", model=ref)
    run_step(question)
    answer = {"decision": "rejected", "by": "ana", "at": "2026-03-01T10:00:00+00:00", "reason": "too slow"}
    what = {**spec(mlflow_context, "record_approval", "run/1", model=ref, **answer), "run": question["run"]}
    process, _ = start(tmp_path, what, **{VARIABLE: point})
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors

    # The retry begins with the question.
    found = run_step(question)["decision"]

    assert {key: found[key] for key in answer} == answer
    assert len(list(mlflow_context.store.keys(f"approvals/{NAME}"))) == 1
    assert mlflow_context.store.exists(mlflow_context.store.key_of(found["report_uri"]))


@pytest.mark.parametrize("point", CRASH_POINTS["archive_models"])
def test_archival_killed_and_tried_again(point, mlflow_context, log_model, tmp_path):
    for number in (1, 2, 3):
        register_model(mlflow_context, model=log_model(str(number)), model_name=NAME)
    what = spec(mlflow_context, "archive_models", "run/old", model_name=NAME, keep=1, delete_files=True)
    process, _ = start(tmp_path, what, **{VARIABLE: point})
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    time.sleep(1.1)  # A retry comes after the lease.

    # Another operation may come first, and finishes or voids what was begun.
    if point == "archive.version_done":
        promote_model(mlflow_context, model="churn/3")
    done = run_step(what)

    assert (done["versions"], done["files"]) == ([1, 2], [1, 2])
    registered = RegisteredModel(mlflow_context, NAME)
    assert all(registered.version(number).tags["mlops.files"].startswith("deleted") for number in (1, 2))
    assert "mlops.archived" not in registered.version(3).tags
    states = [(e.intent["action"], e.state) for e in Ledger(mlflow_context.store, NAME).entries()]
    assert states[0] == ("archive", "done")
    assert run_step(what)["entry"] == done["entry"]


@pytest.mark.parametrize(
    ("point", "error", "state"),
    [
        ("promote.intent_written", "ConflictError", "void"),
        ("promote.move_claimed", "SupersededError", "done"),
        ("promote.alias_moved", "SupersededError", "done"),
    ],
)
def test_a_paused_promoter_that_wakes_up_late(point, error, state, mlflow_context, log_model, tmp_path):
    for number in (1, 2, 3):
        register_model(mlflow_context, model=log_model(str(number)), model_name=NAME)
    run_step(spec(mlflow_context, "promote_model", "run/1", model="churn/1"))
    ledger, registered = Ledger(mlflow_context.store, NAME), RegisteredModel(mlflow_context, NAME)
    slow = spec(mlflow_context, "promote_model", "run/slow", model="churn/2", expected_champion=1)
    process, report = start(tmp_path, slow, **{PAUSE_VARIABLE: f"{point}:8"})
    reached = {"promote.intent_written": "intent", "promote.move_claimed": "move", "promote.alias_moved": "move"}[point]
    while not mlflow_context.store.exists(f"ledger/{NAME}/00000002.{reached}.json"):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    if point == "promote.alias_moved":
        while registered.alias("champion") != 2:
            time.sleep(0.02)

    entry = promote_model(mlflow_context, model="churn/3", by="ana")
    assert process.poll() is None, "it has to be paused still"
    assert (entry["seq"], registered.alias("champion")) == (3, 3)
    _, errors = process.communicate(timeout=120)

    assert process.returncode == 1, errors
    found = json.loads(report.read_text())["error"]
    assert found["type"] == error
    assert "entry 3" in found["message"]
    assert registered.alias("champion") == 3
    assert [(e.seq, e.state) for e in ledger.entries()] == [(1, "done"), (2, state), (3, "done")]
