"""Running a step from a spec."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core import steps
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.steps import STEPS, StepContext, load_step, run_step


def add(context: StepContext, *, left: int, right: int = 1) -> dict[str, Any]:
    """A step for these tests."""
    context.log.info("adding")
    context.store.put_json("sum", left + right)
    return {"kind": "sum", "sum": left + right, "key": context.key, "run": context.run, "uri": context.tracking_uri}


@pytest.fixture(autouse=True)
def step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step ``add``."""
    monkeypatch.setitem(sys.modules, "steps_of_this_test", sys.modules[__name__])
    monkeypatch.setitem(STEPS, "add", "steps_of_this_test:add")


def spec(tmp_path: Path, **fields: Any) -> dict[str, Any]:
    return {"step": "add", "args": {"left": 2}, "store": str(tmp_path), **fields}


def test_a_step_gets_its_arguments_and_its_context(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        result = run_step(spec(tmp_path, key="d/r/t/-1", run={"dag_id": "d"}, tracking_uri="sqlite:///x.db"))
    assert result == {"kind": "sum", "sum": 3, "key": "d/r/t/-1", "run": {"dag_id": "d"}, "uri": "sqlite:///x.db"}
    assert (tmp_path / "sum").read_text() == "3"
    assert "adding" in caplog.text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"step": "ad"}, "no step 'ad'; did you mean 'add'"),
        ({"step": None}, r"no step ''\. Steps: snapshot_data"),
        ({"step": ["add"]}, "no step"),
        ({"args": {"lefft": 2}}, "no argument 'lefft'; did you mean 'left'"),
        ({"args": {"context": 2, "left": 1}}, "no argument 'context'"),
        ({"args": {}}, "add needs the argument 'left'"),
        ({"args": [1]}, "object of arguments by name, got a list"),
        ({"store": ""}, "needs 'store'"),
        ({"store": "here"}, "absolute path"),
        ({"tracking_url": "x"}, "no field 'tracking_url'; did you mean 'tracking_uri'"),
        ({"tracking_uri": "http://user:hunter2@mlflow"}, "'tracking_uri' carries credentials.*MLFLOW_TRACKING_TOKEN"),
        ({"registry_uri": "http://hunter2@mlflow"}, "'registry_uri' carries credentials"),
    ],
)
def test_a_spec_that_no_step_can_run_says_why(tmp_path: Path, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(SpecError, match=text) as caught:
        run_step(spec(tmp_path, **fields))
    assert "hunter2" not in str(caught.value) + str(caught.value.fields)


@pytest.mark.parametrize("name", [name for name in STEPS if name != "add"])
def test_every_step_is_there_takes_a_context_and_named_arguments_and_says_what_it_does(name: str) -> None:
    import inspect

    function = load_step(name)
    parameters = list(inspect.signature(function).parameters.values())
    assert parameters[0].name == "context"
    assert all(one.kind is one.KEYWORD_ONLY for one in parameters[1:])
    assert function.__name__ == name
    assert function.__doc__


def test_reports_stand_under_their_dag_and_one_folder_a_task_and_identity(context: StepContext) -> None:
    folder = context.report_folder({"a": 1})
    assert folder.startswith("reports/flights/step/")
    assert folder == context.report_folder({"a": 1}) != context.report_folder({"a": 2})
    other = StepContext(store=context.store, key="flights/manual__2/step/-1", run=context.run)
    assert other.report_folder({"a": 1}) != folder
    weird = StepContext(store=context.store, run={"dag_id": "a/../b", "task_id": "g.t"})
    assert weird.report_folder().split("/")[2] == "g.t"
    assert weird.report_folder().count("/") == 3


def test_steps_does_not_import_its_steps() -> None:
    assert steps.STEPS["train_model"].startswith("airflow_mlops.core.")
