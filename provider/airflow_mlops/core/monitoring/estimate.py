"""Performance without labels: what a classifier's own probabilities say, once it is known what they are worth.

Confidence-based estimation (Guillory et al. 2021; NannyML's CBPE, 2022): if of the rows that are given probability *p*
a share *c(p)* is positive, the expected confusion matrix of any rows follows from their probabilities alone, and from
it every metric of two classes. *c* is found by isotonic regression (Zadrozny & Elkan 2002) on windows whose labels have
come, all of them older than the window that is estimated: probabilities calibrated on random rows promise too much.

The band is the largest error that the same procedure made on the windows before, each estimated from those before it.
There is no figure with fewer than :data:`MIN_WINDOWS` of these, or where more than :data:`MAX_OUTSIDE` of the rows have
probabilities that the windows of the reference did not have. It cannot see that the world has changed what the same
features mean, so it is never a reason to act by itself.

Windows are kept as counts by probability, so no old rows are read again: ``{bin: [rows, sum of p, predicted positive,
positive]}``, with bins of equal width in the logit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Bins = dict[str, list[float]]
#: Bins of a tenth in the logit, from -8 to 8; 0.5 is an edge.
WIDTH, REACH = 0.1, 8.0
#: Windows with an error of their own that a band needs, and those that are looked back at.
MIN_WINDOWS, MAX_WINDOWS = 2, 12
#: Share of rows outside the reference's support up to which there is a figure.
MAX_OUTSIDE = 0.05
#: Metrics that follow from the expected confusion matrix.
METRICS = ("roc_auc", "accuracy", "precision", "recall", "f1", "log_loss", "brier_score_loss")


def bins_of(probability: Array, predicted: Array, positive: Array | None = None) -> Bins:
    """Count rows by probability.

    :param probability: of the positive class, ``(rows,)``; rows without one are left out.
    :param predicted: whether the positive class was predicted, ``(rows,)``.
    :param positive: whether it came true, ``(rows,)``; None: not known.
    """
    import numpy as np

    good = np.isfinite(probability)
    p = np.clip(probability[good], 1e-12, 1 - 1e-12)
    logit = np.clip(np.log(p / (1 - p)), -REACH, REACH - 1e-9)
    places = np.floor(logit / WIDTH).astype(int)
    columns = [np.ones(len(p)), p, predicted[good], np.zeros(len(p)) if positive is None else positive[good]]
    low = int(places.min()) if len(places) else 0
    sums = [np.bincount(places - low, weights=np.asarray(one, dtype="float64")) for one in columns]
    return {str(low + n): [float(one[n]) for one in sums] for n in range(len(sums[0])) if sums[0][n]}


def merged(windows: list[Bins]) -> Bins:
    """Return the counts of several windows together."""
    found: Bins = {}
    for window in windows:
        for place, counts in window.items():
            found[place] = [a + b for a, b in zip(found.get(place, [0.0] * 4), counts, strict=True)]
    return found


def estimate(window: Bins, reference: list[Bins], names: list[str]) -> tuple[dict[str, float | None], str | None]:
    """Return the expected metrics of a window, or none and why.

    :param reference: windows with labels, all older.
    """
    import numpy as np
    from sklearn.isotonic import IsotonicRegression

    if not reference:
        return {}, "no window with labels is older"
    known, places = merged(reference), sorted(window, key=int)
    if not places:
        return {}, "the window has no probabilities"
    span = sorted(int(place) for place in known)
    rows = sum(window[place][0] for place in places)
    outside = sum(window[place][0] for place in places if not span[0] <= int(place) <= span[-1]) / rows
    if outside > MAX_OUTSIDE:
        return {}, f"{outside:.0%} of the rows have probabilities that the reference never had"
    ordered = sorted(known, key=int)
    weight = np.array([known[place][0] for place in ordered])
    mean = np.array([known[place][1] for place in ordered]) / weight
    rate = np.array([known[place][3] for place in ordered]) / weight
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(mean, rate, sample_weight=weight)
    count = np.array([window[place][0] for place in places])
    probability = np.array([window[place][1] for place in places]) / count
    predicted = np.array([window[place][2] for place in places]) / count
    return _expected(names, count, probability, predicted, curve.predict(probability)), None


def _expected(names: list[str], count: Array, p: Array, predicted: Array, c: Array) -> dict[str, float | None]:
    """Return metrics of the expected confusion: of each bin a share *c* is positive."""
    import numpy as np

    up, down = count * c, count * (1 - c)
    true_up, false_up = float((up * predicted).sum()), float((down * predicted).sum())
    positives, total = float(up.sum()), float(count.sum())
    precision = true_up / (true_up + false_up) if true_up + false_up else None
    recall = true_up / positives if positives else None
    pairs = positives * float(down.sum())
    clipped = np.clip(p, 1e-15, 1 - 1e-15)
    found: dict[str, float | None] = {
        "roc_auc": float(up @ (np.cumsum(down) - down / 2)) / pairs if pairs else None,
        "accuracy": (true_up + float((down * (1 - predicted)).sum())) / total,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision and recall else None,
        "log_loss": float(-(up @ np.log(clipped) + down @ np.log(1 - clipped)) / total),
        "brier_score_loss": float((up @ (1 - p) ** 2 + down @ p**2) / total),
    }
    return {name: found[name] for name in names if name in found}


def with_band(
    window: Bins, history: list[tuple[Bins, dict[str, float | None]]], names: list[str]
) -> tuple[dict[str, dict[str, float | None]], str | None]:
    """Return ``{metric: {"value", "low", "high", "error", "windows"}}`` of a window, or none and why.

    :param history: windows with labels and what was measured on them, the oldest first, all older than the window.
    """
    history = history[-MAX_WINDOWS:]
    wanted = [name for name in names if name in METRICS]
    if not wanted:
        return {}, f"none of {', '.join(names)} follows from probabilities of two classes"
    values, why = estimate(window, [bins for bins, _ in history], wanted)
    if why:
        return {}, why
    errors: dict[str, list[float]] = {name: [] for name in wanted}
    for place in range(1, len(history)):
        then, _ = estimate(history[place][0], [bins for bins, _ in history[:place]], wanted)
        for name in wanted:
            measured, said = history[place][1].get(name), then.get(name)
            if measured is not None and said is not None:
                errors[name].append(said - measured)
    found: dict[str, dict[str, float | None]] = {}
    for name in wanted:
        value, past = values.get(name), errors[name]
        if value is not None and len(past) >= MIN_WINDOWS:
            band = max(abs(one) for one in past)
            error = math.fsum(past) / len(past)
            found[name] = {
                "value": value,
                "low": value - band,
                "high": value + band,
                "error": error,
                "windows": len(past),
            }
    if not found:
        most = max(len(past) for past in errors.values())
        return {}, f"its error is known from {most} windows with labels; {MIN_WINDOWS} are needed"
    return found, None
