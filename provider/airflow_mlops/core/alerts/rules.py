"""What a report is an alarm about, how soon it is one, who is told, and what they can do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.vocabulary import Severity

Channel = Literal["alert", "digest"]

#: The worse, the higher.
RANK: dict[str, int] = {"ok": 0, "warning": 1, "error": 2}
#: Where the docs have the runbook, where nobody said where they are to be read.
RUNBOOK = "operations/runbook.html"
#: Names of failures that an incident carries.
MAX_NAMES = 30

#: What people read.
TITLES = {
    "validation": "Broken data",
    "broken_data": "Broken columns",
    "drift": "Feature drift",
    "prediction_drift": "Prediction drift",
    "performance": "Loss of performance",
    "estimated_performance": "Estimated loss of performance",
    "model_test": "Model test failed",
    "deployment": "Deployment failed",
    "service": "Slow or failing service",
}

ADVICE = {
    "validation": "Read the report, mend the source or what it is expected to be, and run the window again.",
    "broken_data": "A column is gone, retyped, or lost its values. Mend its source, and run the window again.",
    "drift": "Nothing yet while performance holds. Look at the columns that the report names, and at their source.",
    "prediction_drift": "Look whether features or the model's version changed; where labels come late, this is the "
    "first sign of a loss of performance.",
    "performance": "Look at the weakest slices and at the data of the window. If the loss is real, train anew, or take "
    "the last release back with airflow mlops rollback.",
    "estimated_performance": "Wait for the labels before you act: this is an estimate, and nothing retrains on it.",
    "model_test": "Read the report: the model is not fit to be released. What serves has not changed.",
    "service": "Look at the server's log and at what it needs. If a deployment began it, take the last one back by "
    "deploying the version before.",
    "deployment": "Read the report: the checks or the canary failed. What served before serves on.",
}
OTHER_ADVICE = "Read the report, and mend what it names."

#: Feature drift with nothing behind it that hurts is news, not an alarm; an estimate is no measurement.
DIGEST_ONLY = ("drift", "estimated_performance")

#: Level -> topic -> (k, n), elsewhere (1, 1): an incident opens when k of the last n windows are bad, and is resolved
#: after k good ones in a row. Drift of one window is seldom anything: the weeks of a stable reference differ too.
SENSITIVITY: dict[str, dict[str, tuple[int, int]]] = {
    "high": {},
    "normal": {"drift": (2, 3), "prediction_drift": (2, 3), "estimated_performance": (2, 3)},
    "low": {
        "performance": (2, 3),
        "service": (2, 3),
        "drift": (3, 4),
        "prediction_drift": (3, 4),
        "estimated_performance": (3, 4),
    },
}


@dataclass(frozen=True)
class Finding:
    """What one report says of one topic.

    :param names: what failed, the worst first.
    """

    topic: str
    severity: Severity
    summary: str
    names: tuple[str, ...]
    report: dict[str, Any]


def findings(report: dict[str, Any]) -> list[Finding]:
    """Return what a report says, topic by topic; a good one says that all is well.

    A drift report speaks of features, of predictions, and of columns that are broken, which are three topics: a drift
    that is an ``error``, or whose ``role`` is ``prediction`` or ``target``, is the second; an ``error`` that is no
    drift (a column that is gone, or that lost its values) the third.
    """
    kind, severity = str(report["kind"]), severity_of(report)
    summary = str(report.get("summary") or "")
    failures = [one for one in report.get("failures") or [] if isinstance(one, dict)]
    if kind == "estimate" or (kind == "performance" and report.get("estimated")):
        kind = "estimated_performance"
    if kind != "drift":
        return [Finding(kind, severity, summary, _names(failures), report)]
    parts: dict[str, list[dict[str, Any]]] = {"drift": [], "prediction_drift": [], "broken_data": []}
    if severity == "ok":
        return [Finding(topic, severity, summary, (), report) for topic in parts]
    if not failures:
        # A report of somebody else's that does not say what drifted.
        return [Finding("drift", severity, summary, (), report)]
    for one in failures:
        parts[_part(one)].append(one)
    return [Finding(topic, _worst(ones, severity), summary, _names(ones), report) for topic, ones in parts.items()]


def _part(failure: dict[str, Any]) -> str:
    kind, serious = failure.get("kind"), failure.get("severity") == "error"
    if failure.get("role") in ("prediction", "target") or (kind == "drift" and serious):
        return "prediction_drift"
    return "broken_data" if serious and kind is not None else "drift"


def _worst(failures: list[dict[str, Any]], severity: Severity) -> Severity:
    """Return the worst severity of failures; one that does not say its own has the report's."""
    found: list[Severity] = ["ok", *(one.get("severity") or severity for one in failures)]
    return max(found, key=lambda one: RANK.get(one, 0))


def severity_of(report: dict[str, Any]) -> Severity:
    """Return a report's severity; one that did not pass is never ``ok``."""
    severity = report.get("severity")
    if severity not in RANK:
        return "ok" if report.get("passed") else "error"
    return severity if severity != "ok" or report.get("passed") else "error"


def _names(failures: list[dict[str, Any]]) -> tuple[str, ...]:
    found = dict.fromkeys(name for one in failures if (name := failure_name(one)))
    return tuple(found)[:MAX_NAMES]


def failure_name(failure: dict[str, Any]) -> str:
    """Return what a failure is called, without any value of the data."""
    for key in ("name", "check", "metric"):
        if failure.get(key):
            return f"{failure[key]} of {failure['slice']}" if failure.get("slice") else str(failure[key])
    if failure.get("kind") in ("drift", "column") and failure.get("column"):
        return str(failure["column"])
    parts = [str(failure[key]) for key in ("type", "column", "kind") if failure.get(key)]
    return " ".join(parts[:2])


def channel_of(topic: str, severity: str, channels: dict[str, Channel] | None = None) -> Channel:
    """Return who is told: the owner (``alert``), or the readers of the digest."""
    if channels and topic in channels:
        return channels[topic]
    return "digest" if severity != "error" or topic in DIGEST_ONLY else "alert"


def check_channels(value: Any) -> dict[str, Channel] | None:
    """Return ``{topic: "alert" | "digest"}``, or None.

    :raises SpecError: for anything else.
    """
    if value in (None, "", {}):
        return None
    if not isinstance(value, dict) or not set(value.values()) <= {"alert", "digest"}:
        raise SpecError(f"channels is {{topic: 'alert' or 'digest'}}, got {value!r}")
    return {check_topic(topic): channel for topic, channel in value.items()}


def check_topic(topic: Any) -> str:
    """Return the name of a topic: a known one, or the kind of a report of the user's own.

    :raises SpecError: for one that is nearly a known one.
    """
    if topic not in TITLES and (hint := did_you_mean(str(topic), TITLES)):
        raise SpecError(f"there is no topic {topic!r}{hint}")
    return str(topic)


def persistence(sensitivity: Any, topic: str) -> tuple[int, int]:
    """Return ``(k, n)``: how many bad ones of the last n windows make an incident.

    :param sensitivity: ``low``, ``normal``, ``high``, or ``{topic: one of these or [k, n]}``.
    :raises SpecError: for anything else.
    """
    value = sensitivity.get(topic, "normal") if isinstance(sensitivity, dict) else sensitivity or "normal"
    if isinstance(value, (list, tuple)):
        pair = tuple(value)
        if len(pair) == 2 and all(type(one) is int for one in pair) and 1 <= pair[0] <= pair[1] <= 100:
            return pair[0], pair[1]
        raise SpecError(f"[k, n] needs two whole numbers with 1 <= k <= n <= 100, got {value!r}")
    if value not in SENSITIVITY:
        raise SpecError(f"sensitivity is low, normal, high or [k, n], got {value!r}")
    return SENSITIVITY[value].get(topic, (1, 1))


def check_sensitivity(value: Any) -> None:
    """Refuse what :func:`persistence` could not read, whatever the topic.

    :raises SpecError: naming what is wrong.
    """
    topics = [check_topic(topic) for topic in value] if isinstance(value, dict) else ["performance"]
    for topic in topics:
        persistence(value, topic)


def about_of(report: dict[str, Any], default: str) -> str:
    """Return what is watched: the report's subject by name, without its version; a digest names no thing that lasts."""
    subject = report.get("subject")
    if not isinstance(subject, str) or not subject.strip() or re.match(r"sha256:", subject):
        return default
    # The next version that does well ends the incident of the last.
    return re.sub(r":\d+$", "", subject.removeprefix("models:/")).strip()


def runbook_entry(name: str, page: str = "") -> str:
    """Return where an entry of the runbook is.

    :param page: address of the runbook's page; empty: its place in the docs.
    """
    return f"{page or RUNBOOK}#{name}"
