"""Figures of a window with intervals, and what they say against a baseline and thresholds.

A figure falls short if it is beyond its limit. That is an ``error`` if it is beyond chance as well: the interval, by a
delete-one-cluster jackknife over the group role or the days (see :mod:`airflow_mlops.core.evaluation.significance`),
does not reach back to the limit's own side: to the baseline for a drop, to the threshold for a threshold. Within chance
it is a ``warning``. Where clusters are too few for an interval the figure itself decides, and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.evaluation import significance
from airflow_mlops.core.evaluation.parts import of_parts
from airflow_mlops.core.evaluation.significance import MIN_CLUSTERS
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.training.metrics import compute_one, metric
from airflow_mlops.core.vocabulary import Severity

if TYPE_CHECKING:
    import numpy as np
    import pandas

    from airflow_mlops.core.training.predictions import Predictions

    Array = np.ndarray[Any, Any]

#: Chance of an interval that misses the truth, both sides together.
ALPHA = 0.05
#: Slices of one column that are judged, the largest first.
MAX_SLICES = 50


@dataclass(frozen=True)
class Limits:
    """What a metric is held against.

    :param baseline: its level at promotion.
    :param drop: how much worse than that it may be.
    :param low: the least that it may be.
    :param high: the most that it may be.
    """

    baseline: float | None = None
    drop: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return (self.baseline is not None and self.drop is not None) or self.low is not None or self.high is not None


def limits_of(name: str, baseline: Mapping[str, Any], max_drop: Any, thresholds: Any) -> Limits:
    """Return the limits of one metric.

    :param max_drop: a number for all metrics, or ``{metric: number}``.
    :param thresholds: ``{metric: number or {"min", "max"}}``.
    :raises SpecError: for anything else.
    """
    drop = max_drop.get(name) if isinstance(max_drop, Mapping) else max_drop
    given = (thresholds or {}).get(name)
    better = metric(name).greater_is_better
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        given = {"min" if better else "max": given}
    if given is not None and (not isinstance(given, Mapping) or {*given} - {"min", "max"}):
        raise SpecError(f"thresholds: {name!r} takes a number or {{'min', 'max'}}, got {given!r}")
    for one in (drop, *(given or {}).values(), baseline.get(name)):
        if one is not None and (isinstance(one, bool) or not isinstance(one, (int, float))):
            raise SpecError(f"the limits of {name!r} must be numbers, got {one!r}")
    if drop is not None and drop <= 0:
        raise SpecError(f"max_drop of {name!r} is how much worse it may get: above 0, got {drop!r}")
    return Limits(baseline.get(name), drop, (given or {}).get("min"), (given or {}).get("max"))


def clusters_of(frame: pandas.DataFrame, cluster: str | None, group: str | None) -> tuple[Array, str] | None:
    """Return the number of each row's cluster and what clusters are called; None: rows stand for themselves.

    :param cluster: ``day``, or a column; default: the group role's column, else the day of the time.
    :raises MissingColumnError: if there is no such column.
    """
    import pandas

    column = cluster or group or ("day" if "__time__" in frame.columns else None)
    if column is None:
        return None
    if column == "day" and "__time__" in frame.columns:
        codes, _ = pandas.factorize(frame["__time__"].dt.floor("D"), use_na_sentinel=False)
        return codes, "days"
    if column not in frame.columns:
        near = did_you_mean(column, map(str, frame.columns))
        raise MissingColumnError(f"the predictions have no column {column!r} to cluster by{near}", column=column)
    codes, _ = pandas.factorize(frame[column], use_na_sentinel=False)
    return codes, f"values of {column}"


def measure(
    name: Any, truth: Array, predictions: Predictions, clusters: tuple[Array, str] | None, weights: Array | None
) -> dict[str, Any]:
    """Return ``{metric, value, low, high, standard_error, unit, units, why}`` of one metric on some rows."""
    import numpy as np

    value, why = compute_one(name, truth, predictions, weights)
    found: dict[str, Any] = {"metric": metric(name).name, "value": value, "low": None, "high": None, "why": why}
    found |= {"standard_error": None, "unit": "rows", "units": len(truth)}
    if value is None:
        return found
    figure = of_parts(name, truth, predictions, weights)
    codes, unit = clusters or (np.arange(len(truth)), "rows")
    count = int(codes.max()) + 1
    found |= {"unit": unit, "units": count}
    if count < MIN_CLUSTERS:
        return {**found, "why": f"{count} {unit} are too few for an interval ({MIN_CLUSTERS} are needed)"}
    told = significance.jackknife(figure, codes, unit=unit, alpha=ALPHA / 2)
    if told is None:
        return {**found, "why": f"without one of the {unit} it has no value"}
    return {**found, "low": told.low, "high": told.high, "standard_error": told.error}


def judge(found: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Return a measured figure with ``severity``, ``baseline``, ``drop``, ``threshold`` and a ``message``."""
    value, name = found["value"], found["metric"]
    sign = 1 if metric(name).greater_is_better else -1
    drop = None if value is None or limits.baseline is None else sign * (limits.baseline - value)
    severity: Severity = "ok"
    said = []
    if value is not None:
        best = found["high"] if sign > 0 else found["low"]
        if drop is not None and limits.drop is not None and drop > limits.drop:
            chance = best is not None and sign * (best - limits.baseline) >= 0
            severity = "warning" if chance else "error"
            said.append(f"{text(drop)} worse than the baseline {text(limits.baseline)} (at most {limits.drop:g})")
        for limit, way, bound in ((limits.low, 1, found["high"]), (limits.high, -1, found["low"])):
            if limit is not None and way * (value - limit) < 0:
                chance = bound is not None and way * (bound - limit) >= 0
                severity = "error" if severity == "error" or not chance else "warning"
                said.append(f"{'below' if way > 0 else 'above'} {limit:g}")
    elif limits.any:
        severity = "warning"
        said.append(f"not measured: {found['why']}")
    chance_said = "; within chance" if severity == "warning" and value is not None else ""
    message = f"{name} {text(value)}{interval(found)}" + (f": {', '.join(said)}{chance_said}" if said else "")
    parts = [
        f"baseline {text(limits.baseline)} − {limits.drop:g}" if limits.drop and limits.baseline is not None else ""
    ]
    parts += [
        f"≥ {limits.low:g}" if limits.low is not None else "",
        f"≤ {limits.high:g}" if limits.high is not None else "",
    ]
    return {
        **found,
        "severity": severity,
        "baseline": limits.baseline,
        "drop": drop,
        "threshold": ", ".join(filter(None, parts)) or None,
        "message": message,
    }


def interval(found: Mapping[str, Any]) -> str:
    """Return `` (0.70 to 0.74)``, or nothing."""
    return "" if found.get("low") is None else f" ({text(found['low'])} to {text(found['high'])})"


def slices(
    frame: pandas.DataFrame,
    by: list[str],
    name: Any,
    truth: Array,
    predictions: Predictions,
    weights: Array | None,
    limits: Limits,
    *,
    min_rows: int,
    cluster: str | None,
    group: str | None,
) -> list[dict[str, Any]]:
    """Return a metric on every slice by some columns, each judged as the whole is, after Holm's correction (1979).

    A slice with fewer than ``min_rows`` labelled rows is listed and not judged.
    """
    import numpy as np

    for column in by:
        if column not in frame.columns:
            near = did_you_mean(column, map(str, frame.columns))
            raise MissingColumnError(
                f"slices: the predictions have no column {column!r}{near}; BatchPredictOperator(columns=[...]) puts it "
                "into the log",
                column=column,
            )
    labels = frame[by].astype(str).agg(", ".join, axis=1) if len(by) > 1 else frame[by[0]].astype(str)
    found = []
    for value, count in list(labels.value_counts().items())[:MAX_SLICES]:
        rows = np.flatnonzero((labels == value).to_numpy())
        entry: dict[str, Any] = {"by": " × ".join(by), "slice": str(value), "rows": int(count)}
        if count < min_rows:
            found.append(
                {**entry, "metric": metric(name).name, "value": None, "severity": "ok", "low": None, "high": None}
            )
            found[-1]["why"] = f"fewer than {min_rows:,} rows"
            continue
        part = frame.iloc[rows]
        weight = None if weights is None else weights[rows]
        one = measure(name, truth[rows], predictions.take(rows), clusters_of(part, cluster, group), weight)
        found.append({**entry, **judge(one, limits)})
    _holm([one for one in found if one["severity"] == "error" and one["standard_error"]], len(found), limits)
    return found


def _holm(short: list[dict[str, Any]], tests: int, limits: Limits) -> None:
    """Make warnings of the slices whose shortfall is within chance once it is known how many were looked at."""
    from scipy import stats

    for one in short:
        sign = 1 if metric(one["metric"]).greater_is_better else -1
        to = limits.baseline if limits.baseline is not None and limits.drop is not None else limits.low or limits.high
        degrees = max(min(one["units"], significance.MAX_GROUPS) - 1, 1)
        one["p"] = float(stats.t.cdf(sign * (one["value"] - to) / one["standard_error"], degrees))
    largest = 0.0
    for place, one in enumerate(sorted(short, key=lambda entry: float(entry["p"]))):
        largest = max(largest, min(1.0, (tests - place) * one["p"]))
        one["p_corrected"] = largest
        if largest > ALPHA:
            one["severity"] = "warning"
            one["message"] += f"; within chance among {tests} slices"
