"""Which back end serves a task, and that it is never guessed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops import backend
from airflow_mlops.core.errors import CannotReachError, SpecError
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.hooks.store import StoreHook


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "mlops"))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    return tmp_path / "mlops"


def test_the_embedded_back_end_is_the_default(home):
    assert backend.name() == "embedded"
    tracking = MLflowHook().tracking
    assert tracking.tracking_uri == f"sqlite:///{home}/mlflow.db"
    assert (tracking.source, dict(tracking.environment)) == ("embedded", {})
    assert StoreHook().uri == (home / "store").as_uri()


def test_home_is_in_airflows_home_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("AIRFLOW__MLOPS__HOME", raising=False)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert backend.home() == tmp_path / "mlops"
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", "$AIRFLOW_HOME/elsewhere")
    assert backend.home() == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    "executor",
    [
        "CeleryExecutor",
        "KubernetesExecutor",
        "LocalExecutor,CeleryExecutor",
        "airflow.providers.celery.executors.celery_executor.CeleryExecutor",
        "LocalExecutor,my.company.executors.FarExecutor:far",
        "LocalExecutor;team_a=CeleryExecutor",
    ],
)
def test_the_embedded_back_end_refuses_workers_on_several_machines(home, monkeypatch, executor):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)

    for hook in (lambda: MLflowHook().tracking, lambda: StoreHook().uri):
        with pytest.raises(SpecError, match=r"set \[mlops\] backend = connections"):
            hook()


@pytest.mark.parametrize(
    "executor", ["LocalExecutor", "airflow.executors.local_executor.LocalExecutor", "SequentialExecutor"]
)
def test_executors_on_one_machine_are_fine(home, monkeypatch, executor):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    assert backend.home() == home


def test_an_unknown_back_end_is_an_error(home, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "cloud")
    with pytest.raises(SpecError, match="must be one of embedded, connections"):
        backend.name()


class DownBackend:
    """A secrets back end that does not answer."""

    def get_connection(self, conn_id: str) -> None:
        raise ConnectionError("the vault does not answer")


@pytest.mark.parametrize("secrets", ["up", "down"])
def test_a_connection_that_cannot_be_had_is_an_error_and_never_the_embedded_back_end(home, monkeypatch, secrets):
    monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "connections")
    if secrets == "down":
        import airflow.sdk.execution_time.supervisor as supervisor

        monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: [DownBackend()])

    for hook, name in ((lambda: MLflowHook().tracking, "mlflow_default"), (lambda: StoreHook().uri, "mlops_store")):
        with pytest.raises(CannotReachError, match=f"{name}.*nobody defined it.*or the secrets back end"):
            hook()
    # Also where a connection is named on the operator while the configuration says embedded.
    monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "embedded")
    with pytest.raises(CannotReachError, match="'ours'"):
        _ = MLflowHook("ours").tracking
    assert not home.exists()


def test_a_store_connection_names_a_folder(home, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_CONN_OURS", json.dumps({"conn_type": "fs", "extra": {"path": str(tmp_path)}}))
    assert StoreHook("ours").uri == tmp_path.as_uri()
    monkeypatch.setenv("AIRFLOW_CONN_OURS", '{"conn_type": "fs", "extra": {"path": "relative"}}')
    with pytest.raises(SpecError, match="absolute"):
        _ = StoreHook("ours").uri
    monkeypatch.setenv("AIRFLOW_CONN_OURS", '{"conn_type": "http", "host": "example.com"}')
    with pytest.raises(SpecError, match="type 'http'"):
        _ = StoreHook("ours").uri


def test_the_environment_is_put_back():
    os.environ["MLOPS_TEST_A"] = "before"
    try:
        with backend.environment({"MLOPS_TEST_A": "x", "MLOPS_TEST_B": "y"}):
            assert (os.environ["MLOPS_TEST_A"], os.environ["MLOPS_TEST_B"]) == ("x", "y")
        assert os.environ["MLOPS_TEST_A"] == "before"
        assert "MLOPS_TEST_B" not in os.environ
    finally:
        del os.environ["MLOPS_TEST_A"]


FIRST_USE = """
import sys, time
from pathlib import Path
import mlflow  # The slow import is not what is raced.
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import client, experiment_id, sqlite_uri

folder, number = Path(sys.argv[1]), sys.argv[2]
(folder / f"ready-{number}").touch()
while len(list(folder.glob("ready-*"))) < 4:
    time.sleep(0.02)
context = StepContext(store=LocalStore(folder), tracking_uri=sqlite_uri(folder / "sub" / "mlflow.db"))
print(experiment_id(client(context, "the test"), context, "flights"))
"""


def test_four_first_uses_at_once(tmp_path):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST_USE, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    ended = [racer.communicate(timeout=400) for racer in racers]

    assert [racer.returncode for racer in racers] == [0] * 4, ended
    assert [out.strip().splitlines()[-1] for out, _ in ended] == ["1"] * 4


TELEMETRY = """
import os, sys
for name in ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST"):
    os.environ.pop(name, None)
from airflow_mlops.core.extras import require
require("mlflow", "the test")
from mlflow.telemetry.utils import is_telemetry_disabled
print(is_telemetry_disabled())
"""
# Whichever library Great Expectations would report with: nothing may connect to anywhere.
GX_TELEMETRY = """
import os, socket
os.environ.pop("CI", None)
reached = []
socket.socket.connect = lambda self, address: reached.append(address)
socket.getaddrinfo = lambda *args, **kwargs: reached.append(args) or []
from airflow_mlops.core.extras import require
require("great_expectations", "the test").get_context(mode="ephemeral")
print(os.environ["GX_ANALYTICS_ENABLED"] == "false" and not reached)
"""


@pytest.mark.parametrize(
    ("code", "variables", "off"),
    [
        (TELEMETRY, {}, True),
        (TELEMETRY, {"MLFLOW_DISABLE_TELEMETRY": "false", "DO_NOT_TRACK": "false"}, False),
        (GX_TELEMETRY, {}, True),
        (GX_TELEMETRY, {"GX_ANALYTICS_ENABLED": "true"}, False),
    ],
)
def test_telemetry_is_off_unless_the_user_set_it(code, variables, off):
    taken = ("CI", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "GX_ANALYTICS_ENABLED", "PYTEST_CURRENT_TEST")
    kept = {key: value for key, value in os.environ.items() if key not in taken}

    done = subprocess.run([sys.executable, "-c", code], env={**kept, **variables}, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == str(off)
