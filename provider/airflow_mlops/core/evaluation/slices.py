"""Slices: a metric on every part of the rows, and which parts fall short of a threshold by more than chance.

Of many slices some fall short by luck. One that does is held against it only if a one-sided test says so after Holm's
correction over all slices of the test (Holm 1979), so that a model that is good everywhere fails in at most a share
``alpha`` of cases. The test is the jackknife of :mod:`.significance`, over clusters where rows depend on each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import MissingColumnError, did_you_mean
from airflow_mlops.core.evaluation import significance
from airflow_mlops.core.evaluation.outcome import Outcome, bounds, outcome
from airflow_mlops.core.evaluation.paired import clusters_of
from airflow_mlops.core.evaluation.parts import of_parts
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.training.metrics import Metric, metric
from airflow_mlops.core.vocabulary import role_columns

if TYPE_CHECKING:
    import numpy as np

    from airflow_mlops.core.evaluation.evidence import Evidence

#: Numeric columns with more distinct values than this are cut into quartiles.
DISTINCT = 10
#: Slices of one column that are judged, the largest first.
MAX_SLICES = 200


def slices_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that no slice that is large enough falls short of the thresholds by more than chance."""
    by = spec["by"] if isinstance(spec["by"], (list, tuple)) else [spec["by"]]
    wanted = metric(spec["metric"])
    overall, reason = evidence.figure(evidence.challenger, spec["metric"])
    if overall is None:
        return [outcome(spec, False, f"{wanted.name} cannot be measured: {reason}", threshold=_threshold(spec))]
    outcomes: list[Outcome] = []
    judged: list[dict[str, Any]] = []
    for columns in by:
        found, left = _by_columns(evidence, spec, wanted, overall, [columns] if isinstance(columns, str) else columns)
        if not found:
            why = f": {left[0]['why_not_judged']}" if left else ""
            name = " × ".join([columns] if isinstance(columns, str) else columns)
            message = f"No slice by {name} could be judged on {wanted.name}{why}"
            outcomes.append(outcome(spec, False, message, threshold=_threshold(spec)))
        judged += found
        evidence.slices += [*found, *left]
    _correct(judged, spec)
    return [*outcomes, *(_slice_outcome(spec, entry) for entry in judged)]


def _threshold(spec: dict[str, Any]) -> str | None:
    parts = [bounds(spec)] if bounds(spec) else []
    if "max_gap" in spec:
        parts.append(f"at most {spec['max_gap']:g} worse than overall")
    return " and ".join(filter(None, parts)) or None


def _room(spec: dict[str, Any], wanted: Metric, value: float, overall: float) -> float:
    """Return how far a figure is inside the thresholds; below 0 it falls short of one."""
    gap = overall - value if wanted.greater_is_better else value - overall
    room: list[float] = [value - spec["min"]] if "min" in spec else []
    room += [spec["max"] - value] if "max" in spec else []
    room += [spec["max_gap"] - gap] if "max_gap" in spec else []
    return min(room)


def _by_columns(
    evidence: Evidence, spec: dict[str, Any], wanted: Metric, overall: float, columns: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what was found of the slices by some columns: of those that can be judged, and of the others."""
    found: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []
    for number, (label, rows) in enumerate(groups(evidence, columns), 1):
        value: float | None = None
        reason: str | None = f"fewer than {spec['min_rows']:,} rows"
        if number > MAX_SLICES:
            reason = f"beyond the {MAX_SLICES} largest"
        elif len(rows) >= spec["min_rows"]:
            value, reason = evidence.figure(evidence.challenger, spec["metric"], rows)
        entry = {
            "test": spec["name"],
            "by": " × ".join(columns),
            "slice": label,
            "rows": len(rows),
            "metric": wanted.name,
            "severity": spec["severity"],
            "value": value,
            "overall": overall,
            "gap": None,
            "short": False,
            "passed": True,
            "p": None,
            "p_corrected": None,
            "why_not_judged": reason,
        }
        if value is None:
            left.append(entry)
            continue
        entry["gap"] = overall - value if wanted.greater_is_better else value - overall
        entry["short"] = _room(spec, wanted, value, overall) < 0
        if entry["short"] and spec["correction"] == "holm":
            entry["p"] = _chance(evidence, spec, wanted, overall, rows)
        found.append(entry)
    return found, left


def _chance(
    evidence: Evidence, spec: dict[str, Any], wanted: Metric, overall: float, rows: np.ndarray[Any, Any]
) -> float | None:
    """Return how likely a slice at its threshold falls as short as this one, or None if its rows cannot tell.

    The overall figure, which varies far less, is taken as it is.
    """
    import numpy as np

    predictions = evidence.challenger.at(rows)
    assert predictions is not None
    figure = of_parts(
        spec["metric"], evidence.truth(rows), predictions, None if evidence.weights is None else evidence.weights[rows]
    )

    def room(part: np.ndarray[Any, Any]) -> float | None:
        value = figure(part)
        return None if value is None else _room(spec, wanted, value, overall)

    found = clusters_of(evidence, rows, spec.get("cluster"))
    clusters, unit = found or (np.arange(len(rows)), "rows")
    if int(clusters.max()) + 1 < significance.MIN_CLUSTERS:
        return None
    told = significance.jackknife(room, clusters, unit=unit)
    return told.p_worse if told else None


def _correct(entries: list[dict[str, Any]], spec: dict[str, Any]) -> None:
    """Decide which of the slices that fall short do so beyond chance.

    Where chance cannot be told, or no correction is wanted, the figure itself decides.
    """
    largest = 0.0
    tested = sorted((one for one in entries if one["p"] is not None), key=lambda one: float(one["p"]))
    for place, entry in enumerate(tested):
        largest = max(largest, min(1.0, (len(entries) - place) * entry["p"]))
        entry["p_corrected"] = largest
    for entry in entries:
        corrected = entry["p_corrected"]
        entry["passed"] = not entry["short"] or (corrected is not None and corrected > spec["alpha"])


def _slice_outcome(spec: dict[str, Any], entry: dict[str, Any]) -> Outcome:
    value, rows = text(entry["value"]), f"{entry['rows']:,} rows"
    beside = f"overall {text(entry['overall'])}"
    if entry["short"]:
        beside += f", must be {_threshold(spec)}"
        if entry["p_corrected"] is not None:
            beside += f"; {'within' if entry['passed'] else 'beyond'} chance (p = {text(entry['p_corrected'])})"
    return outcome(
        spec,
        entry["passed"],
        f"{entry['metric']} is {value} on {entry['by']} = {entry['slice']} ({rows}); {beside}",
        # Slices are named by values of the data, which stay out of logs and XCom.
        brief=f"{entry['metric']} is {value} on one slice by {entry['by']} ({rows}; the report says which); {beside}",
        value=entry["value"],
        threshold=_threshold(spec),
        slice=f"{entry['by']} = {entry['slice']}",
    )


def groups(evidence: Evidence, columns: list[str]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield the label and the rows of each group among the judged rows, the largest first."""
    import numpy as np
    import pandas

    judged = evidence.challenger.rows
    labels = [_labels(evidence, column) for column in columns]
    frame = pandas.DataFrame(dict(enumerate(labels)))
    groups = frame.groupby(list(frame.columns), sort=True, observed=True, dropna=False).indices
    for label, places in sorted(groups.items(), key=lambda item: -len(item[1])):
        parts = label if isinstance(label, tuple) else (label,)
        yield ", ".join(str(part) for part in parts), judged[np.sort(places)]


def _labels(evidence: Evidence, column: str) -> Any:
    """Return the slice that each judged row falls into by one column: its value, or its quartile of many numbers."""
    import pandas

    values = evidence.frame[column].iloc[evidence.challenger.rows].reset_index(drop=True)
    types = pandas.api.types
    many = values.nunique() > DISTINCT
    ordered = types.is_numeric_dtype(values) or types.is_datetime64_any_dtype(values)
    if many and ordered and not types.is_bool_dtype(values):
        cut = pandas.qcut(values, 4, duplicates="drop", precision=4)
        names = {bin: f"{_edge(bin.left)} to {_edge(bin.right)}" for bin in cut.cat.categories}
        labels = cut.astype(object).map(names).astype(object)
    else:
        labels = values.astype(object).map(str, na_action="ignore")
    labels = labels.where(values.notna(), "(missing)")
    if column in role_columns(evidence.roles, "private") and not evidence.show_values:
        codes, _ = pandas.factorize(labels, sort=True)
        labels = pandas.Series([f"value {code + 1} (private)" for code in codes])
    return labels


def _edge(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


def check_slices(evidence_columns: list[str], specs: list[dict[str, Any]]) -> None:
    """Make sure that the dataset has the columns that slices are made by.

    :raises MissingColumnError: for one that is not there, with the nearest.
    """
    for spec in specs:
        if spec["kind"] not in ("slices", "fairness"):
            continue
        for part in spec["by"] if isinstance(spec["by"], (list, tuple)) else [spec["by"]]:
            for column in [part] if isinstance(part, str) else part:
                if column not in evidence_columns:
                    near = did_you_mean(column, evidence_columns)
                    raise MissingColumnError(
                        f"the test {spec['name']!r} goes by {column!r}, which the dataset does not have{near}",
                        column=column,
                    )
