"""The examples about code, run in Airflow on a real repository, and the image and its model on a real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from airflow_mlops.core.tracking import sqlite_uri
from servers.docker import Engine
from servers.git import Repository

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
URL = "https://git.example.com/team/churn.git"
TRAINER = """
from sklearn.linear_model import LogisticRegression


def fit(X, y):
    return LogisticRegression().fit(X, y)
"""


def example(airflow_test: Any, name: str, repository: Repository, **more: str) -> None:
    """Put an example into the dags folder, its repository being one of this test."""
    text = (EXAMPLES / name).read_text()
    for before, after in {URL: str(repository.folder), **more}.items():
        assert before in text, before
        text = text.replace(before, after)
    (airflow_test.dags / name).write_text(text)


def test_a_commit_is_waited_for_and_checked_out(airflow_test: Any, repository: Repository) -> None:
    sha = repository.commit("one", requirements_txt="", churn_project_py=TRAINER)
    example(airflow_test, "code_changes.py", repository)
    connection = json.dumps({"conn_type": "git", "host": str(repository.folder)})
    added = airflow_test.cli("connections", "add", "code", "--conn-json", connection)
    assert added.returncode == 0, added.stdout
    for dag in ("churn_nightly", "churn_commits"):
        done = airflow_test.cli("dags", "test", dag, "2026-01-01")
        assert done.returncode == 0, done.stdout[-4000:]
        assert sha in done.stdout
    (copy,) = (airflow_test.home / "mlops" / "code" / "commits").glob("[0-9a-f]*")
    assert (copy / "churn_project.py").read_text() == TRAINER


def test_a_model_is_trained_in_the_image_of_its_commit(
    airflow_test: Any, repository: Repository, ml_image: str, docker_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_engine.url)
    sha = repository.commit("one", Dockerfile=f"FROM {ml_image}\nRUN true\n", churn_project_py=TRAINER)
    rows = repository.folder.parent / "customers.csv"
    rows.write_text("calls,churned\n" + "".join(f"{n % 9},{int(n % 9 > 4)}\n" for n in range(200)))
    example(airflow_test, "build_image.py", repository, **{"/data/customers.csv": str(rows)})
    done = airflow_test.cli("dags", "test", "churn_in_its_image", "2026-01-01")
    assert done.returncode == 0, done.stdout[-6000:]
    uri = sqlite_uri(airflow_test.home / "mlops" / "mlflow.db")
    client = MlflowClient(uri, uri)
    (model,) = client.search_logged_models([e.experiment_id for e in client.search_experiments()])
    (image,) = docker_engine.client.images(name=f"churn:{sha}")
    assert model.tags["mlops.git_sha"] == sha
    assert model.tags["mlops.image"] == image["Id"]
    docker_engine.command("rmi", "--force", f"churn:{sha}")
