"""A gate's report: two objects, one small dict, and a page that needs nothing from outside."""

from __future__ import annotations

import html.parser
import json
from typing import Any

import pytest

from airflow_mlops.core import digests
from airflow_mlops.core.reports import environment, figure, publish
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.vocabulary import MAX_FAILURES, Report


def make(
    context: StepContext, details: dict[str, Any] | None = None, identity: Any = 1, **fields: Any
) -> dict[str, Any]:
    values: dict[str, Any] = {"report": "probe", "passed": True, "severity": "ok", "summary": "all well", **fields}
    return publish(
        context, Report(**values), details=details or {}, template="base.html", identity=identity, title="A <title>"
    )


def page_of(context: StepContext, result: dict[str, Any]) -> str:
    key = context.store.key_of(result["report_uri"])
    assert key
    return context.store.get_bytes(key).decode()


def test_details_and_page_stand_in_the_store_and_the_digest_is_that_of_the_details(context: StepContext) -> None:
    details = {"nan": float("nan"), "rows": [1, 2], "name": "Zürich"}
    result = make(context, details)
    stored = context.store.get_json(context.store.key_of(result["details_uri"]) or "")
    assert stored == {"nan": None, "rows": [1, 2], "name": "Zürich"}
    assert result["digest"] == digests.of_json(stored)
    assert result["digest"] in page_of(context, result)
    assert result["kind"] == "probe"


def test_a_retry_replaces_its_report_and_other_arguments_have_another(context: StepContext) -> None:
    first = make(context)
    assert make(context)["report_uri"] == first["report_uri"]
    assert len(list(context.store.keys("reports"))) == 2
    assert make(context, identity=2)["report_uri"] != first["report_uri"]


def test_only_the_worst_failures_go_on(context: StepContext) -> None:
    failures = [{"n": n} for n in range(MAX_FAILURES + 5)]
    assert make(context, failures=failures)["failures"] == failures[:MAX_FAILURES]


def test_text_from_the_data_is_escaped(context: StepContext) -> None:
    page = page_of(context, make(context, summary="<script>alert(1)</script> & \"'"))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in page
    assert "<title>A &lt;title&gt;</title>" in page


class Outside(html.parser.HTMLParser):
    """Collects what a content security policy without scripts and hosts would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "form", "base", "link"):
            self.found.append(tag)
        self.found += [
            f"{tag} {name}"
            for name, value in attrs
            if name.startswith("on") or (name in ("src", "srcset", "poster") and not (value or "").startswith("data:"))
        ]


def test_a_page_has_no_scripts_and_no_outside_resources(context: StepContext) -> None:
    from importlib.resources import files

    templates = [one for one in (files("airflow_mlops.core") / "templates").iterdir() if one.name.endswith(".html")]
    assert {"base.html"} <= {one.name for one in templates}
    for template in templates:
        outside = Outside()
        outside.feed(template.read_text(encoding="utf-8"))
        assert outside.found == [], template.name
        assert "url(" not in template.read_text(encoding="utf-8")
        environment().get_template(template.name)


def test_a_name_that_a_template_does_not_get_is_an_error_and_not_a_blank() -> None:
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        environment().from_string("{{ report.sumary }}").render(report={})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "True"),
        ("x", "x"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (12.3456, "12.35"),
        (9999.96, "10,000"),
        (-1234567.8, "-1,234,568"),
        (0.0, "0"),
        (1e-7, "1e-07"),
        (999.96, "1000"),
    ],
)
def test_figures_as_a_person_reads_them(value: Any, text: str) -> None:
    assert figure(value) == text


def test_a_step_that_runs_outside_airflow_has_a_page_too(context: StepContext) -> None:
    bare = StepContext(store=context.store)
    assert "Task</dt>" not in page_of(bare, make(bare))
    assert "flights · step · run manual__1" in page_of(context, make(context))


def test_what_goes_on_is_json(context: StepContext) -> None:
    json.dumps(make(context, metrics={"auc": float("inf")}), allow_nan=False)
