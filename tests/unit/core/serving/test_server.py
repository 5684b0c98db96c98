"""The process of a model server: it answers as MLflow's own does, and loses no captured row when it is told to end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core import models
from airflow_mlops.core.serving import capture, scoring
from airflow_mlops.core.serving.client import ServerClient
from airflow_mlops.core.store import LocalStore
from servers.docker_steps import wait_for

CODE = """
import mlflow
from mlflow.pyfunc import PythonModel


class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        if (model_input["a"] < 0).any():
            raise RuntimeError("negative")
        return (model_input["a"] * 2).tolist()


mlflow.models.set_model(Model())
"""
#: Body and content type of requests, good and bad.
REQUESTS = [
    ('{"dataframe_split": {"columns": ["a"], "data": [[1.0], [2.0]]}}', "application/json"),
    ('{"dataframe_split": {"columns": ["a"], "data": [[1.0]]}}', "application/json; charset=utf-8"),
    ('{"dataframe_records": [{"a": 3.5}]}', "application/json"),
    ('{"inputs": {"a": [4.0]}}', "application/json"),
    ("a\n1.5\n", "text/csv"),
    ('{"dataframe_split": {"columns": ["b"], "data": [[1.0]]}}', "application/json"),
    ('{"dataframe_split": {"columns": ["a"], "data": [[-1.0]]}}', "application/json"),
    ('{"nonsense": 1}', "application/json"),
    ("{", "application/json"),
    ("a", "text/plain"),
    ("a", "text/csv; charset=latin-1"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder."""
    import mlflow
    import pandas as pd

    folder = tmp_path_factory.mktemp("model")
    (folder / "code.py").write_text(CODE)
    signature = mlflow.models.infer_signature(pd.DataFrame({"a": [1.0]}), [0.0])
    mlflow.pyfunc.save_model(
        str(folder / "model"), python_model=str(folder / "code.py"), signature=signature, pip_requirements=["mlflow"]
    )
    return folder / "model"


def test_every_answer_is_that_of_mlflows_own_server(saved: Path) -> None:
    import mlflow.pyfunc
    from mlflow.pyfunc import scoring_server
    from starlette.testclient import TestClient

    model = mlflow.pyfunc.load_model(str(saved))
    own, theirs = TestClient(scoring.application(model)), TestClient(scoring_server.init(model))

    def told(client: Any, body: str, kind: str) -> Any:
        answer = client.post("/invocations", content=body, headers={"Content-Type": kind})
        text = answer.json() if "json" in answer.headers["content-type"] else answer.text
        if isinstance(text, dict):
            text.pop("stack_trace", None)  # names the lines that called
        return answer.status_code, text, answer.headers["content-type"], int(answer.headers["content-length"]) > 0

    found = [told(own, *request) for request in REQUESTS]
    assert found == [told(theirs, *request) for request in REQUESTS]
    assert [status for status, *_ in found] == [200] * 5 + [400] * 4 + [415] * 2
    for path in ("/ping", "/health", "/version", "/invocations", "/nothing"):
        assert own.get(path).status_code == theirs.get(path).status_code


def test_one_that_takes_too_long_is_told_so(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    import mlflow.pyfunc
    from starlette.testclient import TestClient

    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "1")
    model = mlflow.pyfunc.load_model(str(saved))
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda data, params=None: (time.sleep(3), predict(data))[1])
    answer = TestClient(scoring.application(model)).post(
        "/invocations", content=REQUESTS[0][0], headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.text) == (504, "Request processing time exceeded limit")


@contextmanager
def process(saved: Path, folder: Path, store: LocalStore) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a server that would write what it captured in an hour."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        job = {
            "model": str(saved),
            "digest": models.digest_of(models.manifest_of(saved)),
            "identity": {"server": "flights", "model": "m", "version": None, "digest": "sha256:a", "deployment": 1},
            "capture": {"flush_seconds": 3600},
            "store": store.uri,
            "fd": listener.fileno(),
            "guarded": True,
        }
        (folder / "server.json").write_text(json.dumps(job))
        command = [sys.executable, "-m", "airflow_mlops.core.serving.server", str(folder / "server.json")]
        one = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()], cwd=folder, env={**os.environ, "CI": "1"}
        )
        try:
            yield one, f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            one.kill()
            one.wait()


@pytest.mark.parametrize("how", ["told", "orphan"])
def test_what_was_captured_is_written_when_it_ends(saved: Path, tmp_path: Path, store: LocalStore, how: str) -> None:
    with process(saved, tmp_path, store) as (server, address):
        with ServerClient(address, timeout=120) as client:
            for value in (1.0, 2.0, 3.0):
                client.invoke(json.dumps({"dataframe_split": {"columns": ["a"], "data": [[value]]}}).encode())
            # The connection stays open, as the gateway's do.
            if how == "told":
                server.send_signal(signal.SIGTERM)
            else:
                assert server.stdin
                server.stdin.close()
            wait_for(lambda: server.poll() is not None)
        assert server.returncode == 0
    rows = capture.read(store, "flights")
    assert rows["prediction"].tolist() == [2.0, 4.0, 6.0]
