"""Level 4 under a real scheduler: events of level 3, events at once, late and by wrong clocks, and a backfill."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WATCH, LOOP = "mlops_level_3", "mlops_level_4"
DRIFT, PERFORMANCE, LANDED = "flights_drift", "flights_performance", "flights_landed"


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


def month(number: int) -> dict[str, str]:
    """Return a month of 2013."""
    return {"start": f"2013-{number:02d}-01T00:00:00+00:00", "end": f"2013-{number + 1:02d}-01T00:00:00+00:00"}


def performance(number: int, clock: str) -> dict[str, Any]:
    """Return what a monitor says of a month in which the champion did badly."""
    told: dict[str, Any] = {"id": f"performance of {number}", "kind": "performance", "subject": "flights_late"}
    told |= {"passed": False, "severity": "error", "window": month(number), "settled": [{"window": month(number)}]}
    return told | {"metrics": {"roc_auc": 0.55, "labelled": 28_000}, "baseline": {"roc_auc": 0.7}, "as_of": clock}


def drift(window: dict[str, str], by: str) -> dict[str, Any]:
    """Return what a monitor says of a window that drifted."""
    told = {"id": f"drift of {window['start']} by {by}", "kind": "drift", "subject": "flights_late", "passed": False}
    return told | {"window": window, "metrics": {"drift_share": 0.6}}


def tell(airflow: Any, *told: tuple[str, dict[str, Any]]) -> None:
    """Post the events of assets, one at once after the other."""
    assets = {one["name"]: one["id"] for one in airflow.api("GET", "/assets?name_pattern=flights_")["assets"]}
    for name, extra in told:
        airflow.api("POST", "/assets/events", {"asset_id": assets[name], "extra": extra})


def decided(store: Path) -> list[dict[str, Any]]:
    """Return the decisions on record, in their order."""
    return [json.loads(path.read_text()) for path in sorted((store / "retraining").rglob("*.json"))]


def until(airflow: Any, done: Callable[[], bool], what: str) -> list[dict[str, Any]]:
    """Return the runs of level 4 once something is so and all of them have ended."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        if done():
            found = airflow.api("GET", f"/dags/{LOOP}/dagRuns?order_by=run_after")["dag_runs"]
            if all(run["state"] in ("success", "failed") for run in found):
                assert {run["state"] for run in found} == {"success"}, f"see {airflow.log}"
                return list(found)
        time.sleep(0.5)
    raise AssertionError(f"{what}; see {airflow.log}")


@pytest.mark.scheduler
@pytest.mark.timeout(1200)
def test_events_decide_and_whatever_comes_at_once_late_or_again_retrains_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "dags"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from airflow_home import Airflow
    from demo_runs import scheduled, trigger

    from flights.source import land

    dags, folder = tmp_path / "dags", tmp_path / "home" / "flights"
    store = tmp_path / "home" / "mlops" / "store"
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

        # Two drift events and one of new data within a second, and labels of May after the drift of June.
        airflow.api("PATCH", "/dags/mlops_level_1", {"is_paused": True})
        now, before = "2013-07-01T00:00:00+00:00", sum(one["decision"]["signals"]["counted"] for one in decided(store))
        landed = {"id": "files of June", "kind": "new_data", "rows": 120_000, "as_of": now}
        burst = (DRIFT, drift(month(6), "one")), (DRIFT, drift(month(6), "another")), (LANDED, landed)
        tell(airflow, *burst, (PERFORMANCE, performance(5, now)))
        counted = lambda: sum(one["decision"]["signals"]["counted"] for one in decided(store))  # noqa: E731
        until(airflow, lambda: counted() - before == 4, "the events were not all counted")
        (retrained,) = [one["decision"] for one in decided(store) if one["decision"]["action"] == "retrain"]
        assert "120000 new rows have come since the last training (100000 are enough)" in retrained["reason"]

        # A month that comes late takes the clock back; a monitor whose clock is wrong speaks of what nobody can know.
        wrong = drift({"start": "2099-01-01", "end": "2099-02-01"}, "a wrong clock")
        tell(airflow, (PERFORMANCE, performance(4, "2013-06-01T00:00:00+00:00")), (DRIFT, wrong))
        until(airflow, lambda: counted() - before == 5, "the late month was not counted")
        late = decided(store)[-1]["decision"]
        assert (late["action"], late["clock"]) == ("wait", retrained["clock"])
        assert "The clock was set back from 2013-07-01 to 2013-06-01; the later one counts." in late["reason"]
        assert late["state"]["performance"]["of"] == 0, "what the retrained model never scored says nothing of it"

        # A backfill goes over the same months, two at a time.
        dates = ("--from-date", "2013-06-01", "--to-date", "2013-07-03", "--max-active-runs", "2")
        # By the command line: on SQLite the REST API now and then refuses to make one.
        made = airflow.cli("backfill", "create", "--dag-id", LOOP, *dates)
        assert made.returncode == 0, made.stdout + made.stderr
        backfilled = lambda: [one for one in decided(store) if "backfill" in one["run"]["run_id"]]  # noqa: E731
        runs = until(airflow, lambda: len(backfilled()) == 2, "the backfill did not decide")
        assert [run["run_type"] for run in runs].count("backfill") == 2
    for one in backfilled():
        told, clock = one["decision"], dt.datetime.fromisoformat(one["now"])
        assert (told["action"], told["signals"]) == ("wait", {"counted": 0, "duplicates": counted(), "ahead": 1})
        assert ("The clock was set back" in told["reason"]) == (clock < dt.datetime.fromisoformat(told["clock"]))
        assert "1 report is on a window that begins after 2013-07-0" in told["reason"]
    decisions = decided(store)
    assert [one["decision"]["action"] for one in decisions].count("retrain") == 1, decisions
    assert sorted(path.name for path in (store / "versions" / "flights_late").iterdir()) == ["1.json", "2.json"]
    told = airflow.cli("mlops", "history", "flights_late", "--output", "json").stdout
    first, second = json.loads(told[told.index("[") : told.rindex("]") + 1])
    assert (first["action"], str(first["version"])) == ("promote", "1")
    assert (second["action"] in ("promote", "refused"), str(second["version"])) == (True, "2"), "and nothing goes back"
