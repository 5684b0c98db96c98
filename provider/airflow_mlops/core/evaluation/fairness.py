"""Whether groups of people are selected, and wrongly selected, at the same rates (fairlearn's definitions).

Demographic parity: every group is selected at the same rate (Dwork et al. 2012). Equalised odds: those to whom it
happens are selected at the same rate in every group, and so are those to whom it does not (Hardt et al. 2016). The
difference is that of the highest and the lowest rate among the groups, the ratio is the lowest over the highest, of
equalised odds the worse of the two rates.

Of many pairs of groups some are apart by luck. Two groups that are beyond a threshold are held against the model only
if a one-sided test says so (:func:`.significance.jackknife`, over clusters where rows depend on each other), after
Holm's correction (1979) over all pairs, rates and thresholds of the test.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.evaluation import significance
from airflow_mlops.core.evaluation.outcome import Outcome, outcome
from airflow_mlops.core.evaluation.paired import clusters_of
from airflow_mlops.core.evaluation.slices import groups
from airflow_mlops.core.extras import require
from airflow_mlops.core.reports import figure as text

if TYPE_CHECKING:
    import numpy as np

    from airflow_mlops.core.evaluation.evidence import Evidence
    from airflow_mlops.core.training.predictions import Predictions

    Room: TypeAlias = Callable[[np.ndarray[Any, Any]], float | None]

SAID = {"demographic_parity": "demographic parity", "equalized_odds": "equalised odds"}
RATES = {
    "demographic_parity": ("selection_rate",),
    "equalized_odds": ("true_positive_rate", "false_positive_rate"),
}


@dataclass(frozen=True)
class Selection:
    """Who is selected, and who should be.

    :param what: what it is to be selected, for the report.
    :param truth: boolean, of the judged rows.
    :param selected: boolean, of the judged rows.
    """

    what: str
    truth: np.ndarray[Any, Any]
    selected: np.ndarray[Any, Any]


def fairness_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the groups by some columns are selected alike: one outcome a column, and a class of many."""
    judged, threshold = evidence.challenger, _threshold(spec)
    if judged.predictions is None or judged.bad_predictions:
        why = judged.problem or "some predictions are no numbers"
        return [outcome(spec, False, f"Fairness cannot be measured: {why}", threshold=threshold)]
    by = spec["by"] if isinstance(spec["by"], (list, tuple)) else [spec["by"]]
    found = []
    for columns in by:
        listed = [columns] if isinstance(columns, str) else list(columns)
        for selection in selections(evidence.truth(judged.rows), judged.predictions, spec):
            found.append(_by(evidence, spec, listed, selection))
    return found


def selections(truth: np.ndarray[Any, Any], predictions: Predictions, spec: dict[str, Any]) -> list[Selection]:
    """Return what it means to be selected: of two classes the positive one, of more each in turn, or ``of_class``.

    With ``at_least`` it is a probability, or for a regressor a value, of at least so much.
    """
    import numpy as np

    limit = spec.get("at_least")
    if predictions.classes is None:
        if limit is None:
            raise SpecError(
                f"the test {spec['name']!r} is of a model that predicts quantities: at_least= says from which value on "
                "a row is selected"
            )
        return [Selection(f"{limit:g} or more", truth >= limit, np.asarray(predictions.labels >= limit))]
    classes = predictions.classes
    if "of_class" in spec:
        wanted = [one for one in classes if str(one) == str(spec["of_class"])]
        if not wanted:
            raise SpecError(f"the test {spec['name']!r}: the model knows no class {spec['of_class']!r}")
    else:
        wanted = classes[-1:] if len(classes) <= 2 else classes
    if limit is not None and predictions.probabilities is None:
        raise SpecError(f"the test {spec['name']!r}: at_least= needs probabilities, and the model gives none")
    found = []
    for one in wanted:
        if limit is None or predictions.probabilities is None:
            selected, what = predictions.labels == one, f"class {one}"
        else:
            selected = predictions.probabilities[:, classes.index(one)] >= limit
            what = f"class {one} with {limit:g} or more"
        found.append(Selection(what, truth == one, np.asarray(selected)))
    return found


def _by(evidence: Evidence, spec: dict[str, Any], columns: list[str], selection: Selection) -> Outcome:
    import numpy as np

    name, threshold = " × ".join(columns), _threshold(spec)
    label = np.full(len(selection.truth), "", dtype=object)
    kept, left = np.zeros(len(label), dtype=bool), []
    for group, rows in groups(evidence, columns):
        places = np.searchsorted(evidence.challenger.rows, rows)
        label[places] = group
        why = _too_little(spec, selection.truth[places])
        kept[places] = why is None
        if why:
            left.append({"group": group, "rows": len(rows), "why": why})
    entry: dict[str, Any] = {
        "test": spec["name"], "criterion": SAID[spec["criterion"]], "by": name, "selected": selection.what,
        "difference": None, "ratio": None, "groups": [], "left_out": left, "passed": False,
        "p_corrected": None,
        "severity": spec["severity"],
    }  # fmt: skip
    evidence.fairness.append(entry)
    if len(set(label[kept])) < 2:
        why = f": {left[0]['why']}" if left else ""
        message = f"Fewer than two groups by {name} can be compared{why}"
        return outcome(spec, False, message, threshold=threshold)
    weights = None if evidence.weights is None else evidence.weights[evidence.challenger.rows][kept]
    entry |= rates(selection.truth[kept], selection.selected[kept], label[kept], spec["criterion"], weights)
    short = entry["difference"] > spec.get("max_difference", 1) or entry["ratio"] < spec.get("min_ratio", 0)
    if short and spec["correction"] == "holm":
        entry["p_corrected"] = _chance(evidence, spec, selection, label, kept)
    entry["passed"] = not short or (entry["p_corrected"] is not None and entry["p_corrected"] > spec["alpha"])
    value = entry["difference"] if "max_difference" in spec else entry["ratio"]
    brief = (
        f"{SAID[spec['criterion']]} of {len(entry['groups'])} groups by {name} ({selection.what}): difference "
        f"{text(entry['difference'])}, ratio {text(entry['ratio'])}"
    )
    brief = brief[:1].upper() + brief[1:] + (f"; must be {threshold}" if short else "")
    if entry["p_corrected"] is not None:
        brief += f"; {'within' if entry['passed'] else 'beyond'} chance (p = {text(entry['p_corrected'])})"
    return outcome(spec, entry["passed"], f"{brief}. {_furthest(spec, entry)}", brief=brief, value=value,
                   threshold=threshold)  # fmt: skip


def rates(
    truth: np.ndarray[Any, Any],
    selected: np.ndarray[Any, Any],
    label: np.ndarray[Any, Any],
    criterion: str,
    weights: np.ndarray[Any, Any] | None = None,
) -> dict[str, Any]:
    """Return ``difference``, ``ratio`` and ``groups``: the rates of each, the largest group first.

    :param truth: whether it came true, boolean; so is ``selected``.
    :param label: each row's group.
    """
    import math

    import numpy as np

    metrics = require("fairlearn.metrics", "the test kind 'fairness'")
    names = ("selection_rate", "true_positive_rate", "false_positive_rate")
    # One row for all that are alike, with their weight: fairlearn looks at each single row in Python.
    known, code = np.unique(label.astype(str), return_inverse=True)
    cells = code * 4 + truth * 2 + selected
    there = np.unique(cells)
    weight = np.bincount(cells, weights, 4 * len(known))[there]
    frame = metrics.MetricFrame(
        metrics={name: getattr(metrics, name) for name in names},
        y_true=there // 2 % 2,
        y_pred=there % 2,
        sensitive_features=known[there // 4],
        sample_params={name: {"sample_weight": weight} for name in names},
    )
    rows = dict(zip(known.tolist(), np.bincount(code).tolist(), strict=True))
    wanted = list(RATES[criterion])
    difference, ratio = frame.difference()[wanted], frame.ratio()[wanted]
    # No group has any: 0 of 0 is no ratio, but they are equal.
    ratios = [1.0 if math.isnan(one) else float(one) for one in ratio]
    return {
        "difference": float(np.max(difference.to_numpy())),
        "ratio": min(ratios),
        "groups": [
            {"group": str(group), "rows": rows[group], **{name: float(row[name]) for name in names}}
            for group, row in sorted(frame.by_group.iterrows(), key=lambda one: -rows[one[0]])
        ],
    }


def _chance(
    evidence: Evidence,
    spec: dict[str, Any],
    selection: Selection,
    label: np.ndarray[Any, Any],
    kept: np.ndarray[Any, Any],
) -> float | None:
    """Return how likely groups at the thresholds are as far apart as these, corrected; None: it cannot be told."""
    import numpy as np

    rows = evidence.challenger.rows[kept]
    found = clusters_of(evidence, rows, spec.get("cluster"))
    clusters, unit = found or (np.arange(len(rows)), "rows")
    count = int(clusters.max()) + 1
    if count < significance.MIN_CLUSTERS:
        return None
    parts = significance.merged(count)[clusters] if count > significance.MAX_GROUPS else clusters
    size = min(count, significance.MAX_GROUPS)
    weights = np.ones(len(rows)) if evidence.weights is None else evidence.weights[rows]
    names, group = np.unique(label[kept].astype(str), return_inverse=True)
    truth, selected = selection.truth[kept], selection.selected[kept]
    chances, tests = [], 0
    for base in (np.ones_like(truth),) if spec["criterion"] == "demographic_parity" else (truth, ~truth):
        # Of each group and part, how many there are and how many are selected: all that is needed to leave one out.
        cells = group * size + parts
        there, chosen = (
            np.bincount(cells, weights * base * mask, len(names) * size).reshape(len(names), size)
            for mask in (1, selected)
        )
        whole = chosen.sum(axis=1) / there.sum(axis=1)
        for high, low in itertools.permutations(range(len(names)), 2):
            if whole[high] < whole[low] or (whole[high] == whole[low] and high < low):
                continue
            for room in _rooms(spec, there[[high, low]], chosen[[high, low]]):
                tests += 1
                if (room(np.ones(size, dtype=bool)) or 0) < 0:
                    told = significance.jackknife(room, np.arange(size), unit=unit)
                    if told is None:
                        return None
                    chances.append(told.p_worse)
    # The smallest p decides whether any pair is too far apart; Holm multiplies that one by the number of tests.
    return min(1.0, tests * min(chances)) if chances else None


def _rooms(spec: dict[str, Any], there: np.ndarray[Any, Any], chosen: np.ndarray[Any, Any]) -> list[Room]:
    """Return by how much two groups, the higher one first, keep to each threshold, as functions of a mask of parts."""

    def room(limit: Callable[[float, float], float]) -> Room:
        def of_parts(parts: np.ndarray[Any, Any]) -> float | None:
            base = there[:, parts].sum(axis=1)
            if not base.all():
                return None
            high, low = chosen[:, parts].sum(axis=1) / base
            return float(limit(high, low))

        return of_parts

    found = []
    if "max_difference" in spec:
        found.append(room(lambda high, low: spec["max_difference"] - (high - low)))
    if "min_ratio" in spec:
        found.append(room(lambda high, low: low - spec["min_ratio"] * high))
    return found


def _too_little(spec: dict[str, Any], truth: np.ndarray[Any, Any]) -> str | None:
    """Return why a group has no say, or None."""
    if len(truth) < spec["min_rows"]:
        return f"fewer than {spec['min_rows']:,} rows"
    if spec["criterion"] == "equalized_odds" and (truth.all() or not truth.any()):
        return "it happens to all of them, or to none"
    return None


def _furthest(spec: dict[str, Any], entry: dict[str, Any]) -> str:
    """Return which groups are furthest apart."""
    apart = {name: [one[name] for one in entry["groups"]] for name in RATES[spec["criterion"]]}
    worst = max(apart, key=lambda name: max(apart[name]) - min(apart[name]))
    low, high = (pick(entry["groups"], key=lambda one: one[worst]) for pick in (min, max))
    said = worst.replace("_", " ").capitalize()
    return f"{said} is {low[worst]:.1%} of {low['group']} and {high[worst]:.1%} of {high['group']}"


def _threshold(spec: dict[str, Any]) -> str:
    parts = [f"difference ≤ {spec['max_difference']:g}"] if "max_difference" in spec else []
    parts += [f"ratio ≥ {spec['min_ratio']:g}"] if "min_ratio" in spec else []
    return " and ".join(parts)
