"""Calibration, predictions that make no sense, overfitting and leaks: real models, and other implementations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.tree import DecisionTreeClassifier
from statsmodels.stats.proportion import proportion_confint

from airflow_mlops.core.evaluation.calibration import reliability
from airflow_mlops.core.evaluation.soundness import _alone
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.steps import StepContext

FEATURES = ["größe", "distance"]


@pytest.fixture
def test_of(context: StepContext, save: Callable[..., str], log_model: Any, frame: pd.DataFrame) -> Any:
    """Return what one test says of a model, its details and its page."""

    def run(test: dict[str, Any], model: Any = None, *, rows: Any = None, ref: Any = None, **more: Any) -> Any:
        ref = ref or log_model(model=model, **more)
        report = evaluate_model(
            context,
            model=ref.to_dict(),
            dataset=save(frame if rows is None else rows),
            roles={"key": "id", "time": "day"},
            target="late",
            tests=[test],
        )
        found = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
        page = context.store.get_bytes(context.store.key_of(report["report_uri"]) or "").decode()
        return found["tests"][-1], found, page

    return run


def test_the_reliability_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    said = random.beta(2, 3, 1000)
    came_true = random.random(1000) < said**1.3
    observed, predicted = calibration_curve(came_true, said, n_bins=10, strategy="quantile")

    bins = reliability(said, came_true, np.ones(1000), 10)

    assert [one["predicted"] for one in bins] == pytest.approx(list(predicted))
    assert [one["observed"] for one in bins] == pytest.approx(list(observed))
    assert [one["rows"] for one in bins] == [100] * 10
    for one in bins:
        low, high = proportion_confint(round(one["observed"] * 100), 100, method="wilson")
        assert (one["low"], one["high"]) == pytest.approx((low, high), abs=1e-9)


def test_weights_count_and_equal_probabilities_share_a_bin() -> None:
    said = np.array([0.2] * 50 + [0.8] * 50)
    came_true = np.arange(100) % 2 == 0
    bins = reliability(said, came_true, np.where(came_true, 3.0, 1.0), 10)
    assert [(one["rows"], one["observed"], one["share"]) for one in bins] == [(50, 0.75, 0.5), (50, 0.75, 0.5)]


def test_a_calibrated_model_passes_and_an_overconfident_one_does_not(test_of: Any, frame: pd.DataFrame) -> None:
    test = {"kind": "calibration", "max_ece": 0.06, "max_brier": 0.15}
    found, details, page = test_of(test)
    assert found["passed"], found["message"]
    assert "<circle" in page
    sure = LogisticRegression(C=1e6).fit(frame[FEATURES], frame["late"])
    sure.coef_ *= 20
    found, details, _ = test_of(test, sure)
    assert not found["passed"]
    assert "must be ECE ≤ 0.06 and Brier ≤ 0.15" in found["message"]
    brier = brier_score_loss(frame["late"], sure.predict_proba(frame[FEATURES])[:, 1])
    assert details["calibration"][0]["brier"] == pytest.approx(brier)
    assert details["metrics"]["expected_calibration_error"] == found["value"]


def test_many_classes_are_judged_by_the_predicted_one(test_of: Any, make_rows: Any) -> None:
    def three(seed: int) -> pd.DataFrame:
        rows = make_rows(900, seed=seed)
        return rows.assign(late=np.digitize(rows["größe"] + 0.5 * rows["distance"], [-0.6, 0.6]))

    train = three(9)
    model = LogisticRegression().fit(train[FEATURES], train["late"])
    rows = three(0)
    found, details, _ = test_of({"kind": "calibration", "max_ece": 0.2}, model, rows=rows)
    assert found["passed"], found["message"]
    hits = rows["late"].to_numpy()[:, None] == np.arange(3)
    brier = ((model.predict_proba(rows[FEATURES]) - hits) ** 2).sum(axis=1).mean()
    assert details["calibration"][0]["brier"] == pytest.approx(brier)


def test_a_model_without_probabilities_has_no_calibration(test_of: Any, frame: pd.DataFrame) -> None:
    model = LinearRegression().fit(frame[FEATURES], frame["late"].astype(float) * 100)
    found, _, _ = test_of(
        {"kind": "calibration", "max_ece": 0.1}, model, rows=frame.assign(late=np.linspace(0, 99.5, 600))
    )
    assert (found["passed"], "gives no probabilities" in found["message"]) == (False, True)


def test_predictions_out_of_range_or_all_the_same(test_of: Any, frame: pd.DataFrame) -> None:
    rows = frame.assign(late=100 * frame["größe"] + 0.5)
    model = LinearRegression().fit(rows[FEATURES], rows["late"])
    found, _, _ = test_of({"kind": "predictions", "min": -500, "max": 500}, model, rows=rows)
    assert found["passed"], found["message"]
    found, _, _ = test_of({"kind": "predictions", "min": 0}, model, rows=rows)
    beyond = int((model.predict(rows[FEATURES]) < 0).sum())
    assert (found["passed"], found["value"]) == (False, beyond)
    assert f"{beyond:,} of 600 predictions are outside ≥ 0" in found["message"]
    flat = DecisionTreeClassifier(max_depth=1, min_samples_leaf=400).fit(frame[FEATURES], frame["late"])
    found, _, _ = test_of({"kind": "predictions"}, flat)
    assert (found["passed"], "All 600 rows get the same prediction" in found["message"]) == (False, True)


def test_overfitting_is_the_gap_to_the_training_rows(test_of: Any, log_model: Any, make_rows: Any) -> None:
    train = make_rows(seed=9)
    model = RandomForestClassifier(20, random_state=0).fit(train[FEATURES], train["late"])
    ref = log_model(model=model)
    test = {"kind": "overfit", "metric": "accuracy", "max_gap": 0.05}
    found, _, _ = test_of(test, ref=ref)
    assert (found["passed"], "has no metric train_accuracy" in found["message"]) == (False, True)
    score = model.score(train[FEATURES], train["late"])
    ref = dataclasses.replace(ref, metrics={"train_accuracy": score})
    found, details, _ = test_of(test, ref=ref)
    assert not found["passed"]
    assert found["value"] == pytest.approx(score - details["metrics"]["accuracy"])
    found, _, _ = test_of({**test, "max_gap": 0.5}, ref=ref)
    assert found["passed"], found["message"]


def test_a_feature_that_is_the_answer_is_a_leak(test_of: Any, log_model: Any, make_rows: Any) -> None:
    def leaky(seed: int) -> pd.DataFrame:
        rows = make_rows(seed=seed)
        return rows.assign(arrival=rows["late"] * 30 + np.random.default_rng(seed).normal(size=len(rows)))

    train, rows = leaky(9), leaky(0)
    columns = [*FEATURES, "arrival"]
    model = LogisticRegression().fit(train[columns], train["late"])
    ref = log_model(train, columns=columns, model=model)
    found, _, _ = test_of({"kind": "leakage"}, ref=ref, rows=rows)
    assert not found["passed"]
    assert "1 feature alone nearly gives the target away" in found["message"]
    assert "arrival (0.99" in found["message"]
    found, _, _ = test_of({"kind": "leakage"})
    assert found["passed"], found["message"]
    assert "The best feature alone, größe," in found["message"]


def test_a_single_feature_is_scored_out_of_fold_whatever_its_type() -> None:
    random = np.random.default_rng(0)
    truth = pd.Series(random.integers(0, 2, 500))
    noise = pd.Series([f"id-{number}" for number in range(500)])
    # Each row a value of its own: in fold it would be perfect.
    assert _alone(noise, truth, "binary") == pytest.approx(0.5, abs=0.01)
    assert _alone(truth.map({0: "no", 1: "yes"}), truth, "binary") == 1
    assert _alone(pd.Series(pd.date_range("2020", periods=500)), truth, "binary") == pytest.approx(0.5, abs=0.12)
    missing = pd.Series(np.where(truth == 1, np.nan, 1.0))
    assert _alone(missing, truth, "binary") == 1
    three = pd.Series(random.integers(0, 3, 500))
    assert _alone(three * 2.5, three, "multiclass") == 1
    amount = pd.Series(random.normal(size=500))
    assert _alone(amount * 3, amount, "regression") == pytest.approx(1, abs=0.05)
    assert _alone(pd.Series([1] * 500), truth, "binary") is None
