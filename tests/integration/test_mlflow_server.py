"""A real MLflow server over HTTP: the connection, the registry steps, and the command line that finds it by itself."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.hooks.mlflow import MLflowHook
from servers.mlflow import start_mlflow, stop_mlflow

SECRET = "pa/ss wörd-9"


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[int]:
    """A server on SQLite that keeps the artifacts, and its port."""
    url, server = start_mlflow(tmp_path_factory.mktemp("server"), migrated_database)
    try:
        yield int(url.rpartition(":")[2])
    finally:
        stop_mlflow(server)


@pytest.fixture
def context(tmp_path: Path, mlflow_server: int) -> StepContext:
    return StepContext(
        store=LocalStore(tmp_path / "store"), tracking_uri=f"http://127.0.0.1:{mlflow_server}", key="register"
    )


@pytest.fixture
def mlflow_context(context: StepContext) -> StepContext:
    """What ``log_model`` logs to."""
    return context


def test_the_connections_test_says_that_it_works(mlflow_server, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_OURS", f"mlflow://ana:secret@127.0.0.1:{mlflow_server}")
    assert MLflowHook("ours").test_connection() == (True, f"MLflow answers at http://127.0.0.1:{mlflow_server}")
    with MLflowHook("ours").session() as mlflow_client:
        assert mlflow_client.get_experiment("0").name == "Default"
    monkeypatch.setenv("AIRFLOW_CONN_OURS", f"mlflow://127.0.0.1:{mlflow_server}/wrong")
    ok, said = MLflowHook("ours").test_connection()
    assert not ok
    assert "http or https, not to 'wrong'" in said


def test_register_and_promote_over_http(context, log_model):
    for number in (1, 2):
        ref = register_model(context, model=log_model(str(number)), model_name="over_http")
        assert register_model(context, model=ref["uri"], model_name="over_http")["digest"] == ref["digest"]
    first = promote_model(dataclasses.replace(context, key="p/1"), model="over_http/1")
    second = promote_model(dataclasses.replace(context, key="p/2"), model=ref, to_name="over_http_production")

    assert (first["seq"], first["version"]) == (1, 1)
    assert (second["model"], second["version"], second["digest"]) == ("over_http_production", 1, ref["digest"])


def test_the_command_line_finds_connections_in_airflows_database(context, log_model, tmp_path, mlflow_server):
    register_model(context, model=log_model(), model_name="by_cli")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "_AIRFLOW"))}
    environment |= {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__MLOPS__BACKEND": "connections",
    }

    def airflow(*words: str, check: bool = True) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    airflow("db", "migrate")
    missing = airflow("mlops", "status", check=False)
    assert missing.returncode == 1
    assert "the connection 'mlflow_default' cannot be had" in missing.stderr
    server = {"conn_type": "mlflow", "host": "127.0.0.1", "port": mlflow_server, "login": "ana", "password": SECRET}
    folder = {"conn_type": "fs", "extra": {"path": str(tmp_path / "store")}}
    airflow("connections", "add", "mlflow_default", "--conn-json", json.dumps(server))
    airflow("connections", "add", "mlops_store_default", "--conn-json", json.dumps(folder))

    done = airflow("mlops", "promote", "by_cli", "1", "--reason", "read", "--output", "json", "--verbose")
    (entry,) = json.loads(done.stdout.strip().splitlines()[-1])
    wrong = airflow("mlops", "promote", "by_cli", "7", check=False)

    assert (entry["version"], entry["reason"]) == (1, "read")
    assert wrong.returncode == 1
    assert len(wrong.stderr.strip().splitlines()) == 1
    shown = "".join(one.stdout + one.stderr for one in (done, wrong, missing))
    assert "pa/ss" not in shown
    assert "pa%2Fss" not in shown
