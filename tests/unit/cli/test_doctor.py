"""``airflow mlops doctor``: each line says what is wrong and how to mend it."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import sqlite3
import time
from typing import Any

import pytest

from airflow_mlops.cli import doctor as module
from airflow_mlops.core.lifecycle import checkup
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.versions import RegisteredModel


@pytest.fixture
def examine(airflow: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command; return the exit code and the findings by check."""
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)

    def run(*words: str) -> tuple[Any, dict[str, list[dict[str, Any]]]]:
        code, printed = airflow("doctor", "--json", *words)
        found: dict[str, list[dict[str, Any]]] = {}
        for one in json.loads(printed):
            found.setdefault(one["check"], []).append(one)
        return code, found

    return run


def states(found: dict[str, list[dict[str, Any]]], check: str) -> list[str]:
    return [one["state"] for one in found[check]]


def test_a_sound_set_up_has_no_failure(examine, context):
    code, found = examine()

    assert code == 0, found
    assert {one["state"] for lines in found.values() for one in lines} <= {"ok", "warn"}
    for check in ("versions", "plugin", "telemetry", "configuration", "back end", "disk", "store", "clock"):
        assert set(states(found, check)) <= {"ok", "warn"}, found[check]
    assert "mlflow" in found["extra mlflow"][0]["message"]
    assert "has the schema of MLflow" in found["MLflow database"][0]["message"]
    assert not any(key.startswith("lifecycle/probes") for key in context.store.keys("lifecycle"))


def test_lines_for_people(airflow, context):
    code, printed = airflow("doctor")
    assert code == 0
    assert "\nok    store: file://" in printed


def test_an_unknown_option_and_backend(examine, context, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__HOEM", "/x")
    monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "embeded")

    code, found = examine()

    assert code.startswith("MlopsError: ")
    assert "did you mean 'home'" in found["configuration"][0]["message"]
    assert states(found, "back end") == ["fail"]


def test_an_executor_on_several_machines(examine, context, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    code, found = examine()

    assert "back end" in code
    assert "set [mlops] backend = connections" in found["back end"][0]["message"]


def test_a_connection_that_does_not_answer_and_no_secret_in_sight(examine, context, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "connections")
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", "mlflow://ana:s3cr3t@127.0.0.1:1")
    monkeypatch.setenv("AIRFLOW_CONN_MLOPS_STORE_DEFAULT", f"fs:///?path={context.store.root}")

    code, found = examine()

    assert "MLflow" in code
    assert states(found, "MLflow") == ["fail"]
    assert "correct the connection 'mlflow_default'" in found["MLflow"][0]["cure"]
    assert states(found, "store") == ["ok"]
    assert "s3cr3t" not in json.dumps(found) + code


def test_a_connection_that_is_not_there(examine, context, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "connections")
    _, found = examine("--mlflow-conn-id", "nobody", "--store-conn-id", "nowhere")

    assert "'nobody' cannot be had" in found["MLflow"][0]["message"]
    assert states(found, "store") == ["fail"]


def test_telemetry_that_somebody_turned_on(examine, context, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    _, found = examine()
    assert states(found, "telemetry") == ["warn"]
    assert "MLFLOW_DISABLE_TELEMETRY" in found["telemetry"][0]["message"]


@pytest.mark.parametrize(
    ("revision", "state", "words"),
    [
        ("ffffffffffff", "fail", "a newer MLflow"),
        ("451aebb31d03", "warn", "an older MLflow"),
        (None, "fail", "no database"),
    ],
)
def test_the_schema_of_the_database(context, revision, state, words):
    path = context.tracking_uri.removeprefix("sqlite:///")
    with sqlite3.connect(path) as connection:
        if revision:
            connection.execute("update alembic_version set version_num = ?", (revision,))
        else:
            connection.execute("drop table alembic_version")
    connection.close()

    (found,) = checkup.database(context.tracking_uri)

    assert (found.state, words in found.message) == (state, True), found
    assert found.cure


def test_a_database_that_is_not_there_yet(tmp_path):
    (found,) = checkup.database(f"sqlite:///{tmp_path}/none.db")
    assert (found.state, (tmp_path / "none.db").exists()) == ("ok", False)
    assert list(checkup.database("http://mlflow:5000")) == []


def test_ledgers(context, examine, log_model, monkeypatch):
    monkeypatch.setenv("AIRFLOW_MLOPS_LEASE_SECONDS", "0.2")
    register_model(context, model=log_model("1"), model_name="churn")
    promote_model(context, model="churn/1")
    assert "1 entries, and MLflow agrees" in examine()[1]["ledger"][0]["message"]

    RegisteredModel(context, "churn").point("shadow", 1)
    (found,) = checkup.ledgers(context)
    assert (found.state, "'shadow' was moved outside the ledger" in found.message) == ("warn", True)
    RegisteredModel(context, "churn").point("shadow", None)

    intent = {"action": "promote", "alias": "champion", "version": 1, "previous_version": 1, "by": "bo"}
    Ledger(context.store, "churn").begin(2, intent)
    time.sleep(0.3)
    (found,) = checkup.ledgers(context)
    assert "entry 2 (promote of 'champion' to version 1 by bo) was begun" in found.message
    assert "promote again" in str(found.cure)

    RegisteredModel(context, "churn").tag("mlops.ledger", "another")
    (found,) = checkup.ledgers(context)
    assert (found.state, "belongs to another registry" in found.message) == ("fail", True)


def test_what_killed_processes_left(context):
    context.store.put_json("lifecycle/gc/20260101T000000Z-1.json", {"state": "begun"})
    folder = context.store.staging_folder()
    os.utime(folder, (1, 1))

    found = list(checkup.leftovers(context.store))

    assert [one.state for one in found] == ["warn", "warn"]
    assert "gc --delete" in str(found[0].cure)


def test_a_store_that_cannot_decide_and_a_wrong_clock(context, monkeypatch):
    real = type(context.store).put_bytes
    monkeypatch.setattr(
        type(context.store), "put_bytes", lambda self, key, data, *, if_absent=False: real(self, key, data)
    )
    assert next(iter(checkup.store(context.store))).state == "fail"
    monkeypatch.undo()
    assert [checkup._clock(off).state for off in (1, 60, 3600)] == ["ok", "warn", "fail"]


def connect(monkeypatch, url):
    connection = {"conn_type": "docker", "host": "registry.example.com", "extra": {"docker_url": url}}
    monkeypatch.setenv("AIRFLOW_CONN_DOCKER_DEFAULT", json.dumps(connection))


def test_docker_is_only_needed_where_it_is_set_up(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "embedded")
    connect(monkeypatch, f"unix://{tmp_path}/none.sock")
    (found,) = module._docker()
    assert (found.state, "none.sock (connection 'docker_default') does not answer" in found.message) == ("fail", True)
    monkeypatch.delenv("AIRFLOW_CONN_DOCKER_DEFAULT")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/other.sock")
    (found,) = module._docker()
    assert (found.state, "other.sock does not answer" in found.message) == ("fail", True)
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setattr("airflow_mlops.runtimes.docker_engine.DEFAULT_URL", f"unix://{tmp_path}/usual.sock")
    (found,) = module._docker()
    assert (found.state, "usual.sock does not answer" in str(found.cure)) == ("ok", True)
    monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "connections")
    (found,) = module._docker()
    assert (found.state, found.message) == ("ok", "there is no connection 'docker_default'")


def test_the_engine_and_what_was_left_on_it(monkeypatch, docker_engine, base_image, tmp_path):
    connect(monkeypatch, docker_engine.url)
    first, second = module._docker()
    assert (first.state, second.state) == ("ok", "ok")
    assert re.search(
        r"^The Docker Engine at unix://\S+ \(connection 'docker_default'\) \S+ answers: \d+ CPUs", first.message
    )
    assert "none was left over" in second.message

    monkeypatch.setattr("airflow_mlops.runtimes.docker_leftovers.GRACE", dt.timedelta(0))
    name = f"airflow-mlops-{tmp_path.name}"
    docker_engine.command("create", "--name", name, "--label", "airflow_mlops.key=1", base_image, "true")
    try:
        _, second = module._docker()
    finally:
        docker_engine.command("rm", name)
    assert (second.state, second.cure) == ("warn", "airflow mlops reap --delete")
    assert name in second.message


def test_a_check_that_fails_itself_is_a_finding():
    def broken() -> Any:
        raise ZeroDivisionError("x https://ana:pw@host")

    (found,) = checkup.guarded("odd", broken)
    assert (found.state, "pw" in json.dumps(found.to_dict())) == ("fail", False)
