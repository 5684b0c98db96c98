"""Model cards: what is on record of a version that was released, and nothing else."""

from __future__ import annotations

import logging

import pytest

from airflow_mlops.core.errors import NotFoundError, SpecError
from airflow_mlops.core.registry.approval import record_approval, request_approval
from airflow_mlops.core.registry.card import facts, markdown, publish_card
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.tracking import client

ABOUT = {"intended_use": "Who may leave <soon>.", "limitations": ["Not for firms.", "Nothing before 2020."]}


@pytest.fixture
def tested(as_task, log_model, report, mlflow_context):
    """A registered version with all that can be known of one, and its test's report."""
    ref = register_model(
        as_task("register/1"),
        model=log_model(
            metrics={"train_roc_auc": 0.9},
            target="churned",
            training={
                "dataset_digest": "sha256:" + "a" * 64,
                "rows": 900,
                "window": {"start": "2026-01-01", "end": "2026-02-01"},
            },
            test_dataset={"name": "customers", "digest": "sha256:" + "b" * 64, "rows": 100},
            code={"sha": "c0ffee", "dirty": False},
            environment={"python": "3.11.2", "scikit-learn": "1.9.0"},
        ),
        model_name="churn",
    )
    client(mlflow_context, "the test").log_param(ref["run_id"], "max_depth", "8")
    details = {
        "dataset": {"judged": 100},
        "metrics": {"roc_auc": 0.81},
        "model": {"flavors": ["sklearn"], "inputs": []},
        "caveats": ["The dataset is small."],
        "specs": [{"name": "auc", "metric": "roc_auc"}],
        "slices": [
            {
                "by": "region",
                "slice": "north",
                "rows": 60,
                "metric": "roc_auc",
                "value": 0.8,
                "overall": 0.81,
                "passed": True,
                "severity": "error",
                "gap": 0.01,
            },
        ],
        "tests": [
            {
                "name": "auc",
                "kind": "metric",
                "passed": True,
                "severity": "error",
                "value": 0.81,
                "threshold": "≥ 0.8",
                "interval": [0.78, 0.84],
                "slice": None,
                "message": "it holds",
                "comparison": None,
            },
            {
                "name": "equal odds",
                "kind": "fairness",
                "passed": False,
                "severity": "warning",
                "value": 0.2,
                "threshold": "≤ 0.1",
                "interval": None,
                "slice": None,
                "message": "it does not",
                "comparison": None,
            },
        ],
    }
    return ref, report(ref, details=details)


def test_a_release_has_a_card_made_of_what_is_on_record(tested, as_task, promote, mlflow_context, registered):
    ref, test = tested
    request_approval(as_task("a"), model=ref, evidence=[test])
    approval = record_approval(
        as_task("a"), model=ref, evidence=[test], decision="approved", by="ana", at="2026-03-01T10:00Z", reason="fine"
    )

    entry = promote(ref, evidence=[test, approval], card=ABOUT)

    card = mlflow_context.store.get_json("cards/churn/1/card.json")
    assert (card["name"], card["version"], card["model"]["digest"]) == ("churn", 1, ref["digest"])
    assert card["about"] == ABOUT
    assert card["metrics"] == [
        {"metric": "roc_auc", "model": 0.81, "rows": 100, "interval": [0.78, 0.84], "measured": "tested"},
        {"metric": "train_roc_auc", "model": 0.9, "interval": None, "measured": "training run"},
    ]
    assert [one["name"] for one in card["tests"]] == ["auc"]
    assert [one["name"] for one in card["fairness"]] == ["equal odds"]
    assert card["hyperparameters"] == {"max_depth": "8"}
    assert card["data"]["training"]["rows"] == 900
    assert (card["approval"]["by"], card["approval"]["reason"]) == ("ana", "fine")
    assert [(one["seq"], one["alias"], one["by"]) for one in card["releases"]] == [(entry["seq"], "champion", "ana")]
    assert {one["kind"] for one in card["evidence"]} == {"model_test", "approval"}

    text = mlflow_context.store.get_bytes("cards/churn/1/card.md").decode()
    assert "# Model card: churn version 1" in text
    assert r"Who may leave \<soon\>." in text
    assert "- Not for firms." in text
    assert "| `roc_auc` | 0.81 | 0.78 to 0.84 | – | – | tested |" in text
    assert "| sha | `c0ffee` |" in text
    page = mlflow_context.store.get_bytes("cards/churn/1/card.html").decode()
    assert "Who may leave &lt;soon&gt;." in page
    assert "<script" not in page

    assert registered.version(1).tags["mlops.card"] == mlflow_context.store.uri_of("cards/churn/1/card.md")
    kept = client(mlflow_context, "the test").list_artifacts(ref["run_id"], "model_card")
    assert sorted(one.path for one in kept) == ["model_card/churn-1.html", "model_card/churn-1.md"]
    key = mlflow_context.store.key_of(entry["card_uri"])
    assert key.startswith("reports/flights/"), "where Airflow shows it to whoever may read the DAG"
    assert mlflow_context.store.get_bytes(key).decode() == page


def test_what_nobody_has_recorded_is_not_made_up(promote, versions, mlflow_context):
    promote(versions[0], evidence=[])

    text = markdown(mlflow_context.store.get_json("cards/churn/1/card.json"))

    for title in ("Metrics", "Tests", "Fairness", "Approval", "Hyperparameters", "Training data"):
        assert f"## {title}" not in text
    assert "Nobody has said" in mlflow_context.store.get_bytes("cards/churn/1/card.html").decode()


def test_what_was_said_of_a_model_is_kept_for_its_next_versions(promote, versions, mlflow_context):
    promote(versions[0], key="1", card=ABOUT)
    promote(versions[1], key="2")
    assert mlflow_context.store.get_json("cards/churn/2/card.json")["about"] == ABOUT
    promote(versions[2], key="3", card={"contact": "growth"})
    assert mlflow_context.store.get_json("cards/churn/3/card.json")["about"] == {"contact": "growth"}


def test_the_card_of_a_version_tells_all_of_its_releases(promote, versions, mlflow_context):
    promote(versions[0], key="1", alias="staging")
    promote(versions[0], key="2", alias="champion")

    card = facts(mlflow_context, "churn", 1, {})

    assert [(one["seq"], one["alias"]) for one in card["releases"]] == [(1, "staging"), (2, "champion")]


def test_a_run_that_is_gone_takes_no_card_away(promote, versions, mlflow_context):
    client(mlflow_context, "the test").delete_run(versions[0]["run_id"])

    promote(versions[0])

    assert mlflow_context.store.exists("cards/churn/1/card.html")


def test_a_release_stands_whatever_becomes_of_its_card(promote, registered, log_model, as_task, caplog):
    """A version that was made in MLflow without us has no record to make a card of."""
    ref = log_model()
    registered.create()
    registered.client.create_model_version("churn", ref["uri"], model_id=ref["model_id"])

    with caplog.at_level(logging.WARNING):
        entry = promote("churn/1", evidence=[])

    assert (registered.alias("champion"), entry["card_uri"]) == (1, None)
    assert "the model card of version 1 of 'churn' was not made: nothing is on record" in caplog.text
    with pytest.raises(NotFoundError, match="nothing is on record"):
        publish_card(as_task("x"), "churn", 1)


@pytest.mark.parametrize("wrong", ["for all", {"limitations": 3}, {"limitations": [1]}])
def test_what_is_no_card_is_refused_before_anything_moves(promote, versions, registered, wrong):
    with pytest.raises(SpecError, match="card is a dict of texts"):
        promote(versions[0], card=wrong)
    assert registered.alias("champion") is None
