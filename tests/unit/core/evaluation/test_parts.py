"""Metrics on parts of some rows are scikit-learn's on those rows, whichever way they are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from airflow_mlops.core.evaluation.parts import of_parts
from airflow_mlops.core.training.predictions import Predictions

ROWS = 400
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.random(ROWS)
PARTS = (np.arange(ROWS) % 7 != 0, RANDOM.integers(0, ROWS, ROWS), np.ones(ROWS, dtype=bool))


def binary() -> tuple[Any, Predictions]:
    truth = (RANDOM.random(ROWS) < 0.4).astype(int)
    up = (0.3 + 0.2 * truth + 0.3 * RANDOM.random(ROWS)).round(2)  # with ties
    return truth, Predictions((up > 0.5).astype(int), np.column_stack([1 - up, up]), [0, 1])


def three() -> tuple[Any, Predictions]:
    truth = RANDOM.choice(["a", "b", "c"], ROWS)
    given = RANDOM.dirichlet([1, 1, 1], ROWS)
    return truth, Predictions(np.array(["a", "b", "c"])[given.argmax(axis=1)], given, ["a", "b", "c"])


def amount() -> tuple[Any, Predictions]:
    truth = RANDOM.normal(size=ROWS)
    return truth, Predictions(truth + RANDOM.normal(size=ROWS))


def one_against_the_rest(truth: Any, given: Any, **weight: Any) -> float:
    return float(np.mean([metrics.roc_auc_score(truth == c, given[:, i], **weight) for i, c in enumerate("abc")]))


CASES = {
    "roc_auc": (binary, lambda y, p, **w: metrics.roc_auc_score(y, p.probabilities[:, 1], **w)),
    "accuracy": (binary, lambda y, p, **w: metrics.accuracy_score(y, p.labels, **w)),
    "log_loss": (binary, lambda y, p, **w: metrics.log_loss(y, p.probabilities, **w)),
    "f1": (binary, lambda y, p, **w: metrics.f1_score(y, p.labels, **w)),
    "accuracy of three": (three, lambda y, p, **w: metrics.accuracy_score(y, p.labels, **w)),
    "roc_auc of three": (three, lambda y, p, **w: one_against_the_rest(y, p.probabilities, **w)),
    "mean_absolute_error": (amount, lambda y, p, **w: metrics.mean_absolute_error(y, p.labels, **w)),
    "mean_squared_error": (amount, lambda y, p, **w: metrics.mean_squared_error(y, p.labels, **w)),
    "root_mean_squared_error": (amount, lambda y, p, **w: metrics.mean_squared_error(y, p.labels, **w) ** 0.5),
    "r2": (amount, lambda y, p, **w: metrics.r2_score(y, p.labels, **w)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_part_is_measured_as_if_it_were_all_there_is(case: str, weighted: bool) -> None:
    make, theirs = CASES[case]
    truth, predictions = make()
    figure = of_parts(case.partition(" of ")[0], truth, predictions, WEIGHTS if weighted else None)
    for rows in PARTS:
        weight = {"sample_weight": WEIGHTS[rows]} if weighted else {}
        assert figure(rows) == pytest.approx(theirs(truth[rows], predictions.take(rows), **weight), abs=1e-9)


def test_rows_of_one_class_or_none_have_no_value() -> None:
    truth, predictions = binary()
    assert of_parts("roc_auc", truth, predictions, WEIGHTS)(truth == 1) is None
    assert of_parts("accuracy", truth, predictions, None)(np.zeros(ROWS, dtype=bool)) is None
    assert of_parts("accuracy", truth, predictions, WEIGHTS)(np.zeros(ROWS, dtype=bool)) is None
