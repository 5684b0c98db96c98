"""ApproveModelOperator's shell: asking by Airflow's own operator, the answer, and how the task ends."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers.standard.operators import hitl
from airflow.sdk import DAG
from pendulum import duration

from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri
from airflow_mlops.exceptions import MlopsFailed, MlopsGateFailed
from airflow_mlops.operators.registry import (
    ApproveModelOperator,
    PromoteModelOperator,
    RegisterModelOperator,
    RollbackModelOperator,
)
from versions import TaskAwaitingInput

ANA = {"id": "7", "name": "ana"}
AT = dt.datetime(2026, 3, 1, 10, tzinfo=dt.timezone.utc)


@pytest.fixture
def context(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> StepContext:
    """The embedded back end; ``log_model`` logs there."""
    home = tmp_path / "mlops"
    home.mkdir()
    shutil.copy(migrated_database, home / "mlflow.db")
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(home))
    monkeypatch.setenv("AIRFLOW__MLOPS__MLFLOW_UI_URL", "https://mlflow.example.com/")
    return StepContext(store=LocalStore(home / "store"), tracking_uri=sqlite_uri(home / "mlflow.db"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What Airflow is told to ask."""
    upsert = mock.create_autospec(hitl.upsert_hitl_detail)
    monkeypatch.setattr(hitl, "upsert_hitl_detail", upsert)
    return upsert


def task(run_id: str = "r", max_tries: int = 0, operator: Any = None) -> Any:
    """What a task is given, as far as the operators read it."""
    ti = mock.Mock(dag_id="churn", run_id=run_id, task_id="t", map_index=-1, try_number=1, max_tries=max_tries, id="ti")
    ti.bundle_version = ti.bundle_instance = None
    given = {"ti": ti, "task_instance": ti, "task": operator}
    return {**given, "dag_run": SimpleNamespace(run_type="manual", triggering_user_name="bo", bundle_version=None)}


def answer(option: str = "Approve", reason: str = "looks fine") -> dict[str, Any]:
    """What Airflow resumes the task with."""
    return {
        "chosen_options": [option],
        "params_input": {"reason": reason},
        "responded_at": AT,
        "responded_by_user": ANA,
        "timedout": False,
    }


TIMEOUT = {"error": "The timeout has passed", "error_type": "timeout"}


@pytest.fixture
def ref(context: StepContext, log_model: Any) -> dict[str, Any]:
    """A registered version."""
    return dict(RegisterModelOperator(task_id="t", model=log_model(), model_name="churn").execute(task()))


def test_it_asks_then_keeps_the_answer_which_promotes(ref: Any, asked: Any) -> None:
    approve = ApproveModelOperator(task_id="t", model=ref, assigned_users=["7"], response_timeout=duration(hours=2))
    with pytest.raises(TaskAwaitingInput) as waiting:
        approve.execute(task())

    assert waiting.value.method_name == "execute_complete"
    if TaskAwaitingInput is not TaskDeferred:  # below Airflow 3.3 the trigger has the timeout
        assert waiting.value.timeout == dt.timedelta(hours=2)
        assert type(waiting.value.timeout) is dt.timedelta, "Airflow sends no other type"
    question = asked.call_args.kwargs
    assert question["subject"] == "Release churn version 1 as churn@champion?"
    assert "https://mlflow.example.com/#/models/churn/versions/1" in question["body"]
    assert question["options"] == ["Approve", "Reject"]
    assert question["assigned_users"] == [{"id": "7", "name": "7"}]
    assert question["params"]["reason"]["value"] == ""

    # Another process resumes it.
    again = ApproveModelOperator(task_id="t", model=ref)
    decision = again.execute_complete(task(), answer())

    assert {k: decision[k] for k in ("kind", "decision", "by", "reason", "at")} == {
        "kind": "approval",
        "decision": "approved",
        "by": "ana",
        "reason": "looks fine",
        "at": AT.isoformat(),
    }
    json.dumps(decision, allow_nan=False)
    assert again.link_urls["version"].endswith("/#/models/churn/versions/1")
    assert "/mlops/reports/churn/t/" in again.link_urls["report"]
    entry = PromoteModelOperator(task_id="t", model=ref, evidence=[decision]).execute(task())
    assert (entry["by"], entry["reason"]) == ("ana", "looks fine")
    assert approve.execute(task()) == decision, "a retry is not asked again"


@pytest.mark.parametrize(
    ("event", "said"), [(answer("Reject", "fairness"), "rejected by ana: fairness"), (TIMEOUT, "nobody answered")]
)
def test_a_rejection_and_a_timeout_fail_without_a_retry_and_are_on_record(
    ref: Any, asked: Any, event: Any, said: str
) -> None:
    approve = ApproveModelOperator(task_id="t", model=ref)
    with pytest.raises(TaskAwaitingInput):
        approve.execute(task())
    given = task()

    with pytest.raises(MlopsGateFailed, match=said):
        approve.execute_complete(given, event)

    pushed = given["ti"].xcom_push.call_args.kwargs["value"]
    assert not pushed["passed"]
    with pytest.raises(MlopsGateFailed, match=said):
        approve.execute(task())  # a retry
    with pytest.raises(TaskAwaitingInput):
        approve.execute(task(max_tries=1))  # the task was cleared


@pytest.mark.parametrize("everything", [False, True])
def test_it_can_skip_what_follows_in_place_of_failing(ref: Any, asked: Any, everything: bool, monkeypatch: Any) -> None:
    with DAG("churn", schedule=None):
        approve = ApproveModelOperator(
            task_id="t", model=ref, on_reject="skip", ignore_downstream_trigger_rules=everything
        )
        promote = PromoteModelOperator(task_id="promote", model=ref, evidence=[approve.output])
        promote >> RollbackModelOperator(task_id="after", model_name="churn")
    given = task(operator=approve)
    with pytest.raises(TaskAwaitingInput):
        approve.execute(given)
    skipped = mock.Mock()
    monkeypatch.setattr(approve, "skip", skipped)

    decision = approve.execute_complete(given, answer("Reject"))

    assert decision["decision"] == "rejected"
    names = {one.task_id for one in skipped.call_args.kwargs["tasks"]}
    assert names == ({"promote", "after"} if everything else {"promote"})


def test_it_asks_anew_of_another_model(ref: Any, asked: Any, log_model: Any) -> None:
    approve = ApproveModelOperator(task_id="t", model=ref)
    with pytest.raises(TaskAwaitingInput):
        approve.execute(task())
    approve.execute_complete(task(), answer())
    other = RegisterModelOperator(task_id="t", model=log_model("2"), model_name="churn").execute(task())

    with pytest.raises(TaskAwaitingInput):
        ApproveModelOperator(task_id="t", model=other).execute(task("a run of its own"))
    with pytest.raises(MlopsFailed, match="Start a new run"):
        ApproveModelOperator(task_id="t", model=other).execute(task())


def test_an_answer_of_another_form_is_refused(ref: Any, asked: Any) -> None:
    approve = ApproveModelOperator(task_id="t", model=ref)
    with pytest.raises(MlopsFailed, match="the answer cannot be used: bad"):
        approve.execute_complete(task(), {"error": "bad", "error_type": "validation"})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"on_reject": "retry"}, "on_reject must be 'fail' or 'skip'"),
        ({"on_timeout": "approve"}, "on_timeout must be 'fail' or 'skip'"),
        ({"auto_approve": {"green": 5}}, "auto_approve has no 'green'"),
    ],
)
def test_what_cannot_be_is_refused_as_the_dag_is_parsed(wrong: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ApproveModelOperator(task_id="t", model="churn/1", **wrong)


def test_what_was_templated_is_checked_when_it_runs(ref: Any, asked: Any) -> None:
    approve = ApproveModelOperator(task_id="t", model=ref, on_reject="{{ what }}", assigned_users="{{ who }}")
    approve.on_reject = "retry"
    with pytest.raises(MlopsFailed, match="on_reject must be"):
        approve.execute(task())
    approve.on_reject, approve.assigned_users = "fail", [{"name": "no id"}]  # type: ignore[assignment]
    with pytest.raises(MlopsFailed, match="assigned_users are ids"):
        approve.execute(task())


def test_an_execution_timeout_of_the_dags_tasks_is_not_the_persons(ref: Any, asked: Any) -> None:
    """Airflow's operator would take it for the time to answer in."""
    with DAG("churn", schedule=None, default_args={"execution_timeout": dt.timedelta(minutes=5)}):
        approve = ApproveModelOperator(task_id="t", model=ref)

    assert approve.execution_timeout == dt.timedelta(minutes=5)
    assert approve.response_timeout == dt.timedelta(days=7)


def test_the_dags_params_are_no_fields_of_the_form() -> None:
    with DAG("churn", schedule=None, params={"model": "churn/1"}, default_args={"retries": 2}):
        approve = ApproveModelOperator(task_id="t", model="{{ params.model }}")

    assert set(approve.serialized_params) == {"reason"}


def test_rollback(ref: Any, log_model: Any) -> None:
    PromoteModelOperator(task_id="t", model=ref).execute(task("1"))
    second = RegisterModelOperator(task_id="t", model=log_model("2"), model_name="churn").execute(task("2"))
    PromoteModelOperator(task_id="t", model=second).execute(task("2"))
    rollback = RollbackModelOperator(task_id="t", model_name="churn", reason="late")

    entry = rollback.execute(task("back"))

    assert (entry["action"], entry["version"], entry["previous_version"], entry["by"]) == ("rollback", 1, 2, "bo")
    assert rollback.link_urls["version"].endswith("/#/models/churn/versions/1")
    with pytest.raises(MlopsFailed, match="nothing to roll back to"):
        rollback.execute(task("further"))
