"""Level 4 under a real scheduler: started by what level 3 saw, and by two events at once, which retrain once."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WATCH, LOOP = "mlops_level_3", "mlops_level_4"


def runs_of(airflow: Any, count: int) -> list[dict[str, Any]]:
    """Return the runs of level 4 once there are so many, and all have ended."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        found = airflow.api("GET", f"/dags/{LOOP}/dagRuns?order_by=run_after")["dag_runs"]
        events = airflow.api("GET", "/assets/events?limit=100")["asset_events"]
        told = [event for event in events if event["name"] in ("flights_drift", "flights_performance")]
        taken = [event for event in told if any(run["dag_id"] == LOOP for run in event["created_dagruns"])]
        # Of two at once, the second may come too late for a run of its own: then the first one's run reads it.
        if (
            len(told) >= count
            and len(taken) >= count - 1
            and all(run["state"] in ("success", "failed") for run in found)
        ):
            return list(found)
        time.sleep(0.5)
    raise AssertionError(f"the events were not acted on; see {airflow.log}")


def tell(airflow: Any, asset: int, month: int, clock: str) -> None:
    """Post what a monitor says of a month in which the champion did badly."""
    window = {"start": f"2013-{month:02d}-01T00:00:00+00:00", "end": f"2013-{month + 1:02d}-01T00:00:00+00:00"}
    extra: dict[str, Any] = {"id": f"performance of {month}", "kind": "performance", "subject": "flights_late"}
    extra |= {"passed": False, "severity": "error", "window": window, "settled": [{"window": window}]}
    extra |= {"metrics": {"roc_auc": 0.55, "labelled": 28_000}, "baseline": {"roc_auc": 0.7}, "as_of": clock}
    airflow.api("POST", "/assets/events", {"asset_id": asset, "extra": extra})


@pytest.mark.scheduler
@pytest.mark.timeout(1200)
def test_events_of_level_3_decide_and_two_at_once_retrain_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "dags"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from airflow_home import Airflow
    from demo_runs import scheduled, trigger

    from flights.source import land

    dags, folder = tmp_path / "dags", tmp_path / "home" / "flights"
    shutil.copytree(ROOT / "dags" / "flights", dags / "flights")
    for level in (1, 3, 4):
        shutil.copy(ROOT / "dags" / f"mlops_level_{level}.py", dags)
    airflow = Airflow(tmp_path / "home", dags)
    land("2013-01-01", "2013-07-01", str(folder))
    with airflow.running():
        for dag_id in ("mlops_level_1", WATCH, LOOP):
            airflow.wait_for_dag(dag_id)
        first = scheduled(airflow, "mlops_level_1", "a first champion, by the schedule")
        assert first.state == "success", f"{first.tasks}; see {airflow.log}"
        promoted = airflow.cli("mlops", "promote", "flights_late", first.version, "--reason", "first")
        assert promoted.returncode == 0, promoted.stdout

        watched = trigger(airflow, WATCH, "April", {"start": "2013-04-01", "end": "2013-05-01"})
        assert watched.state == "success", watched.tasks
        by_level_3 = runs_of(airflow, 2)
        assert {run["run_type"] for run in by_level_3} - {"scheduled"} == {"asset_triggered"}
        clocks = set()
        for run in by_level_3:
            task = f"/dags/{LOOP}/dagRuns/{run['dag_run_id']}/taskInstances/clock"
            if run["run_type"] == "asset_triggered":
                clocks.add(airflow.api("GET", f"{task}/xcomEntries/return_value")["value"].strip('"'))
        assert clocks == {"2013-05-01T00:00:00+00:00"}, "the present is the end of what was watched"

        (asset,) = airflow.api("GET", "/assets?name_pattern=flights_performance")["assets"]
        for month in (5, 6):
            tell(airflow, asset["id"], month, "2013-07-01T00:00:00+00:00")
        runs = runs_of(airflow, 4)
        assert {run["state"] for run in runs} == {"success"}, f"see {airflow.log}"
    store = tmp_path / "home" / "mlops" / "store"
    decisions = [json.loads(path.read_text())["decision"] for path in sorted((store / "retraining").rglob("*.json"))]
    retrained = [one for one in decisions if one["action"] == "retrain"]
    assert len(retrained) == 1, decisions
    assert "performance was too low in 2 of the last 2 windows" in retrained[0]["reason"]
    assert sorted(path.name for path in (store / "versions" / "flights_late").iterdir()) == ["1.json", "2.json"]
