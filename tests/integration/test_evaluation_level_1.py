"""Train, test, register, promote; train again on later rows and test against the champion: all steps as they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.tree import DecisionTreeClassifier

from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.training.step import train_model

ROLES = {"key": "id", "time": "day", "target": "late"}
#: Rows from fourteen days before the last row on, which counts too.
HELD_OUT = 21 * 24 + 1
CHAMPION = "late_flights@champion"
TESTS = [
    {"kind": "metric", "metric": "roc_auc", "min": 0.7},
    {"kind": "champion", "metric": "roc_auc", "require": "not_worse"},
    {"kind": "slices", "by": ["airport"], "metric": "roc_auc", "min": 0.6, "min_rows": 50},
    {"kind": "signature"},
]


def on_numbers(model: ClassifierMixin) -> Pipeline:
    return make_pipeline(make_column_transformer(("passthrough", ["distance", "wind"])), model)


def tree(X: pd.DataFrame, y: pd.Series) -> Pipeline:
    return on_numbers(DecisionTreeClassifier(random_state=0)).fit(X, y)


def linear(X: pd.DataFrame, y: pd.Series, C: float = 0.5) -> Pipeline:
    return on_numbers(LogisticRegression(C=C)).fit(X, y)


@pytest.fixture
def months(tmp_path: Path) -> dict[str, str]:
    """Sixty days of flights, and the same with thirty more."""
    rng = np.random.default_rng(0)
    count = 2160
    frame = pd.DataFrame(
        {
            "id": np.arange(count),
            "day": pd.date_range("2013-01-01", periods=count, freq="h"),
            "distance": rng.normal(size=count),
            "wind": rng.normal(size=count),
            "airport": rng.choice(["JFK", "LGA"], size=count),
        }
    )
    frame["late"] = (frame["distance"] + 0.5 * frame["wind"] + rng.normal(scale=0.8, size=count) > 0).astype("int64")
    frame.head(1440).to_parquet(tmp_path / "two.parquet")
    frame.to_parquet(tmp_path / "three.parquet")
    return {"two": str(tmp_path / "two.parquet"), "three": str(tmp_path / "three.parquet")}


def run_level_1(context: StepContext, dataset: str, trainer: Any, number: int) -> dict[str, Any]:
    context = dataclasses.replace(context, key=f"flights/run{number}/step/-1")
    ref = train_model(
        context,
        dataset=dataset,
        roles=ROLES,
        trainer=trainer,
        hyperparameters={"C": 0.7} if trainer is linear else None,
        split={"by": "time", "test": "21d"},
    )
    report = evaluate_model(context, model=ref, champion=CHAMPION, tests=TESTS)
    version = register_model(context, model=ref, model_name="late_flights", evidence=[report])
    return {"ref": ref, "report": report, "version": version, "context": context}


def test_a_better_challenger_follows_the_champion_and_both_are_judged_on_new_rows(
    context: StepContext, months: dict[str, str]
) -> None:
    first = run_level_1(context, months["two"], tree, 1)
    assert first["report"]["passed"], first["report"]["summary"]
    assert "no champion yet" in first["report"]["summary"]
    assert first["report"]["subject"] == first["ref"]["digest"]
    promote_model(first["context"], model=first["version"], alias="champion")

    second = run_level_1(context, months["three"], linear, 2)
    report = second["report"]
    assert report["passed"], report["summary"]
    assert (report["champion"], report["champion_version"]) == (CHAMPION, 1)
    details = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
    # Three weeks of test rows, all of them after both cut-offs.
    assert details["dataset"]["judged"] == details["dataset"]["rows"] == HELD_OUT
    assert details["champion"]["rows"] == HELD_OUT
    assert details["caveats"] == []
    assert report["metrics"]["roc_auc"] > report["metrics"]["champion_roc_auc"]
    page = context.store.get_bytes(context.store.key_of(report["report_uri"]) or "").decode()
    assert "Hyperparameters" in page
    assert second["ref"]["training"]["dataset_digest"] in page
    entry = promote_model(second["context"], model=second["version"], alias="champion")
    assert (entry["version"], entry["previous_version"]) == (2, 1)


def test_on_all_rows_those_that_either_model_was_trained_on_are_left_out(
    context: StepContext, months: dict[str, str]
) -> None:
    first = run_level_1(context, months["two"], tree, 1)
    promote_model(first["context"], model=first["version"], alias="champion")
    second = run_level_1(context, months["three"], linear, 2)
    report = evaluate_model(
        context, model=second["ref"], dataset=months["three"], roles=ROLES, champion=CHAMPION, tests=TESTS
    )
    details = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
    assert details["dataset"]["left_out"] == [{"rows": 2160 - HELD_OUT, "why": "the model was trained on them"}]
    assert details["champion"]["rows"] == HELD_OUT
    # The champion's first test rows were the challenger's training rows.
    back = evaluate_model(context, model=first["ref"], dataset=months["three"], roles=ROLES, tests=TESTS[:1])
    seen = context.store.get_json(context.store.key_of(back["details_uri"]) or "")["dataset"]
    assert seen["judged"] == 2160 - (1440 - HELD_OUT)
