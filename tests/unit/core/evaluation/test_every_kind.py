"""Every kind that needs no second process, asked of a binary, a multiclass and a regression model with a champion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from airflow_mlops.core.evaluation.kinds import KINDS
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.steps import StepContext

FEATURES = ["größe", "distance"]
TASKS: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    "binary": (LogisticRegression, "accuracy", lambda score: (score > 0).astype("int64")),
    "multiclass": (
        LogisticRegression,
        "accuracy",
        lambda score: np.array(["early", "on time", "late"])[np.digitize(score, [-0.8, 0.8])],
    ),
    "regression": (LinearRegression, "r2", lambda score: score + 0.001),
}


def suite(task: str, metric: str) -> list[dict[str, Any]]:
    """Return one test of each kind."""
    probability = {"multiclass": {"of_class": "late"}, "regression": {"at_least": 0.5}}.get(task, {})
    tests: list[dict[str, Any]] = [
        {"kind": "metric", "metric": metric, "min": 0.5},
        {"kind": "champion", "metric": metric, "margin": 0.05},
        {"kind": "slices", "by": ["airport", "größe"], "metric": metric, "min": -5},
        {"kind": "calibration", "max_ece": 0.3},
        {"kind": "predictions"},
        {"kind": "overfit", "metric": metric, "max_gap": 0.5},
        {"kind": "leakage"},
        {"kind": "fairness", "by": "airport", "criterion": "equalized_odds", "max_difference": 0.2, **probability},
        {"kind": "robustness", "max_flips": 0.2, "missing": 0},
        {"kind": "invariance", "column": "airport"},
        {"kind": "directional", "column": "größe", "expect": "increase", "change": 0.5, "max_wrong": 0.1},
        {"kind": "signature"},
        {"kind": "size", "max_mb": 5},
        {"kind": "custom", "function": positive},
        {"kind": "anchor", "metric": metric, "margin": 0.05},
    ]
    if task == "multiclass":
        tests[10]["of_class"] = "late"
    return [one for one in tests if task != "regression" or one["kind"] != "calibration"]


def positive(model: Any, X: Any, y: Any) -> bool:
    """Return whether there are rows."""
    return len(X) == len(y) > 0


@pytest.mark.parametrize("task", TASKS)
def test_every_kind_has_something_to_say_of_every_task(
    task: str, context: StepContext, save: Callable[..., str], log_model: Any, make_rows: Any
) -> None:
    make, metric, target = TASKS[task]

    def rows(seed: int) -> pd.DataFrame:
        found = make_rows(900, seed=seed)
        noise = np.random.default_rng(seed).normal(scale=0.5, size=900)
        return found.assign(late=target(1.5 * found["größe"] + 0.8 * found["distance"] + noise))

    train, test = rows(9), rows(0)
    model = make().fit(train[FEATURES], train["late"])
    champion = make().fit(train[FEATURES].head(60).assign(distance=0.0), train["late"].head(60))
    log_model(train, model=champion, alias="champion", keys=train)
    ref = log_model(train, model=model, keys=train).to_dict()
    ref["metrics"] = {f"train_{metric}": model.score(train[FEATURES], train["late"])}
    tests = suite(task, metric)
    report = evaluate_model(
        context, model=ref, dataset=save(test), roles={"key": "id", "time": "day"}, target="late", tests=tests,
        champion="flights_late@champion",
    )  # fmt: skip
    details = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
    failed = [(one["name"], one["message"]) for one in details["tests"] if not one["passed"]]
    assert not failed
    asked = {one["kind"] for one in details["tests"]}
    away = {"previous", "load", "contract", "latency", "throughput", "memory"} | (
        {"calibration"} if task == "regression" else set()
    )
    assert asked == {*KINDS, "sanity"} - away
    compared = next(one["comparison"] for one in details["tests"] if one["kind"] == "champion")
    assert (compared["verdict"], compared["method"], compared["unit"]) == ("better", "jackknife", "days")
