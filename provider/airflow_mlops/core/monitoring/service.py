"""The step ``monitor_service``: how many requests a service answered in a window, how many it failed, how fast.

Counters only say what was since the beginning, so each run reads them once, at its window's end, and the window is the
difference to the reading before (see :mod:`.readings`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import CannotReachError, SpecError, did_you_mean
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.monitoring import history
from airflow_mlops.core.monitoring.readings import Readings, between, quantile, slower
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.reports import publish
from airflow_mlops.core.serving.places import Place
from airflow_mlops.core.vocabulary import Report, Severity, Window, parse_instant

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Figures, and which way they are bad: 1 if more is worse.
FIGURES = {
    "error_share": 1,
    "latency_p50_ms": 1,
    "latency_p95_ms": 1,
    "latency_p99_ms": 1,
    "throughput": -1,
    "requests": -1,
}
QUANTILES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
#: Chance that a share which is within its limit is called an error.
ALPHA = 0.01
#: How often a service is asked before it counts as not answering, and seconds between.
ATTEMPTS, PAUSE_SECONDS = 3, 1.0


def monitor_service(
    context: StepContext,
    *,
    server: str,
    place: Mapping[str, Any] | None = None,
    counted: list[dict[str, Any]] | None = None,
    missing: list[dict[str, str]] | None = None,
    thresholds: dict[str, Any] | None = None,
    subject: str | None = None,
    window: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Read the counters at a window's end, and return the report on what was since the reading before.

    :param server: a server's name, or any name for what somebody else serves.
    :param place: where the server runs; see :class:`airflow_mlops.core.serving.places.Place`.
    :param counted: what was read of servers that somebody else started, as
        :func:`airflow_mlops.core.serving.counters.of_texts` gives it; then ``place`` is not needed.
    :param missing: ``[{"name", "why"}]`` of those that could not be read.
    :param thresholds: ``{figure: number or {"min", "max"}}``; see :data:`FIGURES`.
    :param subject: what the history is of; default: the server's name.
    :param window: the run's period; default: since the last reading.
    :return: a report of kind ``service``, with ``figures`` by version in ``servers``.
    :raises SpecError: for a mistake in the arguments.
    """
    limits = check_thresholds(thresholds)
    readings, span = Readings(context.store, server), Window.of(window)
    asked = {"start": span.start, "end": span.end} if span else None
    measured = readings.measured(asked) if asked else None
    why = ""
    if measured is None:
        try:
            asked, measured, why = _measure(
                context, readings, asked, lambda: _read(context, server, place, counted, missing)
            )
        except CannotReachError as error:
            return _unreachable(context, server, subject, asked, error)
    found = _found(server, subject, asked, measured, why, limits)
    result = _publish(context, found)
    if measured is not None and asked is not None:
        _record(context, found, result)
        crash_point("service.recorded")
    return {**result, "servers": found["servers"], "version": found["version"], "since": found["since"]}


def check_thresholds(thresholds: Any) -> dict[str, dict[str, float]]:
    """Return ``{figure: {"min" or "max": number}}``.

    :raises SpecError: naming what cannot be.
    """
    if thresholds is not None and not isinstance(thresholds, Mapping):
        raise SpecError(f"thresholds is like {{'latency_p95_ms': 200, 'error_share': 0.01}}, got {thresholds!r}")
    found = {}
    for name, given in (thresholds or {}).items():
        if name not in FIGURES:
            near = did_you_mean(name, FIGURES) or "."
            raise SpecError(f"a service has no figure {name!r}{near} It has {', '.join(FIGURES)}")
        if isinstance(given, (int, float)) and not isinstance(given, bool):
            given = {"max" if FIGURES[name] > 0 else "min": given}
        numbers = isinstance(given, Mapping) and all(
            isinstance(one, (int, float)) and not isinstance(one, bool) for one in given.values()
        )
        if not numbers or not given or {*given} - {"min", "max"}:
            raise SpecError(f"thresholds: {name!r} takes a number or {{'min', 'max'}}, got {given!r}")
        found[str(name)] = dict(given)
    return found


def _read(context: StepContext, server: str, place: Any, counted: Any, missing: Any) -> dict[str, Any]:
    if counted is not None:
        if not counted:
            why = "; ".join(one["why"] for one in missing or []) or "there is nothing to read"
            raise CannotReachError(why)
        return {"sources": counted, "missing": missing or []}
    from airflow_mlops.core.serving import counters

    for left in reversed(range(ATTEMPTS)):
        try:
            return counters.of_server(context.store, server, Place.of(place))
        except CannotReachError:
            if not left:
                raise
            time.sleep(PAUSE_SECONDS)
    raise AssertionError


def _measure(
    context: StepContext, readings: Readings, asked: dict[str, str] | None, collect: Any
) -> tuple[dict[str, str] | None, dict[str, Any] | None, str]:
    """Return the window, what was counted in it, and why nothing was."""
    after = readings.at(asked, collect, context.key) if asked else readings.now(collect, context.key)
    if after is None:
        begun = readings.before(str((asked or {})["end"])) is not None
        late = "nobody read the counters at its end" if begun else "it ended before anybody read the counters"
        return asked, None, f"{late}; the next window that is read holds what is since the reading before"
    before = readings.before(asked["start"]) if asked else readings.previous(after["boundary"])
    if before is None:
        return asked, None, "the counters were read for the first time; the next window has figures"
    asked = asked or {"start": before["boundary"], "end": after["boundary"]}
    return asked, readings.keep(asked, between(before, after)), ""


def figures_of(counted: Mapping[str, Any], seconds: float) -> dict[str, float | None]:
    """Return the figures of what was counted in some seconds."""
    requests, errors = counted["requests"], counted["errors"]
    found: dict[str, float | None] = {
        "requests": requests,
        "error_share": errors / requests if requests and errors is not None else None,
        "throughput": requests / seconds if seconds > 0 else None,
    }
    for name, share in QUANTILES.items():
        value = quantile(counted["buckets"], share)
        found[name] = None if value is None else 1000 * value
    return found


def judge(name: str, counted: Mapping[str, Any], value: float | None, limit: Mapping[str, float]) -> dict[str, Any]:
    """Return ``{"metric", "value", "threshold", "severity", "message"}`` of one figure.

    A share of requests beyond its limit is an error if it is so beyond chance (a one-sided binomial test at
    :data:`ALPHA`; of a latency quantile, the share of requests that surely took longer), else a warning.
    """
    told = ", ".join(f"{'≥' if way == 'min' else '≤'} {one:g}" for way, one in sorted(limit.items()))
    severity: Severity = "ok"
    high, low = limit.get("max"), limit.get("min")
    if value is not None and high is not None and value > high:
        requests, bad, share = counted["requests"], counted["errors"] or 0, high
        if name in QUANTILES:
            requests, share = sum(one[2] for one in counted["buckets"]), 1 - QUANTILES[name]
            bad = slower(counted["buckets"], high / 1000)
        judged_by_share = name in QUANTILES or name == "error_share"
        severity = "error" if not judged_by_share or tail(bad, requests, share) < ALPHA else "warning"
    if value is not None and low is not None and value < low:
        severity = "error"
    unknown = value is None and (name not in ("error_share", *QUANTILES) or bool(counted["requests"]))
    if unknown:
        severity = "warning"
    chance = "; within chance" if severity == "warning" and not unknown else ""
    shown = "not measured" if value is None else text(value)
    message = f"{name} {shown}" + (f" ({told}{chance})" if severity != "ok" else "")
    return {"metric": name, "value": value, "threshold": told, "severity": severity, "message": message}


def tail(bad: int, total: int, share: float) -> float:
    """Return the chance of at least so many bad ones of a total, each bad with the chance ``share``."""
    if bad <= 0 or share >= 1:
        return 1.0
    if share <= 0 or bad > total:
        return 0.0
    if bad <= total * share:
        return 1.0  # not the tail, and nobody asks how likely
    log = math.lgamma(total + 1) - math.lgamma(bad + 1) - math.lgamma(total - bad + 1)
    term = math.exp(log + bad * math.log(share) + (total - bad) * math.log1p(-share))
    found = 0.0
    for n in range(bad, total + 1):
        found += term
        term *= (total - n) / (n + 1) * share / (1 - share)
        if term <= found * 1e-12:
            break
    return found


def _found(
    server: str, subject: Any, window: Any, measured: dict[str, Any] | None, why: str, limits: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all that a report says."""
    found: dict[str, Any] = {"server": server, "window": window, "why": why, "checks": [], "servers": [], "figures": {}}
    found |= {"version": None, "since": None, "measured": measured, "subject": str(subject or server)}
    if measured is None:
        late = why.startswith("nobody")
        return {**found, "severity": "warning" if late else "ok", "summary": f"{server}: {why[0].upper()}{why[1:]}."}
    main: dict[str, Any] = max(measured["servers"], key=lambda one: one["requests"], default={})
    found["version"], found["since"] = main.get("version"), measured["since"]
    found["figures"] = figures_of(measured["all"], measured["seconds"])
    found["servers"] = [
        {
            **{key: one[key] for key in ("name", "version", "deployment")},
            "figures": figures_of(one, measured["seconds"]),
        }
        for one in measured["servers"]
    ]
    found["checks"] = [judge(name, measured["all"], found["figures"][name], limit) for name, limit in limits.items()]
    found["severity"] = max((one["severity"] for one in found["checks"]), key=history.SEVERITIES.index, default="ok")
    found["notes"] = _notes(measured, window)
    found["summary"] = _summary(found)
    return found


def _notes(measured: dict[str, Any], window: dict[str, str]) -> list[str]:
    notes = []
    length = (parse_instant(window["end"]) - parse_instant(window["start"])).total_seconds()
    if parse_instant(measured["from_boundary"]) < parse_instant(window["start"]):
        missed = "a reading before it was missed"
        notes.append(f"it holds {measured['seconds'] / 3600:.3g} h instead of {length / 3600:.3g}, as {missed}")
    if measured["restarted"]:
        notes.append(f"{', '.join(measured['restarted'])} began anew, so there were at least so many requests")
    if measured["unseen"]:
        notes.append(f"{', '.join(measured['unseen'])} could not be read")
    if measured["gone"]:
        lost = "its latencies after the reading before are not known"
        notes.append(f"{', '.join(measured['gone'])} has ended since: {lost}")
    return notes


def _summary(found: dict[str, Any]) -> str:
    figures = found["figures"]
    short = [one["message"] for one in found["checks"] if one["severity"] != "ok"]
    said = f"{text(figures['requests'])} requests, {text(figures['throughput'])} a second"
    if figures["error_share"] is not None:
        said += f", {figures['error_share']:.2%} of them failed"
    if figures["latency_p95_ms"] is not None:
        said += f", p95 {text(figures['latency_p95_ms'])} ms"
    parts = [f"{found['server']}: {', '.join(short)}" if short else f"{found['server']} holds", said, *found["notes"]]
    return "; ".join(parts) + "."


def _unreachable(
    context: StepContext, server: str, subject: str | None, window: dict[str, str] | None, error: CannotReachError
) -> dict[str, Any]:
    """Return the report of a service that does not answer, which is what a monitor is there to find."""
    found: dict[str, Any] = {"server": server, "window": window, "subject": str(subject or server), "severity": "error"}
    found |= {"figures": {}, "servers": [], "version": None, "since": None, "measured": None, "why": error.message}
    found["checks"] = [
        {"metric": "reachable", "value": 0, "threshold": "1", "severity": "error", "message": error.message}
    ]
    found["summary"] = f"{server} cannot be read: {error.message}"
    result = _publish(context, found)
    if window is not None:
        _record(context, found, result)
    return {**result, "servers": [], "version": None, "since": None}


def _publish(context: StepContext, found: dict[str, Any]) -> dict[str, Any]:
    failures = [{"metric": one["metric"], **one} for one in found["checks"] if one["severity"] != "ok"]
    report = Report(
        report="service",
        passed=found["severity"] != "error",
        severity=found["severity"],
        summary=found["summary"],
        metrics=found["figures"],
        checks={"total": len(found["checks"]), "failed": len(failures)},
        failures=failures,
        window=found["window"],
        subject=found["subject"],
    )
    return publish(
        context,
        report,
        details={"subject": found["subject"], **found},
        template="service.html",
        identity=["service", found["server"], found["window"]],
        title=f"Service of {found['server']}",
    )


def _record(context: StepContext, found: dict[str, Any], report: dict[str, Any]) -> None:
    """Put the window on record: one point of the service, and one of each version that served."""
    measured = found["measured"] or {}
    facts = {key: measured.get(key) for key in ("since", "until", "seconds", "restarted", "unseen", "gone")}
    common: dict[str, Any] = {"report_uri": report["report_uri"], "run": context.run}
    subject, window, store = found["subject"], found["window"], context.store
    for one in found["servers"]:
        if one["version"]:
            known = {"deployment": one["deployment"], **facts}
            of = {"version": one["version"], "facts": known, **common}
            history.record(store, subject, window, one["figures"], "server", **of)
    told = {"server": found["server"], **facts}
    verdict = {"severity": found["severity"], "summary": found["summary"]}
    history.record(
        store, subject, window, found["figures"], "service", version=found["version"], facts=told, **verdict, **common
    )
