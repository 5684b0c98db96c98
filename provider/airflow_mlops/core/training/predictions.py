"""What a model says of rows: labels and, for a classifier, probabilities, each row predicted once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import MissingColumnError, UnsupportedError
from airflow_mlops.core.training.flavours import is_booster

if TYPE_CHECKING:
    import numpy as np
    import pandas

#: Libraries whose classifiers' ``predict`` is the class with the highest probability, but for these classes.
_ARGMAX_LIBRARIES = ("sklearn", "lightgbm", "xgboost")
_NOT_ARGMAX = ("SVC", "NuSVC", "FixedThresholdClassifier", "TunedThresholdClassifierCV", "GridSearchCV")


@dataclass(frozen=True)
class Predictions:
    """Predictions of one model on some rows.

    :param labels: the predicted class, or value, of each row.
    :param probabilities: ``(rows, classes)``, or None.
    :param classes: the classes in the order of the columns of ``probabilities``; the last of two is the positive one.
        None for a regressor and for a model that does not say.
    :param scores: what ranks the rows where there are no probabilities (``decision_function``), or None.
    """

    labels: np.ndarray[Any, Any]
    probabilities: np.ndarray[Any, Any] | None = None
    classes: list[Any] | None = None
    scores: np.ndarray[Any, Any] | None = None

    def take(self, rows: Any) -> Predictions:
        """Return the predictions of some rows: positions or a mask."""
        return Predictions(
            labels=self.labels[rows],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            classes=self.classes,
            scores=None if self.scores is None else self.scores[rows],
        )


def predict(model: Any, frame: pandas.DataFrame) -> Predictions:
    """Predict rows once.

    :param model: a fitted estimator with scikit-learn's methods, a booster, or an MLflow ``pyfunc`` model.
    :param frame: the columns that the model was trained on; of a ``pyfunc`` model with a signature only its columns
        are passed on, in its order.
    :raises MissingColumnError: if a column of the signature is not there.
    :raises UnsupportedError: if the model returns something else than one prediction a row.
    """
    import numpy as np

    estimator, frame = _unwrapped(model, frame)
    if hasattr(estimator, "predict_proba"):
        probabilities = np.asarray(estimator.predict_proba(frame))
        if probabilities.ndim != 2:
            raise UnsupportedError("the model predicts several targets; only one is supported")
        classes = [getattr(c, "item", lambda c=c: c)() for c in getattr(estimator, "classes_", [])]
        classes = classes or list(range(probabilities.shape[1]))
        if _argmax_is_predict(estimator):
            labels = np.asarray(classes)[probabilities.argmax(axis=1)]
        else:
            labels = _one_each(estimator.predict(frame), len(frame))
        return Predictions(labels, probabilities, classes)
    labels = _called(estimator, frame)
    if getattr(labels, "ndim", 1) == 2 and labels.shape[1] > 1:
        return _from_matrix(np.asarray(labels), len(frame))
    labels = _one_each(labels, len(frame))
    if not hasattr(estimator, "classes_"):
        return Predictions(labels)
    scores = np.asarray(estimator.decision_function(frame)) if hasattr(estimator, "decision_function") else None
    return Predictions(labels, None, [getattr(c, "item", lambda c=c: c)() for c in estimator.classes_], scores)


def _unwrapped(model: Any, frame: pandas.DataFrame) -> tuple[Any, pandas.DataFrame]:
    """Return the estimator inside a ``pyfunc`` model if it has scikit-learn's methods, and the columns it takes."""
    metadata = getattr(model, "metadata", None)
    if metadata is None or not hasattr(model, "get_raw_model"):
        return model, frame
    schema = metadata.get_input_schema()
    if schema is not None and schema.has_input_names():
        missing = [spec.name for spec in schema.inputs if spec.name not in frame.columns and spec.required]
        if missing:
            raise MissingColumnError(
                f"the model takes columns that the data does not have: {', '.join(missing[:10])}", columns=missing
            )
        frame = frame[[name for name in schema.input_names() if name in frame.columns]]
    try:
        raw = model.get_raw_model()
    except Exception:
        # Some flavours keep no native model; the pyfunc itself predicts.
        return model, frame
    known = hasattr(raw, "predict_proba") or hasattr(raw, "classes_") or is_booster(raw)
    return (raw, frame) if known else (model, widened(frame, schema))


def widened(frame: pandas.DataFrame, schema: Any) -> pandas.DataFrame:
    """Return whole numbers as floats where the signature has floats: MLflow refuses 64-bit ones there."""
    if schema is None or not schema.has_input_names():
        return frame
    floats = {spec.name for spec in schema.inputs if getattr(spec.type, "name", "") in ("float", "double")}
    whole = [name for name in frame.columns if name in floats and getattr(frame[name].dtype, "kind", "") in "iu"]
    return frame.astype(dict.fromkeys(whole, "float64")) if whole else frame


def _called(estimator: Any, frame: pandas.DataFrame) -> Any:
    """Return what ``predict`` gives; XGBoost's native model takes its own matrix."""
    if is_booster(estimator) and type(estimator).__module__.startswith("xgboost"):
        import xgboost

        return estimator.predict(xgboost.DMatrix(frame))
    return estimator.predict(frame)


def _argmax_is_predict(estimator: Any) -> bool:
    last = estimator
    while hasattr(last, "steps"):
        last = last.steps[-1][1]
    kind = type(last)
    return kind.__module__.partition(".")[0] in _ARGMAX_LIBRARIES and kind.__name__ not in _NOT_ARGMAX


def _one_each(values: Any, rows: int) -> np.ndarray[Any, Any]:
    import numpy as np

    found = np.asarray(values)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.shape != (rows,):
        raise UnsupportedError(f"the model returns shape {found.shape} for {rows} rows; one prediction a row is needed")
    return found


def _from_matrix(values: np.ndarray[Any, Any], rows: int) -> Predictions:
    """Read rows of class probabilities, as neural networks and boosters return them."""
    import numpy as np

    if len(values) != rows or values.dtype.kind != "f" or not np.allclose(values.sum(axis=1), 1, atol=1e-3):
        raise UnsupportedError(
            f"the model returns shape {values.shape} for {rows} rows, which are no class probabilities; "
            "one prediction a row is needed"
        )
    return Predictions(values.argmax(axis=1), values, list(range(values.shape[1])))
