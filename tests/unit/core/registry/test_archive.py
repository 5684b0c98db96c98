"""Archiving: what stays in any case, what goes, and what the ledger says of it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from airflow_mlops.core.errors import NotFoundError, SpecError
from airflow_mlops.core.registry import archive as archiving
from airflow_mlops.core.registry.archive import archive_models
from airflow_mlops.core.registry.moves import catch_up
from airflow_mlops.core.registry.overview import history as rows_of
from airflow_mlops.core.registry.overview import status
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.rollback import rollback_model


@pytest.fixture
def archive(as_task):
    """Archive as the task instance ``key``."""

    def call(key="archive/1", **arguments):
        return archive_models(as_task(key), model_name="churn", **arguments)

    return call


@pytest.fixture
def six(versions, as_task, log_model):
    """Six versions, of which 2 was and 4 is champion."""
    for number in (4, 5, 6):
        register_model(as_task(f"register/{number}"), model=log_model(str(number)), model_name="churn")
    for number in (2, 4):
        promote_model(as_task(f"promote/{number}"), model=f"churn/{number}")


def tagged(registered):
    return [int(one.version) for one in registered.versions() if "mlops.archived" in one.tags]


def folder_of(registered, number):
    return Path(unquote(urlsplit(registered.location(registered.version(number))).path))


def test_a_dry_run_says_what_would_go_and_why_the_rest_stays(archive, six, registered, history):
    plan = archive(keep=1, dry_run=True)

    assert plan["versions"] == [1, 3, 5]
    assert plan["kept"] == {"2": "can be rolled back to", "4": "is 'champion'", "6": "among the newest 1"}
    assert plan["entry"] is None
    assert tagged(registered) == []
    assert len(history()) == 2


def test_what_goes_is_tagged_and_on_record(archive, six, registered, mlflow_context):
    done = archive(keep=1, reason="quarterly", by="ana")

    assert (done["versions"], done["files"]) == ([1, 3, 5], [])
    assert {key: done["entry"][key] for key in ("seq", "action", "archived", "by", "version")} == {
        "seq": 3,
        "action": "archive",
        "archived": [1, 3, 5],
        "by": "ana",
        "version": None,
    }
    assert sorted(tagged(registered)) == [1, 3, 5]
    assert registered.version(3).tags["mlops.archived"] == "entry 3"
    row = rows_of(mlflow_context, "churn")[-1]
    assert (row["action"], row["reason"]) == ("archive", "archived 1, 3, 5; quarterly")
    assert [one["alias"] for one in status(mlflow_context, "churn")] == ["champion"]
    assert folder_of(registered, 3).is_dir(), "the files stay unless they are asked for"


def test_the_same_task_again_has_its_entry_back(archive, six, history):
    done = archive(keep=1)

    assert archive(keep=1)["entry"] == done["entry"]
    assert archive("another", keep=1)["entry"] is None, "nothing is left to archive"
    assert len(history()) == 3


def test_promotion_and_rollback_go_on_after_it(archive, six, promote, registered):
    archive(keep=1)
    promote("churn/6", key="promote/6")

    assert registered.alias("champion") == 6
    rollback_model(registered.context, model_name="churn")
    assert registered.alias("champion") == 4


def test_files_go_if_nothing_else_has_them(archive, six, registered, as_task):
    promote_model(as_task("prod"), model="churn/3", to_name="churn_production", evidence=[])
    folders = {number: folder_of(registered, number) for number in (1, 3, 5, 2)}

    done = archive(keep=1, delete_files=True)

    assert (done["versions"], done["files"]) == ([1, 3, 5], [1, 5])
    assert not (folders[1] / "MLmodel").exists()
    assert not (folders[5] / "MLmodel").exists()
    assert (folders[3] / "MLmodel").exists(), "production is made of the same files"
    assert (folders[2] / "MLmodel").exists()
    assert registered.version(1).tags["mlops.files"] == "deleted by entry 3"


def test_how_far_back_can_be_limited(archive, six):
    assert archive(keep=0, keep_rollback=0, dry_run=True)["versions"] == [1, 2, 3, 5, 6]


def test_what_comes_into_use_meanwhile_stays(archive, six, promote, registered, monkeypatch):
    def late(*arguments):
        entries = catch_up(*arguments)
        promote("churn/1", key="meanwhile")
        return entries

    monkeypatch.setattr(archiving, "catch_up", late)
    archive(keep=1)

    assert sorted(tagged(registered)) == [3, 5]
    assert registered.alias("champion") == 1


@pytest.mark.parametrize("wrong", [-1, "many", True, None])
def test_a_number_that_cannot_be(archive, six, wrong):
    with pytest.raises(SpecError, match="keep must be a number"):
        archive(keep=wrong)


def test_a_model_that_is_not_there(as_task, six):
    with pytest.raises(NotFoundError):
        archive_models(as_task("a"), model_name="chrun")
