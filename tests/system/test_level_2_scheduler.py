"""Level 2 under a real scheduler: a commit by its watcher, another by the guide's REST call, each acted on once.

The commits break the project's own tests, so that their runs end there: what comes after is the demo's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.git import Repository, new_repository

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

pytestmark = [pytest.mark.scheduler, pytest.mark.timeout(900)]

DAG = "mlops_level_2"
BROKEN = "raise AssertionError({word!r})\n"


@pytest.fixture
def project(tmp_path: Path) -> Repository:
    """The example project, with tests that cannot pass."""
    made = new_repository(tmp_path / "project")
    shutil.copytree(ROOT / "dags" / "flights", made.folder / "flights", ignore=shutil.ignore_patterns("__pycache__"))
    (made.folder / "flights" / "requirements.txt").write_text("")
    return made


@pytest.fixture
def airflow(tmp_path: Path, project: Repository) -> Iterator[Any]:
    from airflow_home import Airflow

    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(ROOT / "dags" / "mlops_level_2.py", dags)
    shutil.copytree(ROOT / "dags" / "flights", dags / "flights")
    made = Airflow(tmp_path / "home", dags)
    made.environment |= {"MLOPS_REPOSITORY": str(project.folder), "MLOPS_REF": "main", "MLOPS_POLL_SECONDS": "1"}
    return made


def test_a_commit_runs_once_whoever_tells_of_it(airflow: Any, project: Repository) -> None:
    first = break_tests(project, "first")
    with airflow.running():
        airflow.wait_for_dag(DAG)
        (run,) = ended(airflow, 1)
        assert run["run_type"] == "asset_triggered"
        assert stopped(airflow, run) == {"checkout": "success", "tests": "failed"}
        assert checked_out(airflow, run)["sha"] == first
        assert "AssertionError: first" in log_of(airflow, run, "ci.tests")

        # A CI asks for a commit of another branch, as the guide says.
        project.git("checkout", "--quiet", "-b", "feature")
        second = break_tests(project, "second")
        call(airflow, second)
        (asked,) = [one for one in ended(airflow, 2) if one["run_type"] == "manual"]
        assert checked_out(airflow, asked)["sha"] == second

        # It is merged: the event that tells of it starts a run that has nothing to do.
        project.git("checkout", "--quiet", "main")
        project.git("merge", "--quiet", "--ff-only", "feature")
        known = {run["dag_run_id"], asked["dag_run_id"]}
        (told,) = [one for one in ended(airflow, 3) if one["dag_run_id"] not in known]
        assert stopped(airflow, told) == {"checkout": "skipped", "tests": "skipped"}
    # A restart tells of neither again, and of what came meanwhile.
    third = break_tests(project, "third")
    with airflow.running():
        *_, last = ended(airflow, 4)
        assert checked_out(airflow, last)["sha"] == third
        time.sleep(5)
        assert len(runs(airflow)) == 4
    events = airflow_events(airflow)
    assert events == [first, second, third]


def break_tests(project: Repository, word: str) -> str:
    (project.folder / "flights" / "tests" / "test_flights.py").write_text(BROKEN.format(word=word))
    return project.commit(word, note_txt=word)


def runs(airflow: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = airflow.api("GET", f"/dags/{DAG}/dagRuns?order_by=run_after")["dag_runs"]
    return found


def ended(airflow: Any, count: int) -> list[dict[str, Any]]:
    """Wait until so many runs have ended, and return them in their order."""

    def there() -> Any:
        found = runs(airflow)
        return found if len(found) == count and all(one["state"] in ("success", "failed") for one in found) else None

    found: list[dict[str, Any]] = until(there, airflow)
    return found


def until(condition: Callable[[], Any], airflow: Any) -> Any:
    deadline = time.monotonic() + 240
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{runs(airflow)}\n{airflow.log.read_text()[-6000:]}"
        time.sleep(0.5)
    return found


def stopped(airflow: Any, run: dict[str, Any]) -> dict[str, str]:
    """Return the states of the run's first two tasks; none that follows them ran."""
    states = {
        one["task_id"]: one["state"]
        for one in airflow.api("GET", f"/dags/{DAG}/dagRuns/{run['dag_run_id']}/taskInstances")["task_instances"]
    }
    states.pop("data.land")  # it needs neither of them
    first = {name.removeprefix("ci."): states.pop(name) for name in ("ci.checkout", "ci.tests")}
    assert set(states.values()) <= {"upstream_failed", "skipped"}, states
    return first


def checked_out(airflow: Any, run: dict[str, Any]) -> dict[str, Any]:
    path = f"/dags/{DAG}/dagRuns/{run['dag_run_id']}/taskInstances/ci.checkout/xcomEntries/return_value"
    value = airflow.api("GET", f"{path}?deserialize=true")["value"]
    assert isinstance(value, dict), value
    return value


def log_of(airflow: Any, run: dict[str, Any], task: str) -> str:
    folder = airflow.home / "logs" / f"dag_id={DAG}" / f"run_id={run['dag_run_id']}" / f"task_id={task}"
    return "\n".join(file.read_text() for file in sorted(folder.rglob("*.log")))


def call(airflow: Any, sha: str) -> None:
    """Run the call of the guide, as it stands there."""
    guide = (ROOT / "docs" / "ci-cd.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```shell\n(.*?)^```", guide, flags=re.S | re.M)
    workflow = re.search(r"^```yaml\n(.*?)^```", guide, flags=re.S | re.M)
    assert workflow
    import yaml

    (step,) = yaml.safe_load(workflow[1])["jobs"]["release"]["steps"]
    assert step["run"].replace("\\\n", "").split() == script.replace("\\\n", "").split(), "the guide's two forms differ"
    user, password = airflow.password
    variables = {"AIRFLOW_URL": airflow.url, "AIRFLOW_USER": user, "AIRFLOW_PASSWORD": password, "SHA": sha}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def airflow_events(airflow: Any) -> list[str]:
    import contextlib
    import json
    import sqlite3

    with contextlib.closing(sqlite3.connect(airflow.home / "airflow.db", timeout=30)) as database:
        rows = database.execute("select extra from asset_event order by id").fetchall()
    return [json.loads(extra)["payload"]["id"] for (extra,) in rows]
