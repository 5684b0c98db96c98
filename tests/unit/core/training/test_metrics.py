from __future__ import annotations

import logging
import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from airflow_mlops.core.errors import SpecError, UnsupportedError
from airflow_mlops.core.training.metrics import (
    METRICS,
    Predictions,
    compute,
    compute_one,
    default_metrics,
    metric,
    predict,
    task_of,
)


@pytest.fixture(scope="module")
def data() -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(400, 3)), columns=["a", "b", "ü"])
    y = pd.Series((X["a"] + rng.normal(size=400) > 0).map({True: "yes", False: "no"}), name="y")
    return X, y


class TestBinary:
    def test_values_are_scikit_learns(self, data):
        X, y = data
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
        weight = np.arange(1, 401)
        found = compute(default_metrics("binary"), y, predict(model, X), weight)
        score = model.predict_proba(X)[:, 1]
        assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(y == "yes", score, sample_weight=weight))
        assert found["f1"] == pytest.approx(
            reference.f1_score(y, model.predict(X), pos_label="yes", sample_weight=weight)
        )
        assert found["log_loss"] == pytest.approx(reference.log_loss(y, model.predict_proba(X), sample_weight=weight))
        assert found["brier_score_loss"] == pytest.approx(
            reference.brier_score_loss(y, score, pos_label="yes", sample_weight=weight)
        )
        assert found["accuracy"] == pytest.approx(model.score(X, y, sample_weight=weight))

    def test_every_metric_gives_a_finite_number_or_none(self, data):
        X, y = data
        prediction = predict(LogisticRegression().fit(X, y), X)
        for name, known in METRICS.items():
            value, reason = compute_one(name, y, prediction)
            assert (value is None) == (known.task == {"regression"}), (name, reason)
            assert value is None or math.isfinite(value)

    def test_one_class_only_is_none_with_a_reason(self, data, caplog):
        X, y = data
        prediction = predict(LogisticRegression().fit(X, y), X)
        rows = (y == "yes").to_numpy()
        with caplog.at_level(logging.WARNING):
            found = compute(["roc_auc", "accuracy"], y[rows], prediction.take(rows), where="test rows")
        assert found["roc_auc"] is None
        assert found["accuracy"] is not None
        assert "roc_auc on test rows cannot be computed: all rows are of one class" in caplog.text

    def test_precision_without_predicted_positives_is_none(self):
        prediction = Predictions(np.array([0, 0, 0]), classes=[0, 1])
        assert compute(["precision", "recall"], [0, 1, 0], prediction) == {"precision": None, "recall": 0.0}

    def test_a_class_that_the_model_does_not_know(self, data):
        X, y = data
        prediction = predict(LogisticRegression().fit(X, y), X)
        value, reason = compute_one("roc_auc", y.replace("yes", "maybe"), prediction)
        assert value is None
        assert "a class among these rows is unknown to the model" in reason

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_predictions_that_are_no_numbers_are_no_metric(self, bad):
        value, reason = compute_one("mean_absolute_error", [1.5, 2.5], Predictions(np.array([1.0, bad])))
        assert value is None
        assert "NaN" in reason

    def test_no_rows(self):
        assert compute_one("accuracy", [], Predictions(np.array([])))[0] is None

    def test_ranking_without_probabilities_takes_the_decision_function(self, data):
        X, y = data
        model = LinearSVC().fit(X, y)
        found = compute(["roc_auc", "log_loss"], y, predict(model, X))
        assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(y == "yes", model.decision_function(X)))
        assert found["log_loss"] is None

    def test_a_tuned_threshold_is_kept(self, data):
        X, y = data
        model = FixedThresholdClassifier(LogisticRegression(), threshold=0.8, pos_label="yes").fit(X, y)
        assert list(predict(model, X).labels) == list(model.predict(X))
        assert (predict(model, X).labels == "yes").mean() < 0.4

    def test_probabilities_of_a_foreign_model(self):
        y = np.array([0, 1, 1, 0])
        found = compute(["roc_auc", "accuracy"], y, Predictions(np.array([0.1, 0.9, 0.4, 0.2])))
        assert found == {"roc_auc": 1.0, "accuracy": 0.75}


class TestMulticlass:
    def test_one_against_the_rest(self):
        rng = np.random.default_rng(1)
        X = pd.DataFrame(rng.normal(size=(300, 2)), columns=["a", "b"])
        y = pd.cut(X["a"], [-9, -0.5, 0.5, 9], labels=["low", "mid", "high"]).astype(str)
        model = LogisticRegression().fit(X, y)
        found = compute(default_metrics("multiclass"), y, predict(model, X))
        expected = reference.roc_auc_score(y, model.predict_proba(X), multi_class="ovr")
        assert found["roc_auc"] == pytest.approx(expected)
        assert found["f1_macro"] == pytest.approx(reference.f1_score(y, model.predict(X), average="macro"))

    def test_f1_says_what_to_use(self):
        _, reason = compute_one("f1", ["a", "b", "c"], Predictions(np.array(["a", "b", "c"])))
        assert "f1_macro" in reason


class TestRegression:
    def test_values_are_scikit_learns(self):
        rng = np.random.default_rng(2)
        X = pd.DataFrame(rng.normal(size=(100, 2)), columns=["a", "b"])
        y = X["a"] * 3 + rng.normal(size=100)
        model = LinearRegression().fit(X, y)
        found = compute(default_metrics("regression"), y, predict(model, X))
        assert found["r2"] == pytest.approx(model.score(X, y))
        assert found["root_mean_squared_error"] == pytest.approx(reference.root_mean_squared_error(y, model.predict(X)))

    def test_a_regressor_on_ratings_keeps_its_metrics(self):
        X = pd.DataFrame({"a": range(50)})
        y = pd.Series([i % 5 for i in range(50)])
        found = compute(["mean_absolute_error"], y, predict(RandomForestRegressor(5).fit(X, y), X))
        assert found["mean_absolute_error"] is not None

    def test_r2_of_one_row_is_none(self):
        assert compute(["r2"], [1.5], Predictions(np.array([1.25]))) == {"r2": None}


class TestNames:
    @pytest.mark.parametrize(
        ("wrong", "right"),
        [("roc_acu", "roc_auc"), ("neg_log_loss", "log_loss"), ("accuracy_score", "accuracy"), ("rmse", None)],
    )
    def test_unknown_names_the_nearest(self, wrong, right):
        with pytest.raises(SpecError, match=f"did you mean '{right}'" if right else "there is no metric 'rmse'"):
            metric(wrong)

    def test_direction_is_known(self):
        assert metric("roc_auc").greater_is_better
        assert not metric("log_loss").greater_is_better
        assert metric("mean_absolute_error").better(1.0, 2.0)

    def test_a_users_function(self):
        assert compute([share_right], [0, 1], Predictions(np.array([0, 0])))[f"{__name__}:share_right"] == 0.5
        assert not metric(costs).greater_is_better

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_a_users_function_that_gives_no_number_is_no_metric(self, bad):
        def undefined(y_true, y_pred):
            return bad

        value, reason = compute_one(undefined, [0, 1], Predictions(np.array([0, 1])))
        assert value is None
        assert reason

    def test_a_users_function_that_raises(self):
        def broken(y_true, y_pred):
            raise ValueError("no such thing")

        with pytest.raises(SpecError, match=r"broken.*ValueError: no such thing"):
            compute([broken], [0, 1], Predictions(np.array([0, 1])))


def share_right(y_true, y_pred):
    return float((y_true == y_pred).mean())


def costs(y_true, y_pred):
    return 1.0


costs.greater_is_better = False


class TestTask:
    @pytest.mark.parametrize(
        ("values", "task"),
        [
            ([0, 1, 1], "binary"),
            ([True, False], "binary"),
            (["a", "b", "c"], "multiclass"),
            ([0, 1, 2], "multiclass"),
            ([0.0, 1.0], "binary"),
            ([0.5, 1.0], "regression"),
            (range(100), "regression"),
        ],
    )
    def test_of_values(self, values, task):
        assert task_of(list(values)) == task

    def test_nullable_types(self):
        assert task_of(pd.Series([0, 1, None], dtype="Int64")) == "binary"
        assert task_of(pd.Series(["a", "b"], dtype="category")) == "binary"


class TestPredict:
    def test_one_class_model(self, data):
        X, _ = data
        prediction = predict(DummyClassifier().fit(X, [1] * len(X)), X)
        assert set(prediction.labels) == {1}

    def test_wrong_number_of_predictions(self, data):
        class Broken:
            def predict(self, X):
                return np.zeros(3)

        with pytest.raises(UnsupportedError, match="one prediction a row"):
            predict(Broken(), data[0])
