"""Tests of what a good figure can hide: one prediction for all, rows known by heart, a feature that is the answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.evaluation.loading import features
from airflow_mlops.core.evaluation.outcome import Outcome, bounds, outcome
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.training.metrics import metric, task_of

if TYPE_CHECKING:
    import numpy as np
    import pandas

    from airflow_mlops.core.evaluation.evidence import Evidence

#: Rows that the search for a leak looks at, at most.
LEAKAGE_ROWS = 20_000
#: Bins that a numeric feature is cut into there.
LEAKAGE_BINS = 50


def predictions_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the predictions keep to a range, are not all the same, and that probabilities add up to one.

    The range is that of the predicted values, of a classifier that of its probabilities.
    """
    import numpy as np

    judged = evidence.challenger
    predictions, threshold = judged.predictions, bounds(spec)
    if predictions is None:
        return [outcome(spec, False, f"There are no predictions: {judged.problem}", threshold=threshold)]
    if judged.bad_predictions:
        return [outcome(spec, False, f"{judged.bad_predictions:,} predictions are no numbers", threshold=threshold)]
    given = predictions.probabilities
    values = predictions.labels if given is None else given
    wrong = []
    if len(values) > 1 and bool((values == values[:1]).all()):
        wrong.append(f"all {len(values):,} rows get the same prediction")
    if given is not None:
        astray = int((np.abs(given.sum(axis=1) - 1) > 1e-3).sum())
        if astray:
            wrong.append(f"the probabilities of {astray:,} rows do not add up to 1")
    outside = 0
    if values.dtype.kind in "iufb" and threshold:
        low, high = spec.get("min", -math.inf), spec.get("max", math.inf)
        beyond = (values < low) | (values > high)
        outside = int((beyond if beyond.ndim == 1 else beyond.any(axis=1)).sum())
        if outside:
            wrong.append(f"{outside:,} of {len(values):,} predictions are outside {threshold}")
    elif threshold:
        wrong.append("the predictions are no numbers, so they have no range")
    message = "; ".join(wrong) or f"All {len(values):,} predictions keep to their range, and they differ"
    return [outcome(spec, not wrong, message[:1].upper() + message[1:], value=outside, threshold=threshold)]


def overfit_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that a metric on the training rows is not much better than on rows that the model has not seen.

    The figure of the training rows is the one that the model's run logged as ``train_<metric>``.
    """
    wanted, threshold = metric(spec["metric"]), f"at most {spec['max_gap']:g} better on the training rows"
    value, reason = evidence.figure(evidence.challenger, spec["metric"])
    if value is None:
        return [outcome(spec, False, f"{wanted.name} cannot be measured: {reason}", threshold=threshold)]
    name = f"train_{wanted.name}"
    trained = (evidence.challenger.copy.ref.metrics or {}).get(name, evidence.logged_metrics.get(name))
    if trained is None:
        message = f"The model's run has no metric {name}, so nobody knows how it does on the rows it was trained on"
        return [outcome(spec, False, f"{message}; log it, or leave this test out", threshold=threshold)]
    gap = trained - value if wanted.greater_is_better else value - trained
    passed = gap <= spec["max_gap"]
    message = f"{wanted.name} is {text(trained)} on the training rows and {text(value)} on rows not seen"
    message += "" if passed else f"; must be {threshold}: regularise the model, or give it more rows"
    return [outcome(spec, passed, message, value=gap, threshold=threshold)]


def leakage_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that no single feature gives the answer away.

    Each feature alone predicts the target by the mean of the target among rows like it, out of fold
    (:class:`sklearn.preprocessing.TargetEncoder`), numbers cut into quantiles: ROC AUC for classes (one against the
    rest), R² for quantities.
    """
    judged, threshold = evidence.challenger, f"≤ {spec['max']:g}"
    if judged.problem:
        return [outcome(spec, False, f"Not run: the model cannot predict the dataset: {judged.problem}")]
    frame = evidence.frame.iloc[judged.rows].reset_index(drop=True)
    if len(frame) > LEAKAGE_ROWS:
        frame = frame.sample(LEAKAGE_ROWS, random_state=0).reset_index(drop=True)
    truth = frame[evidence.target]
    task = task_of(truth.to_numpy(), judged.predictions)
    inputs = features(judged.copy, frame, evidence.not_features)
    scores = {str(name): _alone(inputs[name], truth, task) for name in inputs.columns}
    told = {name: score for name, score in scores.items() if score is not None}
    if not told:
        return [outcome(spec, False, "No feature could be judged: the target does not vary", threshold=threshold)]
    ranked = sorted(told, key=lambda name: -told[name])
    leaks = [name for name in ranked if told[name] > spec["max"]]
    what = "R²" if task == "regression" else "ROC AUC"
    if leaks:
        listed = ", ".join(f"{name} ({text(told[name])})" for name in leaks[:5])
        message = (
            f"{len(leaks)} feature{'s' if len(leaks) > 1 else ''} alone nearly give{'' if len(leaks) > 1 else 's'} the "
            f"target away ({what} above {spec['max']:g}): {listed}. Is it known before the outcome?"
        )
    else:
        message = f"The best feature alone, {ranked[0]}, has a {what} of {text(told[ranked[0]])}"
    return [outcome(spec, not leaks, message, value=told[ranked[0]], threshold=threshold)]


def _alone(column: pandas.Series, truth: pandas.Series, task: str) -> float | None:
    """Return how well one feature alone predicts the target, out of fold; None if it does not vary."""
    import numpy as np
    import pandas
    from sklearn.metrics import r2_score, roc_auc_score
    from sklearn.preprocessing import TargetEncoder

    codes = _codes(column)
    if len(np.unique(codes)) < 2 or truth.nunique() < 2:
        return None
    goal = truth.to_numpy(dtype="float64") if task == "regression" else pandas.factorize(truth, sort=True)[0]
    kind = "continuous" if task == "regression" else "binary" if goal.max() == 1 else "multiclass"
    folds = 5 if task == "regression" else min(5, int(np.bincount(goal).min()))
    if folds < 2:
        return None
    encoder = TargetEncoder(target_type=kind, cv=folds, random_state=0)
    means = encoder.fit_transform(codes.reshape(-1, 1), goal)
    if task == "regression":
        return float(r2_score(goal, means[:, 0]))
    if means.shape[1] == 1:
        return float(roc_auc_score(goal, means[:, 0]))
    return float(np.mean([roc_auc_score(goal == number, means[:, number]) for number in range(means.shape[1])]))


def _codes(column: pandas.Series) -> np.ndarray[Any, Any]:
    """Return a column as whole numbers: quantiles of many numbers, else one for each value; missing is one too."""
    import pandas

    types = pandas.api.types
    ordered = types.is_numeric_dtype(column) or types.is_datetime64_any_dtype(column)
    if ordered and not types.is_bool_dtype(column) and column.nunique() > LEAKAGE_BINS:
        column = pandas.qcut(column, LEAKAGE_BINS, labels=False, duplicates="drop")
    codes, _ = pandas.factorize(column, use_na_sentinel=False)
    return codes
