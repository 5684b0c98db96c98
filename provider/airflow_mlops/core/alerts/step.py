"""The ``alert`` step: reports in, what became of the incidents out. Telling is another matter: see :mod:`.delivery`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.alerts import rules
from airflow_mlops.core.alerts.incidents import Stream, current, place_of, settle
from airflow_mlops.core.alerts.message import subject_of
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.vocabulary import SCHEMA, Window, parse_instant, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext


def alert(
    context: StepContext,
    *,
    reports: Any,
    subject: str | None = None,
    sensitivity: Any = "normal",
    channels: dict[str, Any] | None = None,
    owner: str | None = None,
    moment: str | None = None,
) -> dict[str, Any]:
    """Record what the reports say of their windows, and open, update or resolve incidents.

    :param reports: reports of any kind, nested as they come; None and what is empty are left out.
    :param subject: what is watched, such as ``churn``; default: each report's own subject where that is a name, else
        the task.
    :param sensitivity: see :func:`.rules.persistence`.
    :param channels: ``{topic: "alert" | "digest"}`` where it is not as usual.
    :param owner: who is told; kept with the events.
    :param moment: where reports without a window stand in time; default: now.
    :return: ``{"kind": "alert", "summary", "incidents": [what was opened, updated or resolved now], "open": [what is
        open], "streams": [[about, topic], ...]}``.
    :raises SpecError: for what is no report, and for a sensitivity or channel that there is not.
    """
    rules.check_sensitivity(sensitivity)
    checked = rules.check_channels(channels)
    moment = parse_instant(moment).isoformat() if moment else utc_now()
    run = context.run
    task = "/".join(str(run.get(key) or "-") for key in ("dag_id", "task_id"))
    verdicts = _by_window(list(_listed(reports)), subject or None, task, moment, str(run.get("run_id") or ""))
    for (about, topic, place), verdict in verdicts.items():
        Stream(context.store, about, topic).observe(place, verdict)
    crash_point("alert.observed")
    facts = {"owner": owner, "run": run}
    touched = list(dict.fromkeys((about, topic) for about, topic, _ in verdicts))
    changed, still = [], []
    for about, topic in touched:
        stream = Stream(context.store, about, topic)
        rule = rules.persistence(sensitivity, topic)
        event = settle(context, stream, rule=rule, channels=checked, facts=facts)
        if event:
            changed.append(_short(event))
        if incident := current(stream.events()):
            latest = incident[-1]
            kept = {key: latest[key] for key in ("number", "worst", "since")}
            still.append({"about": about, "topic": topic, **kept})
    return {
        "schema": SCHEMA,
        "kind": "alert",
        "summary": _summary(changed, still, len(verdicts)),
        "incidents": changed,
        "open": still,
        "streams": [list(pair) for pair in touched],
    }


def _listed(reports: Any) -> Iterator[dict[str, Any]]:
    if isinstance(reports, dict):
        if "kind" not in reports or not ("passed" in reports or reports.get("severity") in rules.RANK):
            raise SpecError(
                "reports are those of gates and monitors, such as [validate.output, drift.output]; this dict has no "
                f"'kind' or no 'passed': {sorted(reports)[:10]}"
            )
        yield reports
    elif isinstance(reports, (str, bytes)) and reports:
        raise SpecError(
            "reports are dicts, such as [validate.output]; got text. A template needs render_template_as_native_obj"
        )
    elif reports is not None and not isinstance(reports, str):
        try:
            found = list(reports)
        except TypeError:
            raise SpecError(f"reports are dicts, got a {type(reports).__name__}") from None
        for one in found:
            yield from _listed(one)


def _by_window(
    reports: list[dict[str, Any]], subject: str | None, task: str, moment: str, run_id: str
) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return one verdict for each topic and window: of several reports, the worst."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for report in reports:
        window = Window.of(report.get("window"))
        span = {"start": window.start, "end": window.end} if window else None
        about = subject or rules.about_of(report, task)
        for one in rules.findings(report):
            place = (about, one.topic, place_of(span, moment, run_id))
            verdict = {
                "severity": one.severity,
                "summary": one.summary,
                "names": list(one.names),
                "window": span,
                "moment": moment,
                "reports": [{key: report.get(key) for key in ("kind", "report_uri", "details_uri", "digest")}],
            }
            found[place] = _worst(found[place], verdict) if place in found else verdict
    return found


def _worst(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    worse, better = (other, one) if rules.RANK[other["severity"]] > rules.RANK[one["severity"]] else (one, other)
    bad = [part for part in (worse, better) if part["severity"] != "ok"]
    return {
        **worse,
        "names": list(dict.fromkeys(name for part in bad for name in part["names"])),
        "reports": worse["reports"] + better["reports"],
    }


def _short(event: dict[str, Any]) -> dict[str, Any]:
    kept = ("about", "topic", "number", "seq", "event", "severity", "worst", "channel", "summary", "since", "window",
            "bad_windows")  # fmt: skip
    return {**{key: event[key] for key in kept}, "names": event["names"][:5]}


def _summary(changed: list[dict[str, Any]], still: list[dict[str, Any]], count: int) -> str:
    if not count:
        return "There was no report to judge."
    if changed:
        return "; ".join(subject_of(event) for event in changed) + "."
    if still:
        return f"{len(still)} incident{'s' * (len(still) != 1)} open, nothing new."
    return "All is well."
