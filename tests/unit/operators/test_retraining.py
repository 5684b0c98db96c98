"""DecideRetrainingOperator: it reads every event of its run, and what follows is what it decided."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DownstreamTasksSkipped
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, TaskGroup

from airflow_mlops.exceptions import MlopsFailed
from airflow_mlops.operators.retraining import DecideRetrainingOperator
from versions import ByAsset

DRIFT, LANDED = Asset("drift"), Asset("landed")


@pytest.fixture(autouse=True)
def backend(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")


def event(asset: Asset, when: str, **extra: Any) -> Any:
    names = ("source_dag_id", "source_run_id", "source_task_id", "source_map_index")
    return SimpleNamespace(asset=asset, extra=extra, timestamp=when, **dict.fromkeys(names))


class Inlet:
    """As Airflow gives the events of an inlet."""

    def __init__(self, *events: Any) -> None:
        self.events = events

    def ascending(self, ascending: bool = True) -> Inlet:
        assert not ascending
        return self

    def limit(self, limit: int) -> Any:
        return self.events[:limit]


def run(task: DecideRetrainingOperator, run_id: str = "1", **context: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the decision, and which tasks were skipped."""
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        **{"dag_id": "d", "run_id": run_id, "task_id": task.task_id, "map_index": -1, "try_number": 1, "task": task},
        xcom_push=lambda key, value: pushed.update({key: value}),
    )
    try:
        return task.execute({"ti": ti, "task": task, **context}), []  # type: ignore[arg-type]
    except DownstreamTasksSkipped as skipped:
        return pushed["return_value"], sorted(str(one[0]) for one in skipped.tasks)


def dag(**more: Any) -> DecideRetrainingOperator:
    with DAG("d", schedule=None):
        policy = {"new_rows": 100, "drift": {"windows": [1, 1]}}
        task = DecideRetrainingOperator(**{"task_id": "decide", "model_name": "churn", "policy": policy, **more})
        with TaskGroup("train"):
            first = EmptyOperator(task_id="snapshot")
            first >> EmptyOperator(task_id="fit")
        task >> [first, EmptyOperator(task_id="tell"), EmptyOperator(task_id="log")]
    return task


def test_every_event_that_triggered_the_run_counts_once() -> None:
    payload = {"kind": "new_rows", "id": "rows 1", "new": {"rows": 60}}
    watcher = event(LANDED, "t0", from_trigger=True, payload=payload)
    again = event(LANDED, "t1", from_trigger=True, payload=payload)
    other = event(LANDED, "t2", kind="new_rows", rows=40)
    alike = event(LANDED, "t3", kind="new_rows", rows=40)
    found, skipped = run(dag(), triggering_asset_events=ByAsset((LANDED, [watcher, again, other]), (DRIFT, [alike])))
    assert found["signals"] == {"counted": 3, "duplicates": 1}
    assert found["state"]["new_rows"] == 140
    assert (found["action"], skipped) == ("retrain", [])


def test_events_of_inlets_count_too_and_those_of_earlier_runs_do_not_again() -> None:
    old, new = (event(LANDED, when, kind="new_rows", rows=40) for when in ("t0", "t1"))
    first, _ = run(dag(inlets=[LANDED]), inlet_events=ByAsset((LANDED, Inlet(old))))
    assert (first["signals"]["counted"], first["action"]) == (1, "wait")
    second, _ = run(dag(inlets=[LANDED]), run_id="2", inlet_events=ByAsset((LANDED, Inlet(new, old))))
    assert second["signals"] == {"counted": 1, "duplicates": 1}


def test_without_follow_it_is_a_short_circuit() -> None:
    found, skipped = run(dag(reports={"kind": "new_rows", "rows": 1}))
    assert found["action"] == "wait"
    assert skipped == ["log", "tell", "train.snapshot"]


@pytest.mark.parametrize(
    ("report", "action", "skipped"),
    [
        ({"kind": "new_rows", "rows": 100}, "retrain", ["log", "tell"]),
        ({"kind": "drift", "passed": False, "metrics": {}}, "warn", ["log", "train.snapshot"]),
        ({"kind": "new_rows", "rows": 1}, "wait", ["log", "tell", "train.snapshot"]),
    ],
)
def test_it_branches_to_what_follows(report: dict[str, Any], action: str, skipped: list[str]) -> None:
    found, left_out = run(dag(reports=[report], follow={"retrain": "train", "warn": ["tell"], "wait": None}))
    assert found["action"] == action
    assert left_out == skipped


def test_what_no_run_could_use_is_refused_when_the_dag_is_read() -> None:
    with pytest.raises(ValueError, match="did you mean 'new_rows'"):
        dag(policy={"new_row": 1})
    with pytest.raises(ValueError, match="not 'train'"):
        dag(follow={"train": "train"})
    dag(policy={"new_rows": "{{ params.rows }}"})
    with pytest.raises(MlopsFailed, match="must be a number"):
        run(dag(policy={"new_rows": "{{ params.rows }}"}))
