"""Registering: one version for one model and task instance."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from airflow_mlops.core import models
from airflow_mlops.core.errors import ConflictError, IntegrityError, NotFoundError, SpecError
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.versions import RegisteredModel, version_record
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import client, sqlite_file


def numbers(registered: RegisteredModel) -> list[int]:
    found = registered.client.search_model_versions(f"name='{registered.name}'")
    return sorted(int(version.version) for version in found)


def files_of(context: Any, ref: dict[str, Any]) -> Path:
    logged = client(context, "the test").get_logged_model(ref["model_id"])
    return Path(unquote(urlsplit(logged.artifact_location).path))


def test_register_gives_a_version_that_names_what_it_was_made_of(as_task, log_model, registered):
    model = log_model(
        training={"dataset_digest": "sha256:d4"}, code={"git_sha": "abc123", "dirty": False}, metrics={"roc_auc": 0.7}
    )
    ref = register_model(
        as_task("run/1"), model=model, model_name="churn", tags={"team": "growth"}, description="the first"
    )

    assert (ref["kind"], ref["name"], ref["version"], ref["uri"]) == ("model", "churn", 1, "models:/churn/1")
    assert ref["digest"] == model["digest"]
    assert ref["metrics"] == {"roc_auc": 0.7}
    version = registered.version(1)
    assert version.description == "the first"
    assert version.tags["team"] == "growth"
    assert version.tags["mlops.digest"] == model["digest"]
    assert version.tags["mlops.dataset_digest"] == "sha256:d4"
    assert version.tags["mlops.code_sha"] == "abc123"
    assert version.tags["mlops.run"] == "flights/run/1/step"
    assert "mlops.previous_champion" not in version.tags


def test_a_version_resolves_to_what_is_on_record(as_task, log_model, mlflow_context):
    model = log_model(training={"dataset_digest": "sha256:d4"})
    register_model(as_task("run/1"), model=model, model_name="churn")

    ref = models.resolve(mlflow_context, "models:/churn/1")

    assert (ref.model_id, ref.digest, ref.training) == (model["model_id"], model["digest"], model["training"])


def test_files_stay_where_they_are_and_as_they_are(as_task, log_model, mlflow_context):
    model = log_model()
    folder = files_of(mlflow_context, model)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    register_model(as_task("run/1"), model=model, model_name="churn")
    register_model(as_task("run/2"), model="models:/churn/1", model_name="churn")

    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_same_task_gets_its_version_back(as_task, log_model, registered):
    model = log_model()
    first = register_model(as_task("run/1"), model=model, model_name="churn")
    again = register_model(as_task("run/1"), model=model, model_name="churn")

    assert again == first
    assert numbers(registered) == [1]


def test_another_model_or_another_run_is_another_version(as_task, log_model, registered):
    model = log_model("1")
    register_model(as_task("run/1"), model=model, model_name="churn")
    register_model(as_task("run/1"), model=log_model("2"), model_name="churn")
    ref = register_model(as_task("run/2"), model=model, model_name="churn")

    assert ref["version"] == 3
    assert numbers(registered) == [1, 2, 3]


def test_a_version_that_was_deleted_in_mlflow_is_registered_anew(as_task, log_model, registered):
    model = log_model()
    register_model(as_task("run/1"), model=model, model_name="churn")
    registered.delete_version(1)

    assert register_model(as_task("run/1"), model=model, model_name="churn")["version"] == 2


def test_a_version_made_twice_is_taken_back(as_task, log_model, registered):
    model = log_model()
    register_model(as_task("run/1"), model=model, model_name="churn")
    key = registered.version(1).tags["mlops.key"]
    # What two processes leave, one of which was slower than its lease.
    registered.create_version(models.ModelRef.from_dict(model), {"mlops.key": key})

    assert register_model(as_task("run/1"), model=model, model_name="churn")["version"] == 1
    assert numbers(registered) == [1]


def test_the_champion_of_the_time_is_noted(as_task, log_model, registered):
    register_model(as_task("run/1"), model=log_model("1"), model_name="churn")
    registered.point("champion", 1)
    register_model(as_task("run/2"), model=log_model("2"), model_name="churn")

    assert registered.version(2).tags["mlops.previous_champion"] == "1"


def test_altered_files_are_not_registered(as_task, log_model, mlflow_context, registered):
    model = log_model()
    (files_of(mlflow_context, model) / "weights.txt").write_text("altered")

    with pytest.raises(IntegrityError, match=r"weights\.txt.*altered after the fact"):
        register_model(as_task("run/1"), model=model, model_name="churn")
    assert not registered.exists()


def test_a_model_trained_elsewhere_registers_with_the_digest_of_its_files(as_task, log_model, mlflow_context):
    model = log_model(record=False)

    ref = register_model(as_task("run/1"), model=model["uri"], model_name="churn")

    assert ref["digest"] == model["digest"]
    assert ref["training"] is None
    assert version_record(mlflow_context, "churn", 1)["manifest"].keys() == {"MLmodel", "weights.txt"}
    # Registering loads nothing, so it is no vouching: loading still asks for trust.
    assert models.recorded(mlflow_context, models.ModelRef(uri=model["uri"], model_id=model["model_id"])) is None


def test_a_runs_uri_stands_for_the_model_that_the_run_logged(as_task, mlflow_context, registered):
    mlflow = pytest.importorskip("mlflow")
    from airflow_mlops.core.tracking import experiment_id

    mlflow_client = client(mlflow_context, "the test")
    experiment = experiment_id(mlflow_client, mlflow_context, "tests")

    class Constant(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return model_input

    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.pyfunc.log_model(name="constant", python_model=Constant(), pip_requirements=[])

    ref = register_model(as_task("run/1"), model=f"runs:/{run.info.run_id}/constant", model_name="churn")

    assert ref["model_id"].startswith("m-")
    assert registered.version(1).run_id == run.info.run_id


def test_evidence_is_kept_with_the_version_and_renewed_when_the_gate_runs_again(
    as_task, log_model, report, mlflow_context
):
    model = log_model()
    first = report(model, summary="first")
    register_model(as_task("run/1"), model=model, model_name="churn", evidence=[first])
    assert version_record(mlflow_context, "churn", 1)["evidence"] == [first]

    second = report(model, summary="second")
    register_model(as_task("run/1"), model=model, model_name="churn", evidence=second)
    assert version_record(mlflow_context, "churn", 1)["evidence"] == [second]


def test_names_of_any_script(as_task, log_model, mlflow_context):
    ref = register_model(as_task("run/1"), model=log_model(), model_name="Kündigung läuft's")

    assert register_model(as_task("run/1"), model=ref, model_name="Kündigung läuft's")["version"] == 1
    assert models.resolve(mlflow_context, "models:/Kündigung läuft's/1").digest == ref["digest"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": ""}, "must be a name"),
        ({"model_name": "churn", "tags": {"mlops.key": "x"}}, "provider's own"),
        ({"model_name": "churn", "evidence": "passed"}, "must be a report"),
        ({"model_name": "a/b"}, "MLflow at"),
    ],
)
def test_bad_arguments_say_what_is_wrong(as_task, log_model, arguments, message):
    with pytest.raises(SpecError, match=message):
        register_model(as_task("run/1"), model=log_model(), **arguments)


def test_a_model_that_is_not_there(as_task, mlflow_context):
    with pytest.raises(NotFoundError):
        register_model(as_task("run/1"), model="models:/nothing/1", model_name="churn")


def test_a_store_of_another_registry_is_refused(as_task, log_model, mlflow_context, tmp_path):
    import dataclasses

    register_model(as_task("run/1"), model=log_model("1"), model_name="churn")
    elsewhere = dataclasses.replace(mlflow_context, store=LocalStore(tmp_path / "another"), key="run/2")

    with pytest.raises(ConflictError, match="has its ledger in another store"):
        register_model(elsewhere, model=log_model("2", record=False)["uri"], model_name="churn")


def test_a_model_that_another_task_begins_and_registers_between_two_looks(as_task, log_model, monkeypatch):
    model, binding, others = log_model("1"), Ledger.binding, []

    def begun_by_another(self):
        if not others:
            others.append(None)
            others.append(register_model(as_task("run/1"), model=model, model_name="churn"))
        return binding(self)

    monkeypatch.setattr(Ledger, "binding", begun_by_another)
    ref = register_model(as_task("run/2"), model=model, model_name="churn")

    assert (others[1]["version"], ref["version"]) == (1, 2)


def test_two_that_tag_a_model_at_once(mlflow_context):
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelTag
    from sqlalchemy import event

    registered = RegisteredModel(mlflow_context, "churn")
    registered.create()
    file, others = sqlite_file(mlflow_context.tracking_uri), []

    def another_comes_first(mapper, connection, row):
        others.append((row.workspace, row.name, row.key, "theirs"))
        with sqlite3.connect(file) as other:
            other.execute(
                "INSERT INTO registered_model_tags (workspace, name, key, value) VALUES (?, ?, ?, ?)", others[0]
            )

    event.listen(SqlRegisteredModelTag, "before_insert", another_comes_first, once=True)
    registered.tag("mlops.ledger", "ours")

    assert len(others) == 1
    assert registered.tags()["mlops.ledger"] == "ours"
