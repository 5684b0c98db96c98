"""``airflow mlops decide``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.policy.record import Decisions
from airflow_mlops.core.policy.step import decide_retraining
from airflow_mlops.core.steps import StepContext


@pytest.fixture
def decisions(context: StepContext) -> Decisions:
    """Three decisions, of which the second trains again."""
    for number in range(1, 4):
        told = {"kind": "new_rows", "id": str(number), "new": {"rows": 60}}
        decide_retraining(
            dataclasses.replace(context, key=f"d/{number}/t/-1", run={"run_id": f"run {number}"}),
            name="churn",
            reports=[told],
            policy={"new_rows": 100},
            clock=f"2026-01-0{number}",
        )
    return Decisions(context.store, "churn")


def test_it_shows_what_was_decided_and_why(decisions: Decisions, airflow: Any) -> None:
    code, out = airflow("decide", "churn", "--output", "json")
    assert code == 0
    assert [row["action"] for row in json.loads(out)] == ["wait", "retrain", "wait"]
    assert json.loads(out)[1]["reason"].startswith("Retrain, because 120 new rows")
    code, out = airflow("decide", "churn", "--number", "2", "--output", "json")
    assert [row["run"] for row in json.loads(out)] == ["run 2"]


def test_a_replay_of_what_nobody_touched_is_the_same(decisions: Decisions, airflow: Any) -> None:
    code, out = airflow("decide", "churn", "--replay", "--output", "json")
    assert (code, [row["replay"] for row in json.loads(out)]) == (0, ["same"] * 3)


def test_a_replay_says_what_comes_out_otherwise(decisions: Decisions, airflow: Any) -> None:
    record = decisions.read(2)
    record["signals"][0]["facts"]["rows"] = 1
    decisions.store.put_json(decisions.key(2), record)
    code, out = airflow("decide", "churn", "--replay", "--number", "2", "--output", "json")
    assert code == "1 of 1 decisions come out otherwise"
    assert json.loads(out)[0]["replay"].startswith("wait: No retraining")


def test_another_policy_can_be_tried_on_the_past(decisions: Decisions, airflow: Any, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"new_rows": 50}')
    for policy in ('{"new_rows": 50}', str(file)):
        code, out = airflow("decide", "churn", "--policy", policy, "--output", "json")
        assert (code, [row["would_be"] for row in json.loads(out)]) == (0, ["retrain"] * 3)
        assert "3 retrainings instead of 1" in airflow.errors


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nobody",), "no decisions about 'nobody'; there are some about: churn"),
        (("churn", "--number", "9"), "no decision 9 about 'churn'; the last is 3"),
        (("churn", "--policy", '{"rows": 1}'), "policy has no 'rows'"),
        (("churn", "--policy", "nowhere.json"), "--policy is JSON"),
    ],
)
def test_failures_are_one_line(decisions: Decisions, airflow: Any, words: tuple[str, ...], says: str) -> None:
    code, _ = airflow("decide", *words)
    assert says in code
