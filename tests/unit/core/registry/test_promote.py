"""Promoting: who may move an alias, and what the ledger says of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from airflow_mlops.core.errors import (
    ConflictError,
    GateFailedError,
    IntegrityError,
    NotFoundError,
    SpecError,
    SupersededError,
)
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import client


def test_a_promotion_moves_the_alias_and_says_who_and_why(promote, versions, registered, history):
    entry = promote(versions[0], reason="first model", by="ana")

    assert registered.alias("champion") == 1
    assert {k: entry[k] for k in ("kind", "seq", "action", "model", "version", "previous_version", "alias")} == {
        "kind": "ledger_entry",
        "seq": 1,
        "action": "promote",
        "model": "churn",
        "version": 1,
        "previous_version": None,
        "alias": "champion",
    }
    assert (entry["reason"], entry["by"], entry["digest"]) == ("first model", "ana", versions[0]["digest"])
    assert entry["run"]["dag_id"] == "flights"
    assert promote(versions[1], key="promote/2")["previous_version"] == 1
    assert history() == [(1, "done", "promote", 1), (2, "done", "promote", 2)]


def test_aliases_are_apart_and_one_ledger_numbers_them(promote, versions, registered):
    promote(versions[0], key="a", alias="champion")
    entry = promote(versions[1], key="b", alias="shadow")

    assert (entry["seq"], entry["previous_version"]) == (2, None)
    assert registered.aliases() == {"champion": 1, "shadow": 2}


def test_the_same_task_again_changes_nothing(promote, versions, history):
    first = promote(versions[0])

    assert promote(versions[0]) == first
    assert history() == [(1, "done", "promote", 1)]


def test_clearing_an_old_promotion_does_not_undo_a_later_one(promote, versions, registered):
    promote(versions[0], key="old")
    promote(versions[1], key="new")

    with pytest.raises(SupersededError, match=r"entry 1 .* is superseded by entry 2"):
        promote(versions[0], key="old")
    assert registered.alias("champion") == 2


def test_an_old_task_cleared_with_another_model_needs_to_say_what_it_replaces(promote, versions, registered):
    promote(versions[0], key="old")
    promote(versions[1], key="new")

    with pytest.raises(SupersededError, match="superseded by entry 2"):
        promote(versions[2], key="old")
    with pytest.raises(ConflictError, match=r"version 2 now.*version 1"):
        promote(versions[2], key="old", expected_champion=1)
    assert promote(versions[2], key="old", expected_champion=2)["seq"] == 3


def test_a_task_cleared_with_another_model_while_its_own_promotion_stands_promotes_again(promote, versions):
    promote(versions[0], key="mine")

    assert promote(versions[1], key="mine")["previous_version"] == 1


@pytest.mark.parametrize("expected", [None, "none", 2, "2"])
def test_a_champion_other_than_expected_is_a_conflict_that_names_both(promote, versions, registered, expected):
    promote(versions[0], key="first")

    named = "version 2" if str(expected) == "2" else "no version"
    with pytest.raises(ConflictError, match=f"version 1 now since entry 1.*{named} is what"):
        promote(versions[2], key="second", expected_champion=expected)
    assert registered.alias("champion") == 1


def test_what_serves_already_is_said_to_and_no_new_entry_is_made(promote, versions, registered, report):
    evidence = report(versions[0], against={"version": None})
    promote(versions[0], key="first", evidence=evidence)

    with pytest.raises(ConflictError, match=r"is version 1 already since entry 1 .*: there is nothing to do"):
        promote(versions[0], key="second", evidence=evidence)
    assert registered.alias("champion") == 1


def test_the_expected_champion_is_the_one_that_the_evidence_was_measured_against(promote, versions, report):
    promote(versions[0], key="first")
    against_1 = report(versions[1], against={"version": 1})
    against_none = report(versions[2], against={"version": None})

    assert promote(versions[1], key="second", evidence=against_1)["version"] == 2
    with pytest.raises(ConflictError, match=r"version 2 now.*no version"):
        promote(versions[2], key="third", evidence=against_none)
    # A person who knows better may say so.
    assert promote(versions[2], key="third", evidence=against_none, expected_champion=2)["version"] == 3


def test_evidence_against_another_name_says_nothing_of_this_one(promote, versions, report):
    promote(versions[0], key="first")
    evidence = report(versions[1], against={"alias": "other@champion", "version": 7})

    assert promote(versions[1], key="second", evidence=evidence)["version"] == 2


def test_evidence_without_a_champion_expects_nothing(promote, versions, report):
    promote(versions[0], key="first")
    evidence = report(versions[1], champion_version=None)

    assert promote(versions[1], key="second", evidence=evidence)["previous_version"] == 1


def test_evidence_that_failed_is_refused(promote, versions, report, registered, history):
    with pytest.raises(GateFailedError, match=r"at least 0\.8 was asked for"):
        promote(versions[0], evidence=[report(versions[0]), report(versions[0], passed=False)])
    assert registered.alias("champion") is None
    assert history() == []


def test_evidence_of_another_model_is_refused(promote, versions, report, history):
    with pytest.raises(ConflictError, match="speaks of sha256:"):
        promote(versions[0], evidence=report(versions[1]))
    assert history() == []


def test_evidence_of_the_models_own_data_counts(as_task, promote, log_model, report):
    model = register_model(
        as_task("register/x"), model=log_model("x", training={"dataset_digest": "sha256:d4"}), model_name="churn"
    )

    entry = promote("churn/1", evidence=[report(model, kind="validation", subject="sha256:d4")])

    assert [e["kind"] for e in entry["evidence"]] == ["validation"]
    with pytest.raises(ConflictError, match="speaks of sha256:e5"):
        promote("churn/1", key="other", evidence=[report(model, kind="validation", subject="sha256:e5")])


def test_tampered_evidence_is_refused(promote, versions, report, mlflow_context, history):
    altered = report(versions[0])
    key = mlflow_context.store.key_of(altered["details_uri"])
    mlflow_context.store.put_json(key, {"tests": [], "of": "something else"})
    with pytest.raises(IntegrityError, match="not those that it was made with"):
        promote(versions[0], evidence=altered)

    mlflow_context.store.delete(key)
    with pytest.raises(IntegrityError, match="are gone"):
        promote(versions[0], evidence=altered)

    turned = report(versions[1], passed=False)
    with pytest.raises(IntegrityError, match="1 of the checks in its details failed"):
        promote(versions[1], evidence={**turned, "passed": True})

    foreign = {**report(versions[2]), "details_uri": "file:///elsewhere/details.json"}
    with pytest.raises(IntegrityError, match="cannot be verified"):
        promote(versions[2], evidence=foreign)
    assert history() == []


def test_the_evidence_registered_with_a_version_counts_unless_waived(as_task, promote, log_model, report):
    good, bad = log_model("good"), log_model("bad")
    register_model(as_task("r/1"), model=good, model_name="churn", evidence=[report(good)])
    register_model(as_task("r/2"), model=bad, model_name="churn", evidence=[report(bad, passed=False)])

    entry = promote("churn/1", key="a")
    assert (entry["evidence"][0]["passed"], entry["evidence_waived"]) == (True, False)
    with pytest.raises(GateFailedError):
        promote("churn/2", key="b")
    entry = promote("churn/2", key="b", evidence=[])
    assert (entry["evidence"], entry["evidence_waived"]) == ([], True)


def test_an_artifact_altered_on_disk_is_not_promoted(promote, versions, mlflow_context, registered):
    logged = client(mlflow_context, "the test").get_logged_model(versions[0]["model_id"])
    path = Path(unquote(urlsplit(logged.artifact_location).path)) / "weights.txt"
    path.write_text("altered")

    for model in (versions[0], "churn/1", "models:/churn/1"):
        with pytest.raises(IntegrityError, match=r"weights\.txt"):
            promote(model)
    assert registered.alias("champion") is None


def test_a_move_by_hand_is_recorded_and_not_undone(promote, versions, registered, history):
    promote(versions[0], key="first")
    registered.point("champion", 3)

    with pytest.raises(ConflictError, match=r"version 3 now since entry 2 \(external"):
        promote(versions[1], key="second", expected_champion=1)
    assert registered.alias("champion") == 3
    assert history() == [(1, "done", "promote", 1), (2, "done", "external", 3)]
    with pytest.raises(SupersededError, match="superseded by entry 2"):
        promote(versions[0], key="first")
    assert promote(versions[1], key="second", expected_champion=3)["seq"] == 3


def test_an_alias_from_before_the_ledger_and_one_removed_by_hand_are_external(promote, versions, registered, history):
    registered.point("champion", 2)
    promote(versions[0], key="a")
    registered.point("champion", None)
    promote(versions[2], key="b")

    assert history() == [
        (1, "done", "external", 2),
        (2, "done", "promote", 1),
        (3, "done", "external", None),
        (4, "done", "promote", 3),
    ]


def test_promotion_to_another_registered_name(promote, versions, mlflow_context, as_task, report):
    evidence = report(versions[1], against={"version": 9})
    entry = promote(versions[1], to_name="churn_production", evidence=evidence)

    assert (entry["model"], entry["version"], entry["digest"]) == ("churn_production", 1, versions[1]["digest"])
    copy = client(mlflow_context, "the test").get_model_version("churn_production", "1")
    assert copy.tags["promoted_from"] == "churn/2"
    # The same version from another task: no second copy, one more entry.
    again = promote(versions[1], key="promote/2", to_name="churn_production")
    assert (again["seq"], again["version"]) == (2, 1)


def test_a_logged_model_needs_a_name_to_be_promoted_under(promote, log_model):
    model = log_model()

    with pytest.raises(SpecError, match="register it first"):
        promote(model)
    assert promote(model, to_name="churn")["version"] == 1


def test_the_ledger_of_another_registry_is_refused(promote, versions, mlflow_context, migrated_database, tmp_path):
    import shutil

    promote(versions[0])
    fresh = tmp_path / "other"
    fresh.mkdir()
    shutil.copy(migrated_database, fresh / "mlflow.db")
    other = dataclasses.replace(mlflow_context, tracking_uri=f"sqlite:///{fresh}/mlflow.db", key="x")
    mlflow_client = client(other, "the test")
    mlflow_client.create_registered_model("churn")
    logged = Path(tmp_path / "theirs")
    logged.mkdir()
    (logged / "MLmodel").write_text("flavors: {}\n")
    mlflow_client.create_model_version("churn", str(logged))

    with pytest.raises(ConflictError, match="belongs to another registry"):
        promote_model(other, model="churn/1", evidence=[])
    assert mlflow_client.get_registered_model("churn").aliases == {}

    stranger = dataclasses.replace(mlflow_context, store=LocalStore(tmp_path / "empty"))
    with pytest.raises(ConflictError, match="has its ledger in another store"):
        promote_model(stranger, model="churn/1", evidence=[])


def test_a_first_use_cut_short_is_completed(promote, versions, registered, ledger):
    # The binding was written, and the process died before it could tag the registered model.
    registered.client.delete_registered_model_tag("churn", "mlops.ledger")
    for key in list(ledger.store.keys("versions")):
        ledger.store.delete(key)

    assert promote("churn/1")["seq"] == 1


def test_a_ledger_with_a_hole_is_not_trusted(promote, versions, ledger):
    for number in (0, 1, 2):
        promote(versions[number], key=str(number))
    ledger.store.delete("ledger/churn/00000002.outcome.json")

    with pytest.raises(IntegrityError, match="lacks a part of entry 2"):
        Ledger(ledger.store, "churn").entries()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alias": ""}, SpecError, "alias must be a name"),
        ({"alias": "v3"}, SpecError, "MLflow at"),
        ({"expected_champion": "the old one"}, SpecError, "must be a version number"),
        ({"evidence": "passed"}, SpecError, "must be a report"),
        ({"evidence": [{"kind": "model_test"}]}, SpecError, "expected a report"),
        ({"model": "churn/9"}, NotFoundError, "9"),
        ({"model": "nothing@champion"}, NotFoundError, "no alias 'champion'"),
    ],
)
def test_bad_arguments_say_what_is_wrong(promote, versions, arguments, error, message):
    with pytest.raises(error, match=message):
        promote(**{"model": versions[0], **arguments})
