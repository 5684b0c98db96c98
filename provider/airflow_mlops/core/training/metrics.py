"""Metrics by scikit-learn's names, their direction, and predictions to compute them from.

A metric that has no value on the rows at hand (one class only, no probabilities) is None with a reason, never NaN.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.extras import require
from airflow_mlops.core.imports import load
from airflow_mlops.core.training.predictions import Predictions, predict

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "METRICS",
    "Metric",
    "Predictions",
    "compute",
    "compute_one",
    "default_metrics",
    "for_target",
    "metric",
    "predict",
    "task_of",
]

log = logging.getLogger("airflow_mlops")

Task = Literal["binary", "multiclass", "regression"]
Needs = Literal["label", "probability"]

CLASSES = frozenset({"binary", "multiclass"})
_QUANTITY = frozenset({"regression"})
#: Integer targets with more distinct values than this are quantities, not classes.
MAX_CLASSES = 50


@dataclass(frozen=True)
class Metric:
    """A metric and what it takes.

    :param name: scikit-learn's name, or the import string of a function ``(y_true, y_pred) -> float``.
    :param task: the kinds of target it has a meaning for.
    :param needs: predicted labels (or values), or probabilities.
    :param greater_is_better: its direction.
    :param function: where it is computed: a function of ``sklearn.metrics``, or the user's own.
    :param options: keyword arguments of that function.
    """

    name: str
    task: frozenset[str]
    needs: Needs
    greater_is_better: bool
    function: str | Callable[..., Any]
    options: tuple[tuple[str, Any], ...] = ()

    def better(self, value: float, than: float) -> bool:
        """Return whether one value is strictly better than another."""
        return value > than if self.greater_is_better else value < than


def _classes(name: str, function: str | None = None, *, tasks: frozenset[str] = CLASSES, **options: Any) -> Metric:
    return Metric(name, tasks, "label", True, function or f"{name}_score", tuple(options.items()))


def _error(name: str, function: str | None = None, *, greater: bool = False) -> Metric:
    return Metric(name, _QUANTITY, "label", greater, function or name)


_BINARY = frozenset({"binary"})
_AVERAGES = ("macro", "micro", "weighted")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("roc_auc", CLASSES, "probability", True, "roc_auc_score"),
        Metric("average_precision", CLASSES, "probability", True, "average_precision_score"),
        Metric("log_loss", CLASSES, "probability", False, "log_loss"),
        Metric("brier_score_loss", _BINARY, "probability", False, "brier_score_loss"),
        _classes("accuracy"),
        _classes("balanced_accuracy"),
        *(_classes(name, tasks=_BINARY) for name in ("f1", "precision", "recall")),
        *(
            _classes(f"{name}_{average}", f"{name}_score", average=average)
            for name in ("f1", "precision", "recall")
            for average in _AVERAGES
        ),
        _classes("matthews_corrcoef", "matthews_corrcoef"),
        _classes("cohen_kappa"),
        _error("mean_absolute_error"),
        _error("mean_squared_error"),
        _error("root_mean_squared_error"),
        _error("median_absolute_error"),
        _error("mean_absolute_percentage_error"),
        _error("mean_squared_log_error"),
        _error("root_mean_squared_log_error"),
        _error("max_error"),
        _error("r2", "r2_score", greater=True),
        _error("explained_variance", "explained_variance_score", greater=True),
    )
}


def metric(name: str | Callable[..., Any]) -> Metric:
    """Return a metric by name.

    :param name: one of :data:`METRICS`, or ``"pkg.mod:function"``, a callable ``(y_true, y_pred) -> float``. It may
        carry the attributes ``greater_is_better`` (default True) and ``needs`` (``"label"``, the default, or
        ``"probability"``), and name ``sample_weight`` in its signature.
    :raises SpecError: for a name that is not known, with the nearest one.
    """
    if isinstance(name, str) and name in METRICS:
        return METRICS[name]
    if callable(name) or ":" in str(name):
        function = load(name, "metric")
        needs: Any = getattr(function, "needs", "label")
        if needs not in ("label", "probability"):
            raise SpecError(f"metric {name!r}: its 'needs' must be 'label' or 'probability', got {needs!r}")
        text = name if isinstance(name, str) else f"{function.__module__}:{function.__qualname__}"
        greater = bool(getattr(function, "greater_is_better", True))
        return Metric(text, frozenset({*CLASSES, "regression"}), needs, greater, function)
    plain = str(name).removeprefix("neg_").removesuffix("_score")
    near = f"; did you mean {plain!r}?" if plain in METRICS else did_you_mean(plain, METRICS)
    raise SpecError(
        f"there is no metric {name!r}{near} Use a name of scikit-learn ({', '.join(METRICS)}) or "
        "'package.module:function'",
        metric=str(name),
    )


def default_metrics(task: Task) -> list[str]:
    """Return the metrics that are logged where none are named."""
    if task == "binary":
        return ["roc_auc", "average_precision", "accuracy", "f1", "log_loss", "brier_score_loss"]
    if task == "multiclass":
        return ["accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss"]
    return ["root_mean_squared_error", "mean_absolute_error", "r2"]


def task_of(y: Any, prediction: Predictions | None = None) -> Task:
    """Return what kind of target ``y`` is.

    :param y: the target's values. Text, booleans and categories are classes; so are whole numbers with at most 50
        distinct values; other numbers are quantities.
    :param prediction: what a model said; if it has classes, the target has.
    """
    import numpy as np

    pandas = require("pandas", "measuring a model")
    if prediction is not None:
        classes = for_target(y, prediction).classes
        return "regression" if classes is None else "binary" if len(classes) <= 2 else "multiclass"
    values = pandas.Series(y).dropna()
    distinct = values.nunique()
    if pandas.api.types.is_numeric_dtype(values) and not pandas.api.types.is_bool_dtype(values):
        numbers = values.to_numpy(dtype="float64")
        if distinct > MAX_CLASSES or not np.array_equal(numbers, np.round(numbers)):
            return "regression"
    return "binary" if distinct <= 2 else "multiclass"


def compute(
    names: Sequence[str | Callable[..., Any]],
    y_true: Any,
    prediction: Predictions,
    sample_weight: Any = None,
    *,
    logger: logging.Logger | None = None,
    where: str = "",
) -> dict[str, float | None]:
    """Return the metrics' values; one that cannot be computed is None, and the reason is logged.

    :param y_true: the true labels or values, without nulls.
    :param prediction: what :func:`~airflow_mlops.core.training.predictions.predict` returned on the same rows.
    :param sample_weight: weight of each row.
    :param where: which rows these are, for the log.
    """
    found: dict[str, float | None] = {}
    reasons: dict[str, list[str]] = {}
    for name in names:
        value, reason = compute_one(name, y_true, prediction, sample_weight)
        key = metric(name).name
        found[key] = value
        if reason:
            reasons.setdefault(reason, []).append(key)
    for reason, keys in reasons.items():  # what five metrics have in common is said once
        (logger or log).warning("%s%s cannot be computed: %s", ", ".join(keys), f" on {where}" if where else "", reason)
    return found


def compute_one(
    name: str | Callable[..., Any], y_true: Any, prediction: Predictions, sample_weight: Any = None
) -> tuple[float | None, str | None]:
    """Return ``(value, None)`` or ``(None, why there is no value)``."""
    import numpy as np

    wanted = metric(name)
    truth = np.asarray(y_true)
    if len(truth) == 0:
        return None, "there are no rows"
    if len(truth) != len(prediction.labels):
        raise SpecError(f"{len(truth)} true values but {len(prediction.labels)} predictions")
    if _has_nan(prediction.labels) or _has_nan(prediction.probabilities):
        return None, "the model predicts NaN or infinity"
    prediction = for_target(truth, prediction)
    task = task_of(truth, prediction)
    numeric = truth.dtype.kind in "iuf" and prediction.labels.dtype.kind in "iuf"
    if task not in wanted.task and not (numeric and wanted.task == _QUANTITY):
        near = {"f1": "f1_macro", "precision": "precision_macro", "recall": "recall_macro"}.get(wanted.name)
        return None, f"it has no meaning for a {task} target" + (f"; use {near}" if near and task != "binary" else "")
    weight = None if sample_weight is None else np.asarray(sample_weight, dtype="float64")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = _value(wanted, task, truth, prediction, weight)
    except _NoValueError as reason:
        return None, str(reason)
    except (ValueError, TypeError) as error:
        if callable(wanted.function):
            raise SpecError(f"metric {wanted.name!r} raised {type(error).__name__}: {error}") from error
        return None, str(error).partition("\n")[0][:300]
    if not math.isfinite(value):
        return None, "it is not defined on these rows"
    return value, None


class _NoValueError(Exception):
    """A metric has no value on these rows."""


def _value(wanted: Metric, task: Task, truth: Any, prediction: Predictions, weight: Any) -> float:
    if callable(wanted.function):
        return _custom(wanted, truth, prediction, weight)
    metrics = require("sklearn.metrics", "measuring a model")
    function = getattr(metrics, wanted.function)
    options = dict(wanted.options)
    if weight is not None and wanted.name != "max_error":
        options["sample_weight"] = weight
    if wanted.task == _QUANTITY:
        return float(function(truth, prediction.labels, **options))
    classes = prediction.classes or []
    unknown = set(_distinct(truth)) - set(_distinct(classes))
    if wanted.needs == "probability":
        if unknown:
            raise _NoValueError(_unknown(len(unknown)))
        return _of_probabilities(wanted, function, task, truth, prediction, options)
    if task == "binary" and not options.get("average") and wanted.task == _BINARY:
        if unknown:
            raise _NoValueError(_unknown(len(unknown)))
        positive = classes[-1]
        options["zero_division"] = math.nan
        return float(function(truth == positive, prediction.labels == positive, **options))
    if wanted.name.startswith(("precision_", "recall_", "f1_")):
        options["zero_division"] = 0.0
    return float(function(truth, prediction.labels, **options))


def _of_probabilities(
    wanted: Metric, function: Callable[..., Any], task: Task, truth: Any, prediction: Predictions, options: Any
) -> float:
    import numpy as np

    classes = list(prediction.classes or [])
    ranking = wanted.name in ("roc_auc", "average_precision")
    probabilities = prediction.probabilities
    if probabilities is None and not (ranking and prediction.scores is not None):
        raise _NoValueError("the model gives no probabilities")
    if ranking and len(_distinct(truth)) < 2:
        raise _NoValueError("all rows are of one class")
    if task == "binary":
        score: Any = prediction.scores if probabilities is None else probabilities[:, -1]
        if wanted.name == "log_loss":
            return float(function(truth == classes[-1], score, labels=[False, True], **options))
        return float(function(truth == classes[-1], score, **options))
    if wanted.name == "log_loss":
        return float(function(truth, probabilities, labels=classes, **options))
    score = prediction.scores if probabilities is None else probabilities
    # One class against the rest, averaged over the classes that these rows have.
    here = [i for i, label in enumerate(classes) if np.any(truth == label)]
    return float(np.mean([function(truth == classes[i], score[:, i], **options) for i in here]))


def _custom(wanted: Metric, truth: Any, prediction: Predictions, weight: Any) -> float:
    import inspect

    assert callable(wanted.function)
    given: dict[str, Any] = {}
    if weight is not None and "sample_weight" in inspect.signature(wanted.function).parameters:
        given["sample_weight"] = weight
    predicted: Any = prediction.labels
    if wanted.needs == "probability":
        predicted = prediction.probabilities
        if predicted is None:
            raise _NoValueError("the model gives no probabilities")
        if predicted.shape[1] == 2:
            predicted = predicted[:, 1]
    return float(wanted.function(truth, predicted, **given))


def for_target(y_true: Any, prediction: Predictions) -> Predictions:
    """Return the predictions with classes, where the target has classes and the model did not say which.

    A model from elsewhere may return labels alone, or, for a target of 0 and 1, the probability of 1.
    """
    import numpy as np

    if prediction.classes is not None or task_of(y_true) == "regression":
        return prediction
    truth, labels = np.asarray(y_true), prediction.labels
    if labels.dtype.kind == "f":
        whole = np.array_equal(labels, np.round(labels))
        if not whole and set(_distinct(truth)) <= {0, 1} and labels.min() >= 0 and labels.max() <= 1:
            both = np.column_stack([1 - labels, labels])
            return replace(prediction, labels=(labels >= 0.5).astype(truth.dtype), probabilities=both, classes=[0, 1])
        if not whole:
            return prediction
    distinct = sorted({*_distinct(truth), *_distinct(labels)}, key=lambda v: (str(type(v)), v))
    return replace(prediction, classes=distinct)


def _distinct(values: Any) -> list[Any]:
    import numpy as np

    pandas = require("pandas", "measuring a model")
    return list(pandas.unique(pandas.Series(np.asarray(values))).tolist())


def _has_nan(values: np.ndarray[Any, Any] | None) -> bool:
    import numpy as np

    if values is None or values.dtype.kind not in "fc":
        return False
    return not bool(np.isfinite(values).all())


def _unknown(count: int) -> str:
    classes = "a class among these rows is" if count == 1 else f"{count} classes among these rows are"
    return f"{classes} unknown to the model: no row that it was trained on has it; there may be too few of it to split"
