"""Figures as metrics of Airflow's own, for the StatsD, Datadog or OpenTelemetry that its metrics go to.

They leave from the task, whatever the runtime its step ran in. Where Airflow has no metrics back end they go nowhere.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from airflow_mlops.core.monitoring.history import SEVERITIES, split_subject

log = logging.getLogger("airflow_mlops.task")

#: What every name begins with, after the prefix that Airflow's configuration adds.
PREFIX = "mlops"


def emit(
    subject: str,
    series: str,
    figures: Mapping[str, Any],
    *,
    version: str | int | None = None,
    severity: str | None = None,
) -> None:
    """Send the figures of one window as gauges, and its verdict as a gauge and a counter.

    ``mlops.<subject>.<series>.<figure>``; ``...severity`` (0 ok, 1 warning, 2 error); ``...windows.<severity>``, which
    counts the windows that were judged so. Tags, for back ends that have them: ``subject``, ``series``, ``version``. A
    figure without a value is not sent. Metrics that cannot be sent never fail a task.
    """
    from airflow.providers.common.compat.sdk import Stats

    name, own = split_subject(subject)
    version = version if version is not None else own
    tags = {"subject": name, "series": series, **({"version": str(version)} if version is not None else {})}
    base = f"{PREFIX}.{_part(name)}.{_part(series)}"
    try:
        for figure, value in figures.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                Stats.gauge(f"{base}.{_part(figure)}", value, tags=tags)
        if severity in SEVERITIES:
            Stats.gauge(f"{base}.severity", SEVERITIES.index(severity), tags=tags)
            Stats.incr(f"{base}.windows.{severity}", tags=tags)
    except Exception as error:
        log.warning("metrics of %s were not sent: %s: %s", name, type(error).__name__, error)


def emit_report(report: Mapping[str, Any], subject: str | None) -> None:
    """Send what a report of a monitor says, as its ``kind`` is called; a report that names no subject sends nothing."""
    if subject:
        emit(subject, str(report["kind"]), report.get("metrics") or {}, severity=report.get("severity"))


def _part(text: str) -> str:
    """Return a text as one part of a metric's name: a dot would part it."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)
