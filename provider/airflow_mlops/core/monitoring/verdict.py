"""The report of performance: which windows were settled, what they say, and what the one that waits may become."""

from __future__ import annotations

from typing import Any

from airflow_mlops.core.monitoring.history import SEVERITIES
from airflow_mlops.core.monitoring.labels import Labels
from airflow_mlops.core.monitoring.measured import interval
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.training.metrics import metric
from airflow_mlops.core.vocabulary import Report, Severity

#: Share of labelled rows under which a mature window is doubted.
MIN_LABELLED = 0.5


def build(
    subject: str,
    settled: list[dict[str, Any]],
    waiting: dict[str, Any] | None,
    pending: list[dict[str, str]],
    known: Labels | None,
) -> tuple[Report, dict[str, Any]]:
    """Return the report and its details; each settled window gets its ``severity`` and ``summary``."""
    for one in settled:
        _conclude(one)
    details: dict[str, Any] = {"subject": subject, "windows": settled, "waiting": waiting, "pending": pending}
    details["waiting"] = {k: v for k, v in waiting.items() if k != "limits"} if waiting else None
    details["labels"] = {"name": known.name, "target": known.target, **known.counts} if known else None
    if settled:
        newest = settled[-1]
        empty = _empty(waiting)
        failures = [failure for one in reversed(settled) for failure in _failures(one, one is not newest)]
        report = Report(
            report="performance",
            passed=newest["severity"] != "error",
            severity=max(newest["severity"], "warning" if empty else "ok", key=SEVERITIES.index),
            summary="; ".join([newest["summary"], *empty]),
            metrics={
                **newest["figures"],
                "labelled": newest["counts"]["labelled"],
                "rows": newest["counts"]["predictions"],
            },
            checks={"total": len(newest["checks"]) + len(newest["slices"]), "failed": len(_failures(newest, False))},
            failures=failures,
            window=newest["window"],
            subject=subject,
        )
        return report, details
    severity, summary = _waiting(waiting, pending)
    report = Report(
        report="performance",
        passed=True,
        severity=severity,
        summary=summary,
        metrics={name: one["value"] for name, one in (waiting or {}).get("estimate", {}).items()},
        window=waiting["window"] if waiting else None,
        subject=subject,
    )
    return report, details


def _conclude(one: dict[str, Any]) -> None:
    counts, notes = one["counts"], []
    severity: Severity = "ok"
    if not counts["labelled"]:
        one["severity"] = "warning"
        one["summary"] = (
            f"No label has come for any of the {counts['predictions']:,} predictions of the window to "
            f"{one['window']['end'][:10]}: look at the feed of labels, and at label_delay; the next run looks again"
        )
        return
    share = counts["labelled"] / counts["predictions"]
    if share < MIN_LABELLED:
        severity = "warning"
        notes.append(f"only {share:.0%} of the rows have a label: what is late may be unlike what is there")
    if counts.get("contradictions"):
        severity = "warning"
        notes.append(f"{counts['contradictions']:,} labels contradict another one of their row, and are left out")
    parts = [*one["checks"], *one["slices"]]
    # A slice alone does not make a model bad.
    sliced = [part for part in one["slices"] if part["severity"] == "error"]
    verdicts: list[Severity] = [severity, "warning" if sliced else "ok", *(part["severity"] for part in one["checks"])]
    severity = max(verdicts, key=SEVERITIES.index)
    notes += [f"{len(sliced)} of {len(one['slices'])} slices fall short"] if sliced else []
    bad = [part for part in one["checks"] if part["severity"] != "ok"]
    said = "; ".join(part["message"] for part in (bad or one["checks"][:1]))
    for part in parts:
        guess = one["estimate"].get(part["metric"]) if "slice" not in part else None
        part["estimated"] = guess
    one["severity"] = severity
    one["summary"] = "; ".join(
        [f"{said} on {counts['labelled']:,} labelled rows to {one['window']['end'][:10]}", *notes]
    )


def _failures(one: dict[str, Any], older: bool) -> list[dict[str, Any]]:
    """Return what fell short, without values of the data: slices are named by their columns."""
    found = []
    for part in [*one["checks"], *one["slices"]]:
        if part["severity"] == "ok":
            continue
        failure = {key: part.get(key) for key in ("metric", "value", "low", "high", "threshold", "severity")}
        failure["name"] = f"{part['metric']} on one slice by {part['by']}" if "slice" in part else part["metric"]
        found.append({**failure, "message": part["message"], **({"window": one["window"]} if older else {})})
        if "slice" in part:
            found[-1]["message"] = (
                f"{part['metric']} {text(part['value'])} on one slice by {part['by']}; see the report"
            )
    return found


def _empty(waiting: dict[str, Any] | None) -> list[str]:
    """Return what is to be said of a window in which nothing was predicted: silence is no good news."""
    if waiting is None or waiting.get("rows") != 0:
        return []
    return [f"the window to {waiting['window']['end'][:10]} has no predictions: look at what makes and logs them"]


def _waiting(waiting: dict[str, Any] | None, pending: list[dict[str, str]]) -> tuple[Severity, str]:
    if waiting is None:
        return "ok", "No window has newly matured" + (f"; {len(pending)} wait for labels" if pending else "")
    if empty := _empty(waiting):
        return "warning", empty[0][0].upper() + empty[0][1:]
    said = f"Labels of the window to {waiting['window']['end'][:10]} are waited for"
    if not waiting["estimate"]:
        return "ok", f"{said}; no estimate: {waiting['why']}"
    severity: Severity = "ok"
    parts = []
    for name, one in waiting["estimate"].items():
        limits, sign = waiting["limits"][name], 1 if metric(name).greater_is_better else -1
        edge = one["high"] if sign > 0 else one["low"]
        floor = None if limits.baseline is None or limits.drop is None else limits.baseline - sign * limits.drop
        if (floor is not None and sign * (edge - floor) < 0) or (limits.low is not None and edge < limits.low):
            severity = "warning"
        parts.append(f"{name} {text(one['value'])}{interval(one)}")
    return severity, f"{said}; estimated {', '.join(parts[:3])}, which is no measurement"
