"""Tests of how well a model predicts: finite predictions, metrics, slices, and the user's own function."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import MissingColumnError, MlopsError, SpecError, did_you_mean
from airflow_mlops.core.evaluation.loading import features
from airflow_mlops.core.evaluation.outcome import Outcome, bounds, outcome, within
from airflow_mlops.core.imports import load
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.training.metrics import Metric, metric
from airflow_mlops.core.vocabulary import clean, role_columns

if TYPE_CHECKING:
    import numpy as np

    from airflow_mlops.core.evaluation.evidence import Evidence

#: Numeric columns with more distinct values than this are cut into quartiles.
DISTINCT = 10
#: Slices of one column that are judged, the largest first.
MAX_SLICES = 200


def sanity_test(evidence: Evidence) -> list[Outcome]:
    """Test that every row gets a prediction, and each is a finite number or a class; always on."""
    judged = evidence.challenger
    spec = {"name": "predictions are finite", "kind": "sanity", "severity": "error"}
    if judged.predictions is None:
        return [outcome(spec, False, f"The model cannot predict the dataset: {judged.problem}")]
    bad, rows = judged.bad_predictions, len(judged.rows)
    if bad:
        return [outcome(spec, False, f"{bad:,} of {rows:,} predictions are NaN, infinite or null", value=bad)]
    return [outcome(spec, True, f"All {rows:,} predictions are finite", value=0)]


def metric_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that a metric keeps to its thresholds on the rows that the model was not trained on."""
    name, threshold = metric(spec["metric"]).name, bounds(spec)
    value, reason = evidence.figure(evidence.challenger, spec["metric"])
    rows = len(evidence.challenger.rows)
    if value is None:
        message = f"{name} cannot be measured: {reason}"
        return [outcome(spec, False, message, threshold=threshold)]
    if rows < spec["min_rows"]:
        message = (
            f"{rows:,} rows that the model was not trained on are too few for {name} (min_rows is {spec['min_rows']:,})"
        )
        return [outcome(spec, False, message, value=value, threshold=threshold)]
    passed = within(spec, value)
    message = f"{name} is {text(value)}" + ("" if passed else f", must be {threshold}")
    return [outcome(spec, passed, message, value=value, threshold=threshold)]


def slices_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that a metric keeps to its thresholds, or near the overall figure, in every slice that is large enough."""
    by = spec["by"] if isinstance(spec["by"], (list, tuple)) else [spec["by"]]
    wanted = metric(spec["metric"])
    overall, reason = evidence.figure(evidence.challenger, spec["metric"])
    if overall is None:
        return [outcome(spec, False, f"{wanted.name} cannot be measured: {reason}", threshold=_threshold(spec))]
    outcomes: list[Outcome] = []
    for columns in by:
        outcomes += _by_columns(evidence, spec, wanted, overall, [columns] if isinstance(columns, str) else columns)
    return outcomes


def _threshold(spec: dict[str, Any]) -> str | None:
    parts = [bounds(spec)] if bounds(spec) else []
    if "max_gap" in spec:
        parts.append(f"at most {spec['max_gap']:g} worse than overall")
    return " and ".join(filter(None, parts)) or None


def _by_columns(
    evidence: Evidence, spec: dict[str, Any], wanted: Metric, overall: float, columns: list[str]
) -> list[Outcome]:
    name = " × ".join(columns)
    found: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []
    for number, (label, rows) in enumerate(_groups(evidence, columns), 1):
        entry = {"test": spec["name"], "by": name, "slice": label, "rows": len(rows), "metric": wanted.name}
        value: float | None = None
        reason: str | None = f"fewer than {spec['min_rows']:,} rows"
        if number > MAX_SLICES:
            reason = f"beyond the {MAX_SLICES} largest"
        elif len(rows) >= spec["min_rows"]:
            value, reason = evidence.figure(evidence.challenger, spec["metric"], rows)
        gap = None if value is None else (overall - value if wanted.greater_is_better else value - overall)
        passed = value is None or (within(spec, value) and (gap or 0.0) <= spec.get("max_gap", float("inf")))
        entry |= {
            "severity": spec["severity"],
            "value": value,
            "overall": overall,
            "gap": gap,
            "passed": passed,
            "why_not_judged": reason,
        }
        (left if value is None else found).append(entry)
    evidence.slices += found + left
    if not found:
        message = (
            f"No slice by {name} could be judged on {wanted.name}: {left[0]['why_not_judged']}" if left else "no rows"
        )
        return [outcome(spec, False, message, threshold=_threshold(spec))]
    return [_slice_outcome(spec, entry) for entry in found]


def _slice_outcome(spec: dict[str, Any], entry: dict[str, Any]) -> Outcome:
    value, rows = text(entry["value"]), f"{entry['rows']:,} rows"
    beside = f"overall {text(entry['overall'])}" + ("" if entry["passed"] else f", must be {_threshold(spec)}")
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


def _groups(evidence: Evidence, columns: list[str]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
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
        if spec["kind"] != "slices":
            continue
        for part in spec["by"] if isinstance(spec["by"], (list, tuple)) else [spec["by"]]:
            for column in [part] if isinstance(part, str) else part:
                if column not in evidence_columns:
                    near = did_you_mean(column, evidence_columns)
                    raise MissingColumnError(
                        f"the test {spec['name']!r} slices by {column!r}, which the dataset does not have{near}",
                        column=column,
                    )


def custom_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Run the user's own ``f(model, X, y)``.

    It returns a bool, a dict of metrics, one test dict with ``passed``, or a list of them, and may name
    ``predictions``, ``probabilities`` or ``sample_weight`` in its signature to be given them.
    """
    function = load(spec["function"], f"the function of the test {spec['name']!r}")
    judged = evidence.challenger
    if judged.predictions is None:
        return [outcome(spec, False, f"Not run: the model cannot predict the dataset: {judged.problem}")]
    rows = evidence.frame.iloc[judged.rows].reset_index(drop=True)
    offered = {
        "predictions": judged.predictions.labels,
        "probabilities": judged.predictions.probabilities,
        "sample_weight": None if evidence.weights is None else evidence.weights[judged.rows],
    }
    asked = inspect.signature(function).parameters
    inputs = features(judged.copy, rows, evidence.not_features)
    try:
        with judged.copy.code():
            found = function(
                judged.model, inputs, rows[evidence.target], **{k: v for k, v in offered.items() if k in asked}
            )
    except MlopsError:
        raise
    except Exception as error:
        raise SpecError(
            f"the test {spec['name']!r} raised {type(error).__name__}; it is called with (model, X, y)"
        ) from error
    return _read_custom(evidence, spec, clean(found))


def _read_custom(evidence: Evidence, spec: dict[str, Any], found: Any) -> list[Outcome]:
    if isinstance(found, bool):
        return [outcome(spec, found, "It holds" if found else "It does not hold")]
    if isinstance(found, list) and found:
        return [one for item in found for one in _read_custom(evidence, spec, item)]
    if isinstance(found, dict) and isinstance(found.get("passed"), bool):
        name = f"{spec['name']}: {found['name']}" if found.get("name") else spec["name"]
        severity = found.get("severity", spec["severity"])
        if severity not in ("error", "warning"):
            raise SpecError(f"the test {spec['name']!r} returned the severity {severity!r}; use 'error' or 'warning'")
        keys = ("value", "threshold", "interval", "slice")
        more = {key: found[key] for key in keys if found.get(key) is not None}
        message = str(found.get("message") or ("It holds" if found["passed"] else "It does not hold"))
        return [outcome({**spec, "name": name, "severity": severity}, found["passed"], message, **more)]
    if isinstance(found, dict) and found and all(_is_number(value) or value is None for value in found.values()):
        evidence.extra_metrics |= found
        missing = [name for name, value in found.items() if value is None]
        message = f"{', '.join(missing)} is NaN or infinite" if missing else f"Measured {', '.join(found)}"
        return [outcome(spec, not missing, message)]
    raise SpecError(
        f"the test {spec['name']!r} must return a bool, {{metric: number}}, a dict with a bool 'passed', or a list of "
        f"such dicts; it returned {type(found).__name__}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
