"""A metric on parts of some rows, again and again, as resampling asks for it.

The order of the scores, for areas under ROC curves, and the loss of each row, for metrics that are means of rows, are
found once for all parts. The figures are those of scikit-learn, which prepares everything anew for every part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.training.metrics import compute_one, metric
from airflow_mlops.core.training.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]
    #: A figure of some rows, by mask or positions; None where there is no value.
    OfParts: TypeAlias = Callable[[Array], float | None]


def of_parts(name: Any, truth: Array, predictions: Predictions, weights: Array | None) -> OfParts:
    """Return a metric as a function of the rows that count.

    :param truth: the target, ``(rows,)``.
    :param weights: of the rows, or None.
    """
    wanted = metric(name).name
    if wanted == "roc_auc" and (scores := scores_of(predictions)) is not None:
        assert predictions.classes is not None
        return area(truth == predictions.classes[-1], scores, weights)
    values = _of_rows(wanted, truth, predictions)
    if values is not None:
        return mean(values, weights)

    def figure(rows: Array) -> float | None:
        weight = None if weights is None else weights[rows]
        return compute_one(name, truth[rows], predictions.take(rows), weight)[0]

    return figure


def scores_of(predictions: Predictions) -> Array | None:
    """Return the scores of the positive class of two, or None if there are not two or no scores."""
    if predictions.classes is None or len(predictions.classes) != 2:
        return None
    return predictions.scores if predictions.probabilities is None else predictions.probabilities[:, -1]


def area(positive: Array, scores: Array, weights: Array | None) -> OfParts:
    """Return the area under the ROC curve as a function of the rows that count; the rows are sorted once.

    :param positive: boolean, ``(rows,)``.
    """
    import numpy as np

    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    weight = (np.ones(len(positive)) if weights is None else weights)[order]
    up, down = weight * positive[order], weight * ~positive[order]

    def figure(rows: Array) -> float | None:
        times = rows if rows.dtype == bool else np.bincount(rows, minlength=len(order))
        counted = times[order]
        ups, downs = up * counted, down * counted
        if len(starts) < len(order):
            ups, downs = np.add.reduceat(ups, starts), np.add.reduceat(downs, starts)
        pairs = ups.sum() * downs.sum()
        # Half of those with the same score are taken to be below.
        return float(ups @ (np.cumsum(downs) - downs / 2) / pairs) if pairs > 0 else None

    return figure


def mean(values: Array, weights: Array | None) -> OfParts:
    """Return the weighted mean of values as a function of the rows that count."""

    def figure(rows: Array) -> float | None:
        if weights is None:
            return float(values[rows].mean()) if len(values[rows]) else None
        total = float(weights[rows].sum())
        return float(weights[rows] @ values[rows]) / total if total else None

    return figure


def _of_rows(wanted: str, truth: Array, predictions: Predictions) -> Array | None:
    """Return what each row adds to a metric that is a mean over rows, or None for another metric."""
    import numpy as np

    if wanted == "accuracy" and predictions.classes is not None:
        return np.asarray(predictions.labels == truth, dtype="float64")
    numbers = truth.dtype.kind in "iuf" and predictions.labels.dtype.kind in "iuf"
    if not numbers or wanted not in ("mean_absolute_error", "mean_squared_error"):
        return None
    apart = np.abs(truth.astype("float64") - predictions.labels)
    return np.asarray(apart if wanted == "mean_absolute_error" else apart**2)
