"""The reference DAG of level 1, run to its end by ``airflow dags test``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def test_the_file_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "dags" / "mlops_level_1.py").read_text().splitlines()) < 120


def test_it_trains_tests_and_registers_a_first_version(airflow_test: Any) -> None:
    shutil.copy(ROOT / "dags" / "mlops_level_1.py", airflow_test.dags)
    shutil.copytree(ROOT / "dags" / "flights", airflow_test.dags / "flights")
    run = airflow_test.cli("dags", "test", "mlops_level_1", "--conf", '{"max_iter": 20}')
    assert run.returncode == 0, run.stdout[-4000:]
    status = airflow_test.cli("mlops", "status", "flights_late", "--output", "json")
    assert status.returncode == 0, status.stdout
    assert "flights_late" in status.stdout
    reports = sorted((airflow_test.home / "mlops" / "store" / "reports" / "mlops_level_1").rglob("report.html"))
    assert [path.parts[-3] for path in reports] == ["data.validate", "model.test"]


def test_parameters_that_cannot_be_are_refused_before_anything_runs(airflow_test: Any) -> None:
    shutil.copy(ROOT / "dags" / "mlops_level_1.py", airflow_test.dags)
    shutil.copytree(ROOT / "dags" / "flights", airflow_test.dags / "flights")
    run = airflow_test.cli("dags", "test", "mlops_level_1", "--conf", '{"max_iter": 0}')
    assert run.returncode != 0
    assert "max_iter" in run.stdout
    assert not (airflow_test.home / "mlops").exists()
