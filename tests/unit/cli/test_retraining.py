"""``airflow mlops decide``."""

from __future__ import annotations

import dataclasses
import json
import sys
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


def test_what_a_cleared_task_took_back_is_not_counted_twice(
    decisions: Decisions, context: StepContext, airflow: Any
) -> None:
    for more in ({}, {"id": "other"}):
        told = {"kind": "new_rows", "id": "4", "new": {"rows": 60}, **more}
        cleared = dataclasses.replace(context, key="d/4/t/-1", run={"run_id": "run 4"})
        decide_retraining(cleared, name="churn", reports=[told], policy={"new_rows": 100}, clock="2026-01-04")
    assert decisions.numbers() == [1, 2, 3, 4, 5]
    code, out = airflow("decide", "churn", "--policy", '{"new_rows": 100}', "--output", "json")
    found = [(row["number"], row["action"], row["would_be"]) for row in json.loads(out)]
    assert found == [(n, action, action) for n, action in zip((1, 2, 3, 5), ("wait", "retrain") * 2, strict=True)]
    assert (code, "2 retrainings instead of 2" in airflow.errors) == (0, True)


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


TRAINER = """
from sklearn.linear_model import LogisticRegression

def train(X, y, *, C=1.0):
    return LogisticRegression(C=C).fit(X, y)
"""


def test_a_version_is_trained_again_here_and_in_another_interpreter(
    context: StepContext, airflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.core.data.snapshot import snapshot_data
    from airflow_mlops.core.registry.register import register_model
    from airflow_mlops.core.training.step import train_model

    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "cli_trainer.py").write_text(TRAINER)
    (tmp_path / "rows.csv").write_text("a,y\n" + "".join(f"{n % 13},{int(n % 13 > 5)}\n" for n in range(200)))
    ref = snapshot_data(context, source=str(tmp_path / "rows.csv"), name="rows", roles={"target": "y"})
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        model = train_model(context, dataset=ref, trainer="cli_trainer:train", hyperparameters={"C": 0.5})
    register_model(context, model=model, model_name="churn")
    for more in (("--python", sys.executable), ("--code", str(folder))):
        sys.modules.pop("cli_trainer", None)
        code, out = airflow("reproduce", "churn", "1", "--output", "json", *more)
        assert code == 0, code
        (report,) = json.loads(out)
        assert report["metrics"]["bit_for_bit"] is True
        assert "is reproduced" in airflow.errors
    sys.modules.pop("cli_trainer", None)
    code, out = airflow("reproduce", "churn", "1")
    assert (code, out.strip()) == (0, ""), "no differences, so no table of them"
    assert "is reproduced" in airflow.errors
    (folder / "cli_trainer.py").write_text(TRAINER.replace("C=C", "C=C / 100"))
    sys.modules.pop("cli_trainer", None)
    code, _ = airflow("reproduce", "churn", "1", "--code", str(folder))
    assert "models:/churn/1 is not reproduced" in code
    assert "Not as on record: code" in code
