"""What the report draws of the predictions: ROC curves, a confusion matrix, predicted against true values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core.evaluation.parts import scores_of
from airflow_mlops.core.vocabulary import role_columns

if TYPE_CHECKING:
    import numpy as np

    from airflow_mlops.core.evaluation.evidence import Evidence, Judged

#: Points of a ROC curve, at equally many false positive rates.
POINTS = 101
#: Bins of about equally many rows that predicted values are put into.
BINS = 20
#: Classes up to which a confusion matrix can be read.
MAX_CLASSES = 12


def pictures(evidence: Evidence) -> dict[str, Any]:
    """Return ``roc``, ``confusion`` and ``fit`` for the details; what has no meaning for the model is None."""
    judged = evidence.challenger
    found: dict[str, Any] = {"roc": None, "confusion": None, "fit": None}
    if judged.predictions is None or judged.bad_predictions or not len(judged.rows):
        return found
    if judged.predictions.classes is None:
        found["fit"] = _fit(evidence)
        return found
    found["roc"] = _roc(evidence)
    # Its rows and columns are named by values of the target.
    if evidence.show_values or evidence.target not in role_columns(evidence.roles, "private"):
        found["confusion"] = _confusion(evidence)
    return found


def _roc(evidence: Evidence) -> dict[str, Any] | None:
    """Return the curves of both models, on the same rows where there are two."""
    champion = evidence.champion.judged if evidence.champion and not evidence.champion.problem else None
    rows = evidence.challenger.rows if champion is None or not len(champion.rows) else champion.rows
    mine = _curve(evidence, evidence.challenger, rows)
    its = _curve(evidence, champion, rows) if mine and champion is not None and len(champion.rows) else None
    return {"rows": len(rows), "challenger": mine, "champion": its} if mine else None


def _curve(evidence: Evidence, judged: Judged, rows: np.ndarray[Any, Any]) -> list[float] | None:
    """Return the true positive rates at equally spaced false positive rates."""
    import numpy as np
    from sklearn.metrics import roc_curve

    predictions = judged.at(rows)
    scores = scores_of(predictions) if predictions is not None else None
    if predictions is None or predictions.classes is None or scores is None:
        return None
    positive = evidence.truth(rows) == predictions.classes[-1]
    if positive.all() or not positive.any():
        return None
    weights = None if evidence.weights is None else evidence.weights[rows]
    wrong, right, _ = roc_curve(positive, scores, sample_weight=weights)
    # Of several rates at one false positive rate the last, highest one.
    places = np.searchsorted(wrong, np.linspace(0, 1, POINTS), side="right") - 1
    return [round(float(rate), 4) for rate in right[places]]


def _confusion(evidence: Evidence) -> dict[str, Any] | None:
    """Return ``classes`` and ``shares``: of the rows of each true class, the share that is predicted to be of each."""
    import numpy as np

    predictions = evidence.challenger.predictions
    if predictions is None or not predictions.classes:
        return None
    rows = evidence.challenger.rows
    truth = evidence.truth(rows)
    classes = sorted({*predictions.classes, *np.unique(truth).tolist()}, key=lambda one: (str(type(one)), one))
    if len(classes) > MAX_CLASSES:
        return None
    weights = np.ones(len(rows)) if evidence.weights is None else evidence.weights[rows]
    table = np.array(
        [[weights[(truth == one) & (predictions.labels == other)].sum() for other in classes] for one in classes]
    )
    total = table.sum(axis=1, keepdims=True)
    return {
        "classes": [str(one) for one in classes],
        "rows": [int((truth == one).sum()) for one in classes],
        "shares": np.divide(table, total, out=np.zeros_like(table), where=total > 0).round(4).tolist(),
    }


def _fit(evidence: Evidence) -> list[dict[str, float]] | None:
    """Return of bins of predicted values the mean predicted and true value, and where eight in ten true values are."""
    import numpy as np

    predictions = evidence.challenger.predictions
    truth = evidence.truth(evidence.challenger.rows)
    if predictions is None or truth.dtype.kind not in "iuf" or predictions.labels.dtype.kind not in "iuf":
        return None
    order = np.argsort(predictions.labels, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return [
        {
            "predicted": float(predictions.labels[part].mean()),
            "observed": float(truth[part].mean()),
            "low": float(np.quantile(truth[part], 0.1)),
            "high": float(np.quantile(truth[part], 0.9)),
        }
        for part in parts
    ]
