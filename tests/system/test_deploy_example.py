"""The example of the docs, run in Airflow against ``airflow mlops serve``: a version serves, and then the next one."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.monitoring import history
from airflow_mlops.core.monitoring.service import monitor_service
from airflow_mlops.core.registry import overview
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri
from servers.models import log_model
from servers.serve_command import served

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "deploy_model.py"
SERVICE = EXAMPLE.with_name("monitor_service.py")


@pytest.fixture
def home(airflow_test: Any, migrated_database: Path) -> StepContext:
    """The embedded back end of the test's Airflow."""
    shutil.copy(EXAMPLE, airflow_test.dags)
    home = airflow_test.home / "mlops"
    home.mkdir()
    shutil.copy(migrated_database, home / "mlflow.db")
    return StepContext(store=LocalStore(home / "store"), tracking_uri=sqlite_uri(home / "mlflow.db"), key="register")


@pytest.fixture
def port(airflow_test: Any, home: StepContext) -> Iterator[int]:
    """A gateway's port, with ``airflow mlops serve`` behind it."""
    with served(airflow_test) as port:
        yield port


def test_a_version_is_deployed_and_then_the_next(
    airflow_test: Any, home: StepContext, port: int, tmp_path: Path
) -> None:
    for value in (0.0, 0.5):
        register_model(home, model=log_model(home, tmp_path / "code", value), model_name="churn")

    def deploy(version: int) -> Any:
        date, conf = f"2026-01-0{version}", json.dumps({"model": f"models:/churn/{version}"})
        return airflow_test.cli("dags", "test", "churn_deployed", date, "--conf", conf)

    first, second = deploy(1), deploy(2)

    assert first.returncode == 0, first.stdout[-3000:]
    assert f"It answers at http://127.0.0.1:{port}/churn/invocations" in first.stdout
    assert second.returncode == 0, second.stdout[-3000:]
    assert "churn serves churn/2 instead of churn/1 (replace, p95" in second.stdout
    body = json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1.0]]}}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/churn/invocations", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.loads(answer.read()) == {"predictions": [2.5]}
        assert answer.headers["X-Model-Version"] == "2"

    # The example of monitoring, in the same Airflow. A first run would only read.
    shutil.copy(SERVICE, airflow_test.dags)
    assert monitor_service(home, server="churn", place={})["passed"]
    for _ in range(40):
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
    told = airflow_test.cli("dags", "test", "churn_served", "2026-01-04")
    assert "churn holds; 40 requests" in told.stdout, told.stdout[-3000:]
    (point,) = history.read(home.store, "churn", kind="service")
    assert (point.version, point.figures["requests"], point.figures["error_share"]) == ("2", 40, 0.0)
    assert point.figures["latency_p95_ms"] > 0
    assert [row["series"] for row in overview.figures(home, "churn")] == ["server", "service"]
    assert overview.status(home, "churn")[0]["series"]["service"]["figures"] == point.figures
