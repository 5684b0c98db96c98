"""Whether probabilities mean what they say: of the rows that are given 30%, three in ten come true."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.evaluation.outcome import Outcome, outcome
from airflow_mlops.core.reports import figure as text

if TYPE_CHECKING:
    import numpy as np

    from airflow_mlops.core.evaluation.evidence import Evidence


def calibration_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test the expected calibration error and the Brier score, and draw the reliability of the probabilities.

    For two classes the probability of the positive one is judged, for more that of the predicted one (Guo et al.
    2017). The bins hold equally many rows (Nguyen & O'Connor 2015). The Brier score (1950) of two classes is the mean
    squared error of the positive one's probability, of more the sum over all classes.
    """
    import numpy as np

    judged = evidence.challenger
    predictions = judged.predictions
    threshold = _threshold(spec)
    if predictions is None or predictions.probabilities is None or not predictions.classes:
        why = judged.problem or "the model gives no probabilities"
        return [outcome(spec, False, f"Calibration cannot be measured: {why}", threshold=threshold)]
    truth = evidence.truth(judged.rows)
    weights = np.ones(len(truth)) if evidence.weights is None else evidence.weights[judged.rows]
    classes, probabilities = np.asarray(predictions.classes), predictions.probabilities
    if len(classes) == 2:
        confidence, came_true = probabilities[:, 1], truth == classes[1]
        brier = float(np.average((confidence - came_true) ** 2, weights=weights))
    else:
        confidence, came_true = probabilities.max(axis=1), truth == classes[probabilities.argmax(axis=1)]
        hits = truth[:, None] == classes[None, :]
        brier = float(np.average(((probabilities - hits) ** 2).sum(axis=1), weights=weights))
    bins = reliability(confidence, came_true, weights, spec["bins"])
    error = sum(one["share"] * abs(one["predicted"] - one["observed"]) for one in bins)
    passed = error <= spec.get("max_ece", math.inf) and brier <= spec.get("max_brier", math.inf)
    evidence.calibration.append({"test": spec["name"], "ece": error, "brier": brier, "bins": bins})
    evidence.extra_metrics |= {"expected_calibration_error": error}
    message = f"Expected calibration error {text(error)} over {len(bins)} bins, Brier score {text(brier)}"
    message += "" if passed else f"; must be {threshold}"
    return [outcome(spec, passed, message, value=error if "max_ece" in spec else brier, threshold=threshold)]


def _threshold(spec: dict[str, Any]) -> str:
    parts = [f"ECE ≤ {spec['max_ece']:g}"] if "max_ece" in spec else []
    parts += [f"Brier ≤ {spec['max_brier']:g}"] if "max_brier" in spec else []
    return " and ".join(parts)


def reliability(
    confidence: np.ndarray[Any, Any], came_true: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], bins: int
) -> list[dict[str, Any]]:
    """Return ``{predicted, observed, rows, share, low, high}`` of bins with about equally many rows.

    :param confidence: the probabilities, ``(rows,)``; equal ones share a bin.
    :param came_true: boolean, ``(rows,)``.
    :param weights: of the rows.
    :return: by rising probability; ``share`` is the bin's part of all weights, ``low`` and ``high`` are Wilson's 95%
        interval (1927) of the observed share, for the rows' number without weights.
    """
    import numpy as np

    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, confidence, side="left")
    found = []
    for number in np.unique(place):
        here = place == number
        weight = weights[here].sum()
        if weight == 0:
            continue
        observed = float(np.average(came_true[here], weights=weights[here]))
        low, high = _wilson(observed, int(here.sum()))
        found.append(
            {
                "predicted": float(np.average(confidence[here], weights=weights[here])),
                "observed": observed,
                "rows": int(here.sum()),
                "share": float(weight / weights.sum()),
                "low": low,
                "high": high,
            }
        )
    return found


def _wilson(share: float, rows: int, z: float = 1.959963984540054) -> tuple[float, float]:
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, middle - half), min(1.0, middle + half)
