"""Fixtures that every kind of test uses."""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine; fixtures that a function shares are meant.
settings.register_profile("machine", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("machine")

# Before anything imports Airflow: a home of its own, so that no test reads or writes the user's.
_HOME = Path(os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-mlops-tests-")))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ.setdefault("AIRFLOW__CORE__UNIT_TEST_MODE", "False")

# The servers that tests start live beside this file.
sys.path.insert(0, str(Path(__file__).parent))

from airflow_mlops.core.steps import StepContext  # noqa: E402
from airflow_mlops.core.store import LocalStore  # noqa: E402
from airflow_mlops.core.tracking import sqlite_uri  # noqa: E402
from servers.docker import base_image as base_image  # noqa: E402
from servers.docker import docker_engine as docker_engine  # noqa: E402
from servers.docker import ml_image as ml_image  # noqa: E402
from servers.git import git_server as git_server  # noqa: E402
from servers.git import repository as repository  # noqa: E402
from servers.inboxes import mail_server as mail_server  # noqa: E402
from servers.inboxes import web_hook as web_hook  # noqa: E402
from servers.interpreters import bare_python as bare_python  # noqa: E402
from servers.interpreters import other_python as other_python  # noqa: E402
from servers.interpreters import plain_python as plain_python  # noqa: E402
from servers.postgres import postgres as postgres  # noqa: E402
from servers.s3 import s3_proxy as s3_proxy  # noqa: E402
from servers.s3 import s3_server as s3_server  # noqa: E402
from servers.s3 import s3_store as s3_store  # noqa: E402


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store in a temporary folder."""
    return LocalStore(tmp_path / "store")


@pytest.fixture
def context(store: LocalStore, tmp_path: Path) -> StepContext:
    """The context of a step that runs in a DAG named ``flights``."""
    return StepContext(
        store=store,
        tracking_uri=sqlite_uri(tmp_path / "mlflow.db"),
        key="flights/manual__1/step/-1",
        run={"dag_id": "flights", "run_id": "manual__1", "task_id": "step", "map_index": -1},
    )


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow SQLite file after its migrations, which take seconds; tests copy it."""
    from airflow_mlops.core.tracking import client

    folder = tmp_path_factory.mktemp("mlflow")
    client(StepContext(store=LocalStore(folder), tracking_uri=sqlite_uri(folder / "mlflow.db")), "the tests")
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_context(context: StepContext, migrated_database: Path, tmp_path: Path) -> StepContext:
    """The step's context on an MLflow that is set up already."""
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    return context


@pytest.fixture
def log_model(mlflow_context: StepContext, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Log a model of a few bytes and put it on record, as training does; returns its ref.

    Nothing here loads models, so the files need not be a model of any library. ``weights`` make it differ.
    """
    from airflow_mlops.core import models
    from airflow_mlops.core.tracking import client, experiment_id
    from airflow_mlops.core.vocabulary import ModelRef

    def log(weights: str = "1", record: bool = True, **known: Any) -> dict[str, Any]:
        mlflow_client = client(mlflow_context, "the tests")
        experiment = experiment_id(mlflow_client, mlflow_context, "tests")
        run = mlflow_client.create_run(experiment)
        logged = mlflow_client.create_logged_model(experiment, name="model", source_run_id=run.info.run_id)
        folder = tmp_path / f"files-{logged.model_id}"
        folder.mkdir()
        (folder / "MLmodel").write_text(f"flavors: {{}}\nmodel_id: {logged.model_id}\n")
        (folder / "weights.txt").write_text(weights)
        mlflow_client.log_model_artifacts(logged.model_id, str(folder))
        mlflow_client.finalize_logged_model(logged.model_id, "READY")
        manifest = models.manifest_of(folder)
        ref = ModelRef(
            uri=f"models:/{logged.model_id}",
            model_id=logged.model_id,
            run_id=run.info.run_id,
            digest=models.digest_of(manifest),
            **known,
        )
        if record:
            models.record(mlflow_context, ref, manifest)
        return ref.to_dict()

    return log


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have pytest-xdist keep in one process the files that share a costly server, else the tests of each file."""
    from xdist.scheduler import LoadScopeScheduling

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return server_of(config.rootpath / nodeid.partition("::")[0])

    return ByServer(config, log)


@functools.cache
def server_of(file: Path) -> str:
    """Return what a file's tests share: the Docker Engine, the place of a whole Airflow, or nothing but the file."""
    text = file.read_text(encoding="utf-8")
    if re.search(r"\b(docker_engine|base_image|ml_image|docker_steps)\b", text):
        return "docker"
    return "scheduler" if "pytest.mark.scheduler" in text else os.fspath(file)
