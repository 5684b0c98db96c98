"""ValidateDataOperator in a task's context, and the hook."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from airflow.sdk import DAG

from airflow_mlops.exceptions import MlopsFailed, MlopsGateFailed
from airflow_mlops.hooks.great_expectations import GreatExpectationsHook
from airflow_mlops.operators.data import ValidateDataOperator
from versions import DagSerialization

NOT_NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age"}}


def from_a_function() -> list[dict[str, Any]]:
    return [NOT_NULL]


class TaskInstance(SimpleNamespace):
    """As much of a task instance as an operator sees."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "home"))
    pd.DataFrame({"age": [25.0, None]}).to_parquet(tmp_path / "people.parquet")
    (tmp_path / "people.json").write_text(json.dumps([NOT_NULL]))
    return tmp_path


@pytest.fixture
def context(folder: Path) -> Any:
    ti = TaskInstance(dag_id="etl", run_id="r1", task_id="validate", map_index=-1, try_number=1, pushed={})
    return {"ti": ti, "dag": SimpleNamespace(fileloc=str(folder / "dag.py"), dag_id="etl")}


def operator(**kwargs: Any) -> ValidateDataOperator:
    return ValidateDataOperator(
        task_id="validate", **{"dataset": "people.parquet", "expectations": [NOT_NULL], **kwargs}
    )


def test_the_report_is_pushed_before_the_task_fails_for_good(context: Any) -> None:
    task = operator()

    with pytest.raises(
        MlopsGateFailed, match=r"people: value skew in 1 of 1 expectations on 2 rows.*.* Report: .*report\.html"
    ):
        task.execute(context)

    report = context["ti"].pushed["return_value"]
    assert (report["kind"], report["passed"]) == ("validation", False)
    assert report["dataset"]["rows"] == 2
    assert "/mlops/reports/etl/validate/" in task.link_urls["report"]


@pytest.mark.parametrize(
    ("severity", "fail_on", "fails"),
    [
        ("critical", "error", True),
        ("critical", "never", False),
        ("warning", "error", False),
        ("warning", "warning", True),
        ("info", "warning", False),
    ],
)
def test_fail_on(context: Any, severity: str, fail_on: str, fails: bool) -> None:
    task = operator(expectations=[{**NOT_NULL, "severity": severity}], fail_on=fail_on)

    if fails:
        with pytest.raises(MlopsGateFailed):
            task.execute(context)
    else:
        assert task.execute(context)["metrics"]["value_skew"] == 1


@pytest.mark.parametrize("expectations", ["people.json", from_a_function, [NOT_NULL], {"expectations": [NOT_NULL]}])
def test_expectations_in_every_form_also_beside_the_dag(context: Any, expectations: Any) -> None:
    report = operator(expectations=expectations, fail_on="never").execute(context)

    assert report["checks"] == {"total": 1, "failed": 1}


def test_a_function_survives_rendering_and_shows_its_name(context: Any) -> None:
    task = operator(expectations=from_a_function, fail_on="never")
    task.render_template_fields({**context, "params": {}})

    assert task.execute(context)["checks"]["total"] == 1
    assert task.expectations.endswith(":from_a_function")


def test_templates(context: Any) -> None:
    task = operator(dataset="{{ params.file }}", expectations="{{ params.file[:6] }}.json", fail_on="{{ params.on }}")
    task.render_template_fields({**context, "params": {"file": "people.parquet", "on": "never"}})

    assert task.execute(context)["dataset"]["name"] == "people"


def test_the_dag_can_be_serialised() -> None:
    with DAG("etl", schedule=None) as dag:
        operator(expectations=from_a_function)

    text = json.dumps(DagSerialization.to_dict(dag))

    assert "from_a_function" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"expectations": []}, "checks nothing"),
        ({"show_values": "yes"}, "show_values must be True or False"),
        ({"fail_on": "errors"}, "fail_on must be"),
        ({"roles": {"privat": "age"}}, "did you mean 'private'"),
    ],
)
def test_mistakes_that_can_be_seen_at_once(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        operator(**arguments)


def test_a_typo_fails_without_a_retry_and_names_the_nearest(context: Any) -> None:
    task = operator(expectations=[{**NOT_NULL, "type": "expect_column_values_to_be_nul"}])

    with pytest.raises(MlopsFailed, match="did you mean 'expect_column_values_to_be_null'"):
        task.execute(context)


def test_the_hook_judges_a_frame() -> None:
    frame = pd.DataFrame({"age": [25.0, None]})

    found = GreatExpectationsHook().validate(frame, [NOT_NULL], name="people")

    assert (found["passed"], found["severity"], found["metrics"]["value_skew"]) == (False, "error", 1)
    assert found["summary"].startswith("people: value skew in 1 of 1")
    assert found["expectations"][0]["unexpected"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "one of dataset, table and sql"),
        ({"dataset": "x", "table": "t", "conn_id": "c"}, "one of dataset, table and sql"),
        ({"table": "t"}, "need conn_id"),
        ({"table": "t", "conn_id": "c", "quarantine": True}, "take a snapshot"),
        ({"table": "t", "conn_id": "c", "window": "yesterday"}, "'data_interval'"),
    ],
)
def test_arguments_that_do_not_go_together(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ValidateDataOperator(task_id="t", expectations=[{"type": "x"}], **arguments)
