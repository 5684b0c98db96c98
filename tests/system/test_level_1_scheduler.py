"""Level 1 dropped alone, with its project folder, into another Airflow's dags folder, under a real scheduler."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.mark.scheduler
@pytest.mark.timeout(900)
def test_dropped_into_another_dags_folder_it_runs_on_its_defaults(tmp_path: Path) -> None:
    from airflow_home import Airflow
    from demo import DAG, scheduled

    dags = tmp_path / "elsewhere" / "dags"
    dags.mkdir(parents=True)
    shutil.copy(ROOT / "dags" / "mlops_level_1.py", dags)
    shutil.copytree(ROOT / "dags" / "flights", dags / "flights")
    airflow = Airflow(tmp_path / "home", dags)
    with airflow.running():
        airflow.wait_for_dag(DAG)
        run = scheduled(airflow, DAG, "dropped in, started by the schedule")
        links = airflow.api("GET", f"/dags/{DAG}/dagRuns/~/taskInstances?limit=50")["task_instances"]
    assert run.state == "success", f"{run.tasks}; see {airflow.log}"
    assert {task["state"] for task in links} == {"success"}
    assert run.results["model.register"]["version"] == 1
    assert run.results["model.test"]["passed"]
    assert 0.6 < run.results["model.test"]["metrics"]["roc_auc"] < 0.8
    assert run.results["data.snapshot"]["rows"] == 49_855
    assert (tmp_path / "home" / "mlops" / "store").is_dir(), "the embedded back end lives in Airflow's home"
