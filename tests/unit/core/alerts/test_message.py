"""What people read: what, how bad, since when, what to do, links; and nothing that a message could break out of."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from airflow_mlops.core.alerts.message import MOST_NAMES, compose, compose_digest

EVENT: dict[str, Any] = {
    "kind": "incident", "event": "opened", "about": "churn", "topic": "performance", "number": 3, "seq": 7,
    "severity": "error", "worst": "error", "channel": "alert", "summary": "AUC fell from 0.81 to 0.74.",
    "since": "2026-03-01T00:00:00+00:00", "bad_windows": 1, "names": ["roc_auc", "roc_auc of region=north"],
    "window": {"start": "2026-03-01T00:00:00+00:00", "end": "2026-03-08T00:00:00+00:00"}, "owner": "growth",
    "at": "2026-03-09T06:00:00+00:00",
}  # fmt: skip
LINKS = {"Report": "https://airflow/mlops/reports/x", "Log": "https://airflow/log"}


def test_an_incident_says_all_that_a_person_needs() -> None:
    assert compose(EVENT, LINKS).text.splitlines() == [
        "[error] Loss of performance: churn",
        "What: AUC fell from 0.81 to 0.74.",
        "How bad: error; roc_auc, roc_auc of region=north",
        "Since: 2026-03-01, 1 window",
        "Window: 2026-03-01 to 2026-03-08",
        "Owner: growth",
        "What to do: Look at the weakest slices and at the data of the window. If the loss is real, train anew, or take"
        " the last release back with airflow mlops rollback.",
        "Runbook: operations/runbook.html#performance",
        "Incident: churn/performance/3",
        "Report: https://airflow/mlops/reports/x",
        "Log: https://airflow/log",
    ]


def test_its_end_says_how_long_it_lasted() -> None:
    over = {**EVENT, "event": "resolved", "seq": 8, "bad_windows": 4, "severity": "ok"}
    over["window"] = {"start": "2026-04-05T06:00:00+00:00", "end": "2026-04-12T06:00:00+00:00"}
    text = compose(over).text
    assert text.startswith("[resolved] Loss of performance: churn")
    assert "Since: 2026-03-01, 4 windows, until 2026-04-05 06:00" in text
    assert "What to do: Nothing" in text
    assert "Runbook" not in text


def test_the_json_has_stable_ids() -> None:
    data = compose(EVENT, LINKS).data
    assert (data["id"], data["incident"]) == ("churn/performance/3/7", "churn/performance/3")
    assert (data["kind"], data["event"], data["severity"], data["links"]) == ("alert", "opened", "error", LINKS)


def test_it_leads_to_the_runbook_that_people_read() -> None:
    page = "https://docs/operations/runbook.html"
    made = compose(EVENT, LINKS, page)
    assert made.data["runbook"] == f"{page}#performance"
    assert f'<a href="{page}#performance">' in made.html
    own = {**EVENT, "topic": "stock"}
    assert compose(own, LINKS).data["runbook"] is None, "ours has no entry for a topic of theirs"
    assert (
        compose_digest({"kind": "digest", "id": "d", "at": EVENT["at"], "items": [own]}, {}, page)
        .data["items"][0]["runbook"]
        .endswith("#stock")
    )


def test_what_it_is_about_cannot_break_out_of_any_form() -> None:
    evil = {**EVENT, "about": '<b onmouseover="x">', "summary": "<script>alert(1)</script> & <!channel>"}
    made = compose(evil, {"Report": 'javascript:alert("1")', "Other": 'https://x/"><script>'})
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(made.html)
    assert set(tags) == {"table", "tr", "td", "b"}, "no link, as none is an address, and no tag of theirs"
    section = made.blocks[1]["text"]["text"]
    assert "<!channel>" not in section
    assert "&lt;!channel&gt;" in section


def test_slack_takes_it() -> None:
    many = {**EVENT, "summary": "x" * 5000, "names": [f"column_{n}" for n in range(60)], "about": "y" * 300}
    blocks = compose(many, LINKS).blocks
    assert [block["type"] for block in blocks] == ["header", "section", "context"]
    assert len(blocks[0]["text"]["text"]) <= 150
    assert len(blocks[1]["text"]["text"]) <= 3000
    assert "<https://airflow/log|Log>" in blocks[2]["elements"][0]["text"]
    assert f"and {60 - MOST_NAMES} more" in compose(many).text


def test_a_digest_has_a_few_lines_for_each() -> None:
    drift = {**EVENT, "topic": "drift", "worst": "warning", "number": 1, "seq": 2, "event": "updated"}
    digest = {"kind": "digest", "id": "digest/d/t/1", "at": EVENT["at"], "items": [drift, {**EVENT, "about": "fraud"}]}
    made = compose_digest(digest, {"churn/drift/1": "https://airflow/r", "Log": "https://airflow/log"})
    assert made.text.splitlines() == [
        "[digest] 2 things to know about churn, fraud",
        "- [warning, worse] Feature drift: churn",
        "  What: AUC fell from 0.81 to 0.74.",
        "  Failed: roc_auc, roc_auc of region=north",
        "  Since: 2026-03-01, 1 window",
        "  Runbook: operations/runbook.html#drift",
        "  Report: https://airflow/r",
        "- [error] Loss of performance: fraud",
        "  What: AUC fell from 0.81 to 0.74.",
        "  Failed: roc_auc, roc_auc of region=north",
        "  Since: 2026-03-01, 1 window",
        "  Runbook: operations/runbook.html#performance",
        "Log: https://airflow/log",
    ]
    assert made.data["id"] == "digest/d/t/1"
    big = compose_digest({**digest, "items": [{**drift, "number": n} for n in range(100)]})
    assert len(big.blocks) <= 50
    assert "and 60 more: airflow mlops status" in big.text
