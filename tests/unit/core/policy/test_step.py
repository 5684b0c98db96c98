"""Decisions on record: one for a task instance, one for a number, the same when made again."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core import faults
from airflow_mlops.core.errors import IntegrityError, SpecError
from airflow_mlops.core.policy.record import Decisions, names
from airflow_mlops.core.policy.step import decide_retraining, replayed
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore

POLICY = {"new_rows": 100, "cooldown": "14d"}


def rows(number: int, identity: str) -> dict[str, Any]:
    return {"kind": "new_rows", "id": identity, "new": {"rows": number}}


def at(context: StepContext, run: str) -> StepContext:
    return dataclasses.replace(context, key=f"d/{run}/decide/-1", run={"dag_id": "d", "run_id": run})


def decide(context: StepContext, run: str, *told: dict[str, Any], day: int = 1, **more: Any) -> dict[str, Any]:
    arguments = {"name": "churn", "policy": POLICY, "clock": f"2026-01-{day:02d}", **more}
    return decide_retraining(at(context, run), reports=list(told), **arguments)


def test_a_decision_is_kept_with_what_it_was_made_of_and_comes_out_the_same(context: StepContext) -> None:
    decide(context, "1", rows(60, "a"))
    second = decide(context, "2", rows(60, "b"), day=2)
    assert (second["action"], second["seq"], second["kind"]) == ("retrain", 2, "retraining_decision")
    assert "120 new rows have come" in second["reason"]
    assert len(json.dumps(second)) < 16384
    decisions = Decisions(context.store, "churn")
    assert context.store.key_of(second["uri"]) == decisions.key(2)
    for seq in (1, 2):
        again, record = replayed(decisions, seq)
        assert {**again.to_dict(), "passed_over": 0} == record["decision"]
    assert names(context.store) == ["churn"]


def test_a_task_that_is_tried_again_gets_its_decision_back(context: StepContext) -> None:
    first = decide(context, "1", rows(100, "a"))
    decide(context, "2", rows(1, "b"), day=2)
    assert decide(context, "1", rows(100, "a"), day=1) == first
    assert Decisions(context.store, "churn").numbers() == [1, 2]


def test_a_task_that_was_cleared_with_another_policy_takes_its_decision_back(context: StepContext) -> None:
    decide(context, "1", rows(60, "a"))
    assert decide(context, "2", rows(60, "b"), day=2)["action"] == "retrain"
    again = decide(context, "2", rows(60, "b"), day=2, policy={"new_rows": 1000})
    assert (again["action"], again["seq"]) == ("wait", 3)
    assert again["state"]["new_rows"] == 120, "what was counted for the other decision counts for this one"


def test_what_was_asked_for_by_hand_is_on_record_and_comes_out_the_same(context: StepContext) -> None:
    for run in ("1", "2"):
        assert decide(context, run, force="True")["reason"] == "Retrain, because it was asked for."
    assert decide(context, "2", force=True)["seq"] == 2, "tried again it is the same decision"
    again, record = replayed(Decisions(context.store, "churn"), 2)
    assert {**again.to_dict(), "passed_over": 0} == record["decision"]
    with pytest.raises(SpecError, match="force is true or false, got 'now'"):
        decide(context, "3", force="now")


def test_what_the_first_version_remembered_of_a_dataset_still_counts(context: StepContext) -> None:
    def month(number: int, rows: int) -> dict[str, Any]:
        window = {"start": f"2025-0{number}-01", "end": f"2025-0{number + 1}-01"}
        return {"kind": "dataset", "name": "d", "digest": f"{number}: {rows}", "rows": rows, "window": window}

    decide(context, "1", month(1, 60))
    decisions = Decisions(context.store, "churn")
    old = decisions.read(1)
    (old["memory"]["data"]["d"],) = old["memory"]["data"]["d"]
    context.store.put_json(decisions.key(1), old)
    assert decide(context, "2", month(1, 70), month(2, 20))["state"]["new_rows"] == 90


def test_what_speaks_of_another_model_is_passed_over(context: StepContext, caplog: pytest.LogCaptureFixture) -> None:
    mine = {**rows(60, "a"), "subject": "churn:7"}
    other = {**rows(60, "b"), "subject": "fraud:2"}
    found = decide(context, "1", mine, other, subject=["churn:*"])
    assert (found["state"]["new_rows"], found["passed_over"]) == (60, 1)
    assert "fraud:2" in caplog.text


def test_two_that_decide_at_once_make_two_numbers_and_one_retraining(context: StepContext) -> None:
    decide(context, "0", rows(60, "a"))
    with ThreadPoolExecutor(8) as pool:
        told = [pool.submit(decide, context, str(n), rows(60, "b"), rows(60, f"c{n}"), day=2) for n in range(1, 9)]
        found = [one.result() for one in told]
    assert sorted(one["seq"] for one in found) == list(range(2, 10))
    assert [one["action"] for one in found].count("retrain") == 1


@pytest.mark.parametrize("point", faults.CRASH_POINTS["decide_retraining"])
def test_killed_at_any_point_and_tried_again_it_is_one_decision(tmp_path: Path, point: str) -> None:
    spec = {
        "step": "decide_retraining",
        "args": {"name": "churn", "policy": POLICY, "clock": "2026-01-02", "reports": [rows(100, "a")]},
        "store": str(tmp_path / "store"),
        "key": "d/1/decide/-1",
        "run": {"dag_id": "d"},
    }
    file, report = tmp_path / "spec.json", tmp_path / "report.json"
    file.write_text(json.dumps(spec))
    command = [sys.executable, "-m", "airflow_mlops.core", "--spec", str(file), "--report", str(report)]
    killed = subprocess.run(command, env={**os.environ, faults.VARIABLE: point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Decisions(LocalStore(tmp_path / "store"), "churn").numbers() == [1]
    assert json.loads(report.read_text())["action"] == "retrain"


def test_records_that_were_removed_are_noticed(context: StepContext) -> None:
    for number in range(3):
        decide(context, str(number))
    context.store.delete(Decisions(context.store, "churn").key(2))
    with pytest.raises(IntegrityError, match="restore them from a backup"):
        decide(context, "4")


def test_bad_arguments_name_cause_and_cure(context: StepContext) -> None:
    with pytest.raises(SpecError, match="model_name is needed"):
        decide(context, "1", name=" ")
    with pytest.raises(SpecError, match="clock: "):
        decide(context, "1", clock="soon")
