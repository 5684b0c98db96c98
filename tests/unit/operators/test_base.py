"""What every operator whose step may run long does with its runtime."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_mlops.operators.data import SnapshotDataOperator

RUNTIME = {
    "image": "ml:1",
    "environment": {"REGION": "eu-{{ run_id }}", "API_TOKEN": "token-{{ run_id }}", "EMPTY": None},
    "private_environment": {"DSN": "postgres://bot:p%40ss-{{ run_id }}@db", "UNSET": None},
}


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Airflow is asked to mask."""
    found: list[str] = []
    monkeypatch.setattr("airflow_mlops.hooks.mlflow.mask", found.append)
    return found


def context(task: Any, **ti: Any) -> Any:
    return {"run_id": "r1", "task": task, "ti": SimpleNamespace(map_index=0, **ti)}


def test_secrets_of_the_runtime_are_masked_when_they_are_rendered(masked: list[str]) -> None:
    operator = SnapshotDataOperator(task_id="x", source="rows.csv", name="rows", runtime=RUNTIME)
    operator.render_template_fields(context(operator))
    assert operator.runtime is not None
    assert operator.runtime["environment"]["REGION"] == "eu-r1"
    assert sorted(masked) == ["postgres://bot:p%40ss-r1@db", "token-r1"]


def test_those_of_a_mapped_task_too(masked: list[str]) -> None:
    with DAG("etl") as dag:
        task: Any = SnapshotDataOperator.partial(task_id="x", name="rows", runtime=RUNTIME).expand(source=["rows.csv"])
    known = {"dag": dag, "dag_run": SimpleNamespace(conf={})}
    task.render_template_fields({**context(task, get_relevant_upstream_map_indexes=lambda **_: None), **known})
    assert sorted(masked) == ["postgres://bot:p%40ss-r1@db", "token-r1"]


@pytest.mark.parametrize(("timeout", "limit"), [(dt.timedelta(minutes=2), 120.0), (None, None)])
def test_a_step_that_outlives_its_worker_knows_the_tasks_timeout(tmp_path: Any, timeout: Any, limit: Any) -> None:
    operator = SnapshotDataOperator(task_id="x", source="rows.csv", name="rows", execution_timeout=timeout)
    ti = SimpleNamespace(dag_id="etl", run_id="r1", task_id="x", map_index=-1, try_number=1)
    job, _ = operator.prepare({"ti": ti, "dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py"), dag_id="etl")})  # type: ignore[typeddict-item, typeddict-unknown-key]
    assert job.limit == limit
