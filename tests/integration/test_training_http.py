"""Training against MLflow over HTTP: a real server, one that goes away and comes back, and servers that misbehave."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from airflow_mlops.core import models
from airflow_mlops.core.errors import CannotReachError, CredentialsError, MlopsError
from airflow_mlops.core.faults import VARIABLE
from airflow_mlops.core.steps import StepContext, run_step
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri
from airflow_mlops.core.vocabulary import ModelRef

TRAINER = """
from sklearn.linear_model import LogisticRegression

def train(X, y):
    return LogisticRegression().fit(X, y)
"""
SECRET = "hunter2/hunter2"


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """Run ``mlflow server`` on the loopback interface, its artifacts served over HTTP too."""
    log = open(folder / "server.log", "a")  # noqa: SIM115
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", sqlite_uri(folder / "server.db"), "--workers", "1"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, (folder / "server.log").read_text()[-3000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    break
            time.sleep(0.5)
        else:
            raise AssertionError((folder / "server.log").read_text()[-3000:])
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        log.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2)), columns=["a", "b"])
    frame.assign(y=(frame["a"] > 0).astype(int)).to_parquet(tmp_path / "rows.parquet", index=False)
    (tmp_path / "http_trainer.py").write_text(TRAINER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "airflow")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    yield {
        "step": "train_model",
        "args": {"dataset": str(tmp_path / "rows.parquet"), "trainer": "http_trainer:train", "target": "y"},
        "store": str(tmp_path / "store"),
        "key": "d/r/train/-1",
        "run": {"dag_id": "d"},
    }
    sys.modules.pop("http_trainer", None)
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def killed_at(point: str, spec: dict[str, Any], folder: Path) -> None:
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-m", "airflow_mlops.core", "--spec", "spec.json", "--report", "report.json"],
        env={**os.environ, "PYTHONPATH": str(folder), VARIABLE: point},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_server_that_goes_away_and_comes_back(spec: dict[str, Any], tmp_path: Path) -> None:
    port = free_port()
    with mlflow_server(tmp_path, port) as url:
        spec["tracking_uri"] = url
        killed_at("train.model_uploaded", spec, tmp_path)
        first = run_step(spec)
        again = run_step(spec)
        client = MlflowClient(url, url)
        assert again == {**first, "reused": True}
        assert len(client.search_runs([first["experiment_id"]])) == 1
        assert len(client.search_logged_models([first["experiment_id"]])) == 1
        context = StepContext(store=LocalStore(tmp_path / "store"), tracking_uri=url)
        local = models.download(context, ModelRef.from_dict(first), tmp_path / "copy")
        assert len(mlflow.pyfunc.load_model(str(local)).predict(pd.DataFrame({"a": [1.0], "b": [0.0]}))) == 1
        client.create_registered_model("orders")
        version = client.create_model_version("orders", first["uri"], first["run_id"], model_id=first["model_id"])
        assert mlflow.pyfunc.load_model(f"models:/orders/{version.version}").metadata.run_id == first["run_id"]
        spec["key"] = "d/other/train/-1"
        killed_at("train.fitted", spec, tmp_path)

    with pytest.raises(CannotReachError) as caught:
        run_step(spec)
    assert caught.value.retryable
    assert str(port) in str(caught.value)

    with mlflow_server(tmp_path, port):
        other = run_step(spec)
        client = MlflowClient(url, url)
        runs = client.search_runs([other["experiment_id"]])
        assert sorted(run.info.run_id for run in runs) == sorted([first["run_id"], other["run_id"]])
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert len(client.search_logged_models([first["experiment_id"]])) == 2


class Misbehaving(http.server.BaseHTTPRequestHandler):
    """Answers every request as the server's ``status`` and ``delay`` say."""

    def answer(self) -> None:
        time.sleep(self.server.delay)  # type: ignore[attr-defined]
        body = f"who are you, airflow:{SECRET}?".encode()
        with contextlib.suppress(OSError):
            self.send_response(self.server.status)  # type: ignore[attr-defined]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def misbehaving() -> Iterator[Any]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving)
    server.daemon_threads = True
    server.status, server.delay = 200, 0.0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "delay", "error", "says"),
    [
        (500, 0.0, CannotReachError, "cannot be reached or cannot answer now"),
        (503, 0.0, CannotReachError, "cannot be reached or cannot answer now"),
        (401, 0.0, CredentialsError, "refuses the credentials"),
        (403, 0.0, CredentialsError, "does not permit this"),
        (200, 5.0, CannotReachError, "no answer in time"),
    ],
)
def test_a_server_that_misbehaves(
    spec: dict[str, Any],
    misbehaving: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
    delay: float,
    error: type[MlopsError],
    says: str,
) -> None:
    misbehaving.status, misbehaving.delay = status, delay
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    spec["tracking_uri"] = f"http://127.0.0.1:{misbehaving.server_port}"
    with pytest.raises(error, match=says) as caught:
        run_step(spec)
    assert caught.value.retryable is (error is CannotReachError)
    text = str(caught.value) + json.dumps(caught.value.to_dict()) + caplog.text
    assert "hunter2" not in text


def test_nobody_listens(spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    spec["tracking_uri"] = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(CannotReachError, match="connection refused") as caught:
        run_step(spec)
    assert "hunter2" not in str(caught.value)


SCRIPT = """
import sys
import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression

rows = pd.read_parquet(sys.argv[1])
with mlflow.start_run():
    mlflow.log_param("mine", 1)
    model = LogisticRegression().fit(rows[["a", "b"]], rows["y"])
    mlflow.sklearn.log_model(model, name="mine", serialization_format="skops", input_example=rows[["a", "b"]].head(2),
                             pip_requirements=["scikit-learn"])
"""


def test_a_script_logs_to_the_server_and_its_model_is_taken(
    spec: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    command = {"command": ["python", "train.py", "{dataset}"], "cwd": str(tmp_path), "trainer": None}
    with mlflow_server(tmp_path, free_port()) as url:
        found = run_step({**spec, "tracking_uri": url, "args": {**spec["args"], **command}})

        client = MlflowClient(url, url)
        (one,) = client.search_runs([found["experiment_id"]])
        (model,) = client.search_logged_models([found["experiment_id"]])
        assert (one.info.status, one.data.params["mine"], model.name) == ("FINISHED", "1", "mine")
        assert (found["run_id"], found["model_id"]) == (one.info.run_id, model.model_id)
        context = StepContext(store=LocalStore(tmp_path / "store"), tracking_uri=url)
        assert models.download(context, ModelRef.from_dict(found), tmp_path / "copy")
    assert SECRET not in caplog.text
