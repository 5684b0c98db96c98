"""Tests of how well a model predicts: finite predictions, metrics, and the user's own function."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.evaluation.loading import features
from airflow_mlops.core.evaluation.outcome import Outcome, bounds, outcome, within
from airflow_mlops.core.imports import load
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.training.metrics import metric
from airflow_mlops.core.vocabulary import clean

if TYPE_CHECKING:
    from airflow_mlops.core.evaluation.evidence import Evidence


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
