"""Writing of a gate's report: details as JSON, a page as HTML, and the small dict that goes on.

The page is one HTML file without scripts or outside resources, so that it can be served under a content security
policy that allows neither, mailed, or opened from disk. Its text goes through Jinja's autoescape.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.extras import require
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.plain import clean
from airflow_mlops.core.vocabulary import MAX_FAILURES, Report

if TYPE_CHECKING:
    import jinja2

    from airflow_mlops.core.steps import StepContext

#: What a page may ask of the run; outside Airflow nothing is known of it.
NO_RUN: dict[str, Any] = {"dag_id": None, "task_id": None, "run_id": None, "map_index": -1}


@functools.cache
def environment() -> jinja2.Environment:
    """Return the Jinja environment of the report pages: autoescape on, undefined names an error."""
    jinja2 = require("jinja2", "writing a report page")
    env = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["figure"] = figure
    env.filters["moment"] = moment
    return env  # type: ignore[no-any-return]


def _template_source(name: str) -> str:
    # Read through the module's loader, so that it also works from a zip on PYTHONPATH.
    from importlib.resources import files

    return (files("airflow_mlops.core") / "templates" / name).read_text(encoding="utf-8")


def figure(value: Any) -> str:
    """Return a number as a person reads it: four significant digits, thousands apart, a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def moment(value: Any) -> str:
    """Return an instant in UTC as a person reads it: to the minute, and without a midnight; what is none as it is."""
    text = str(value)
    if text[:10].count("-") != 2 or text[10:11] not in ("", "T") or not text.endswith(("+00:00", "Z", text[:10])):
        return text
    return text[:10] if text[10:19] in ("", "T00:00:00") else text[:16].replace("T", " ")


def publish(
    context: StepContext, report: Report, *, details: dict[str, Any], template: str, identity: Any, title: str
) -> dict[str, Any]:
    """Write a report's details and page to the store and return the report's dict.

    Both objects stand under one folder of the task instance and are replaced whole, so a retry ends with one report.

    :param report: the verdict; its URIs and digest are filled in here.
    :param details: what stands behind it; written as JSON.
    :param template: name of the page's template, given ``report``, ``details``, ``run`` and ``title``.
    :param identity: what was judged with which arguments; with the key it names the report's folder.
    """
    folder = context.report_folder(identity)
    details = clean(details)
    digest = digests.of_json(details)
    report = dataclasses.replace(
        report,
        failures=report.failures[:MAX_FAILURES],
        details_uri=context.store.uri_of(f"{folder}/details.json"),
        report_uri=context.store.uri_of(f"{folder}/report.html"),
        digest=digest,
    )
    page = (
        environment()
        .get_template(template)
        .render(report=report.to_dict(), details=details, run={**NO_RUN, **context.run}, title=title)
    )
    points = {f"{folder}/details.json": "report.details_written", f"{folder}/report.html": "report.page_written"}
    written = json.dumps(details, ensure_ascii=False, indent=1, sort_keys=True)
    # Together: on a full disk the page must not stay behind its details.
    context.store.put_all(
        dict(zip(points, (written.encode(), page.encode()), strict=True)), lambda key: crash_point(points[key])
    )
    return report.to_dict()
