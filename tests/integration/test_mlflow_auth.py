"""MLflow's own login (``mlflow server --app-name basic-auth``) and a connection of type ``mlflow`` with a password."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.server import get_app_client
from sklearn.linear_model import LogisticRegression

from airflow_mlops import backend
from airflow_mlops.exceptions import MlopsFailed
from airflow_mlops.hooks.mlflow import MLflowHook
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mlops.operators.training import TrainModelOperator
from servers.mlflow import start_mlflow, stop_mlflow

ADMIN, READER, FOREIGN = "Root/pa ss%word-1", "Reader/pa ss%word-2", "Zoë/pa ss%wörd-3"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[str]:
    """The address of a server with a user ``admin``, and two that may only read what others made."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder}/auth.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for this test",
    }
    url, process = start_mlflow(folder, migrated_database, "--app-name", "basic-auth", environment=environment)
    try:
        with backend.environment({"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": ADMIN}):
            for user, password in (("reader", READER), ("zoe", FOREIGN)):
                get_app_client("basic-auth", url).create_user(user, password)
        yield url
    finally:
        stop_mlflow(process)


@pytest.fixture
def connect(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Define the connection ``ours`` with a login."""

    def define(login: str, password: str) -> None:
        where = server.removeprefix("http://")
        monkeypatch.setenv("AIRFLOW_CONN_OURS", f"mlflow://{login}:{quote(password, safe='')}@{where}?timeout=120")

    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return define


def train(X: Any, y: Any) -> Any:
    return LogisticRegression().fit(X, y)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Execute an operator with the connection, as a task of its own."""
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2)), columns=["a", "b"])
    frame.assign(y=(frame["a"] > 0).astype(int)).to_parquet(tmp_path / "rows.parquet", index=False)

    def execute(kind: Any, **arguments: Any) -> Any:
        task_id = kind.__name__.lower()
        ti = SimpleNamespace(dag_id="locked", run_id="r1", task_id=task_id, map_index=-1, try_number=1)
        dag = SimpleNamespace(fileloc=str(tmp_path / "dag.py"), dag_id="locked")
        return kind(task_id=task_id, mlflow_conn_id="ours", **arguments).execute({"ti": ti, "dag": dag})

    return execute


def test_a_user_with_the_right_password_trains_registers_and_promotes(
    server: str, connect: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    connect("admin", ADMIN)
    assert MLflowHook("ours").test_connection() == (True, f"MLflow answers at {server}")
    model = run(TrainModelOperator, dataset="rows.parquet", trainer=train, target="y")
    version = run(RegisterModelOperator, model=model, model_name="locked")
    entry = run(PromoteModelOperator, model=version, alias="champion", reason="read")

    assert (version["version"], entry["version"], entry["alias"]) == (1, 1, "champion")
    with MLflowHook("ours").session() as client:
        assert int(client.get_model_version_by_alias("locked", "champion").version) == 1
    told = json.dumps([model, version, entry]) + caplog.text
    assert "pa ss" not in told
    assert quote(ADMIN, safe="") not in told


def test_a_wrong_password_is_said_and_not_tried_again(
    server: str, connect: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    connect("admin", "Wrong/pa ss%word-4")
    ok, said = MLflowHook("ours").test_connection()
    assert not ok
    assert said == (
        f"the MLflow server at {server} refuses the credentials; check login, password or token of the connection"
    )
    with pytest.raises(MlopsFailed, match="refuses the credentials") as caught:
        run(TrainModelOperator, dataset="rows.parquet", trainer=train, target="y")
    assert "pa ss" not in str(caught.value) + caplog.text


def test_nobody_at_all_is_refused_too(server: str, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OURS", server.replace("http", "mlflow", 1) + "?timeout=120")
    ok, said = MLflowHook("ours").test_connection()
    assert not ok
    assert "refuses" in said
    with pytest.raises(Exception, match="not authenticated"):
        MlflowClient(server, server).search_experiments()


def test_a_user_who_may_only_read_is_told_that_it_is_not_the_password(connect: Any, run: Any) -> None:
    connect("admin", ADMIN)
    model = run(TrainModelOperator, dataset="rows.parquet", trainer=train, target="y")
    run(RegisterModelOperator, model=model, model_name="locked_too")

    connect("reader", READER)
    assert MLflowHook("ours").test_connection()[0]
    with pytest.raises(MlopsFailed, match="does not permit this to the user"):
        run(PromoteModelOperator, model="models:/locked_too/1", alias="champion", reason="mine")
    with MLflowHook("ours").session() as client:
        assert client.get_registered_model("locked_too").aliases == {}


def test_a_password_that_mlflows_login_takes_only_in_part(connect: Any, run: Any) -> None:
    connect("zoe", FOREIGN)
    assert MLflowHook("ours").test_connection()[0]
    with pytest.raises(MlopsFailed, match="refuses the credentials") as caught:
        run(TrainModelOperator, dataset="rows.parquet", trainer=train, target="y", experiment="of her own")
    assert "takes only ASCII where files are transferred" in str(caught.value)
