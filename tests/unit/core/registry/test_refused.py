"""A challenger that lost has a version, and everybody can read why it is not promoted, and why it was made."""

from __future__ import annotations

import json

import pytest

from airflow_mlops.core.errors import GateFailedError
from airflow_mlops.core.registry import overview
from airflow_mlops.core.registry.card import publish_card
from airflow_mlops.core.registry.register import register_model

NAME = "churn"
WHY = "Retrain, because performance was too low in 2 of the last 3 windows."
LOST = {
    "failures": [
        {
            "name": "roc_auc against the champion",
            "message": "roc_auc is 0.69, 0.012 worse; by 31 days the difference is between -0.02 and -0.004",
        }
    ]
}
SAID = "the model test did not pass: roc_auc against the champion: roc_auc is 0.69, 0.012 worse; by 31 days"


@pytest.fixture
def lost(as_task, log_model, report, promote, versions):
    """Version 4, which lost against version 1, and was made for a reason."""
    promote(versions[0])
    ref = log_model(weights="4")
    evidence = report(ref, passed=False, against={"version": 1}, **LOST)
    return register_model(as_task("register/4"), model=ref, model_name=NAME, evidence=[evidence], reason=WHY)


def test_history_status_tags_and_card_say_why(mlflow_context, lost, registered):
    assert lost["version"] == 4
    tags = registered.version(4).tags
    assert tags["mlops.reason"] == WHY
    assert tags["mlops.refused"].startswith(SAID)

    first, row = overview.history(mlflow_context, NAME)
    assert (first["entry"], first["version"]) == (1, 1)
    assert (row["entry"], row["action"], row["version"], row["evidence"]) == (None, "refused", 4, "model_test failed")
    assert row["reason"].startswith(f"{WHY} Not promoted: {SAID}")
    assert row["made_because"] == WHY
    (row,) = overview.status(mlflow_context, NAME)
    assert row["refused"].startswith(f"version 4: {SAID}")
    found = publish_card(mlflow_context, NAME, 4)
    for kind in ("markdown", "html"):
        text = mlflow_context.store.get_bytes(mlflow_context.store.key_of(found[kind])).decode()
        assert "by 31 days the difference is between -0.02 and -0.004" in text
        assert "Made because: Retrain, because" in text


def test_a_promotion_refuses_it_or_says_so_and_moves_nothing(promote, lost, registered, history):
    with pytest.raises(GateFailedError, match="Nothing was promoted"):
        promote(lost, key="promote/4")
    answer = promote(lost, key="promote/4", refuse="return")

    assert {key: answer[key] for key in ("kind", "model", "version")} == {
        "kind": "refusal",
        "model": NAME,
        "version": 4,
    }
    assert answer["reason"].startswith(SAID)
    assert answer["card_uri"].endswith("/card.html")
    assert registered.alias("champion") == 1
    assert len(history()) == 1


def test_evidence_that_comes_with_the_promotion_is_kept_too_until_better_evidence_comes(
    mlflow_context, promote, versions, report, registered
):
    promote(versions[0])
    against = {"version": 1}
    refusal = report(versions[1], passed=False, against=against, **LOST)
    assert promote(versions[1], key="promote/2", evidence=[refusal], refuse="return")["kind"] == "refusal"
    assert [row["action"] for row in overview.history(mlflow_context, NAME)] == ["promote", "refused"]
    # What speaks of another model says nothing of this one.
    promote(versions[2], key="promote/3", evidence=[refusal], refuse="return")
    assert "mlops.refused" not in registered.version(3).tags

    entry = promote(versions[1], key="promote/2", evidence=[report(versions[1], against=against)])

    assert entry["version"] == 2
    assert registered.version(2).tags["mlops.refused"] == ""
    assert [row["action"] for row in overview.history(mlflow_context, NAME)] == ["promote", "promote"]
    assert overview.status(mlflow_context, NAME)[0]["refused"] is None


def test_a_winner_over_a_champion_that_is_gone_is_refused_and_says_which_serves(
    mlflow_context, promote, versions, report, registered
):
    promote(versions[0])
    evidence = [report(versions[2], against={"version": 1})]
    promote(versions[1], key="promote/2")
    answer = promote(versions[2], key="promote/3", evidence=evidence, refuse="return")

    assert answer["reason"].startswith("'champion' of 'churn' is version 2 now since entry 2 (promote of")
    assert "version 1 is what it was expected to have, or was measured against" in answer["reason"]
    assert registered.alias("champion") == 2
    rows = [(row["action"], row["version"]) for row in overview.history(mlflow_context, NAME)]
    assert rows == [("promote", 1), ("promote", 2), ("refused", 3)]
    again = [report(versions[2], against={"version": 2})]
    assert promote(versions[2], key="promote/4", evidence=again)["version"] == 3
    assert registered.version(3).tags["mlops.refused"] == ""


def test_what_stopped_a_release_after_its_test_stays_with_the_version(
    as_task, mlflow_context, log_model, promote, versions, report, registered
):
    promote(versions[0])
    ref = log_model(weights="4")
    tested = report(ref, against={"version": 1})
    won = register_model(as_task("register/4"), model=ref, model_name=NAME, evidence=[tested])
    wrong = {"name": "canary", "message": "6 of 40 answers are not those of its own files"}
    canary = report(ref, passed=False, kind="deployment", failures=[wrong])
    said = "the deployment did not pass: canary: 6 of 40 answers are not those of its own files"

    assert promote(won, key="promote/4", evidence=[tested, canary], refuse="return")["reason"] == said
    row = overview.history(mlflow_context, NAME)[-1]
    assert (row["action"], row["evidence"]) == ("refused", "model_test passed, deployment failed")
    with pytest.raises(GateFailedError, match="the deployment report did not pass"):
        promote(won, key="by hand")
    assert registered.alias("champion") == 1
    assert promote(won, key="by hand", evidence=[tested])["version"] == 4
    record = json.loads(mlflow_context.store.get_bytes(f"versions/{NAME}/4.json"))
    assert (record["refused"], [one["kind"] for one in record["evidence"]]) == (None, ["model_test"])


def test_the_reason_of_the_version_is_that_of_its_promotion(as_task, log_model, promote, mlflow_context):
    ref = register_model(as_task("register"), model=log_model(), model_name=NAME, reason=WHY)

    assert promote(ref)["reason"] == WHY
    assert overview.history(mlflow_context, NAME)[0]["reason"] == WHY
    record = json.loads(mlflow_context.store.get_bytes(f"versions/{NAME}/1.json"))
    assert record["reason"] == WHY
