"""The ready message: what, how bad, since when, what to do, links; as text, HTML, Slack's blocks and plain JSON."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.alerts.delivery import event_id, incident_id
from airflow_mlops.core.alerts.incidents import RESOLVED
from airflow_mlops.core.alerts.rules import ADVICE, OTHER_ADVICE, TITLES, runbook_entry
from airflow_mlops.core.vocabulary import SCHEMA

#: Failures that a message names; the report has all.
MOST_NAMES = 8
#: What Slack takes in a header and in a section.
HEADER, SECTION = 150, 2900
#: Items that a digest spells out.
MOST_ITEMS = 40

COLOURS = {"ok": "#1a7f4b", "warning": "#a15c00", "error": "#b3261e"}


@dataclass(frozen=True)
class Message:
    """One message in each form.

    :param subject: one line.
    :param text: plain text of several lines.
    :param html: for an e-mail: one table, no scripts, nothing from outside.
    :param blocks: Slack's Block Kit.
    :param data: plain JSON, for webhooks; ``id`` is the same whenever the same is told.
    """

    subject: str
    text: str
    html: str
    blocks: list[dict[str, Any]]
    data: dict[str, Any]


def compose(event: dict[str, Any], links: dict[str, str] | None = None, runbook: str = "") -> Message:
    """Return the message of an event.

    :param links: label -> address, the most useful first.
    :param runbook: address of the runbook's page; empty: its place in the docs.
    """
    links = links or {}
    rows = _rows(event, runbook)
    subject = subject_of(event)
    tone = "ok" if event["event"] == RESOLVED else event["worst"]
    data = {
        "schema": SCHEMA,
        "kind": "alert",
        "id": event_id(event),
        "incident": incident_id(event),
        "title": subject,
        **{
            key: event.get(key)
            for key in (
                "event", "about", "topic", "severity", "worst", "channel", "summary", "since", "window", "bad_windows",
                "names", "owner", "at",
            )
        },
        "advice": advice_of(event),
        "runbook": entry_of(event, runbook),
        "links": links,
    }  # fmt: skip
    return _message(subject, [("", rows)], links, tone, data)


def compose_digest(digest: dict[str, Any], links: dict[str, str] | None = None, runbook: str = "") -> Message:
    """Return the message of a digest: one line for each incident, and its report.

    :param links: label -> address; of an item's report under the item's id.
    :param runbook: address of the runbook's page; empty: its place in the docs.
    """
    links = links or {}
    items = digest["items"][:MOST_ITEMS]
    count = len(digest["items"])
    subject = f"[digest] {count} thing{'s' * (count != 1)} to know about {_abouts(digest['items'])}"
    parts = []
    for item in items:
        rows = [(name, text) for name, text in _rows(item, runbook) if name in ("What", "Failed", "Since", "Runbook")]
        if url := links.get(incident_id(item)):
            rows.append(("Report", url))
        parts.append((subject_of(item), rows))
    if count > len(items):
        parts.append((f"and {count - len(items)} more: airflow mlops status", []))
    rest = {label: url for label, url in links.items() if label not in {incident_id(item) for item in items}}
    kept = ("about", "topic", "event", "severity", "summary", "since", "window", "bad_windows", "names")
    data = {
        "schema": SCHEMA,
        "kind": "digest",
        "id": event_id(digest),
        "title": subject,
        "at": digest["at"],
        "items": [
            {"incident": incident_id(item), "runbook": entry_of(item, runbook), **{key: item.get(key) for key in kept}}
            for item in items
        ],
        "links": links,
    }
    return _message(subject, parts, rest, "warning", data)


def subject_of(event: dict[str, Any]) -> str:
    """Return one line that says what happened: ``[error] Loss of performance: churn``."""
    title = TITLES.get(event["topic"], str(event["topic"]).replace("_", " ").capitalize())
    tag = {"opened": event["worst"], "updated": f"{event['worst']}, worse"}.get(event["event"], "resolved")
    return f"[{tag}] {title}: {event['about']}"


def advice_of(event: dict[str, Any]) -> str:
    """Return what a person can do about it."""
    if event["event"] == RESOLVED:
        return "Nothing: the last windows were good again."
    return ADVICE.get(event["topic"], OTHER_ADVICE)


def entry_of(event: dict[str, Any], runbook: str = "") -> str | None:
    """Return where the runbook's entry of an event is; None where there is nothing to do, or no such entry.

    A runbook of one's own may have entries for one's own topics.
    """
    if event["event"] == RESOLVED or not (runbook or event["topic"] in TITLES):
        return None
    return runbook_entry(event["topic"], runbook)


def _abouts(items: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(item["about"] for item in items))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _rows(event: dict[str, Any], runbook: str) -> list[tuple[str, str]]:
    names, more = event["names"][:MOST_NAMES], len(event["names"]) - MOST_NAMES
    failed = ", ".join(names) + (f" and {more} more" if more > 0 else "")
    window = event.get("window")
    count = event["bad_windows"]
    since = f"{_day(event['since'])}, {count} window{'s' * (count != 1)}"
    if event["event"] == RESOLVED:
        since += f", until {_day((window or {}).get('start') or event['at'])}"
    rows = [
        ("What", event["summary"]),
        ("How bad", f"{event['worst']}" + (f"; {failed}" if failed else "")),
        ("Failed", failed),
        ("Since", since),
        ("Window", f"{_day(window['start'])} to {_day(window['end'])}" if window else ""),
        ("Owner", event.get("owner") or ""),
        ("What to do", advice_of(event)),
        ("Runbook", entry_of(event, runbook) or ""),
        ("Incident", incident_id(event)),
    ]
    return [(name, text) for name, text in rows if text]


def _day(instant: str) -> str:
    """Return an instant as people read it: without a midnight."""
    text = str(instant)
    return text[:10] if text[10:19] in ("", "T00:00:00") else text[:16].replace("T", " ")


def _message(
    subject: str, parts: list[tuple[str, list[tuple[str, str]]]], links: dict[str, str], tone: str, data: dict[str, Any]
) -> Message:
    parts = [(head, [row for row in rows if row[0] != "Failed" or head]) for head, rows in parts]
    lines, cells = [subject], list[str]()
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": subject[:HEADER]}}]
    for head, rows in parts:
        if head:
            lines.append(f"- {head}")
            cells.append(f'<tr><td colspan="2" style="padding:12px 0 2px"><b>{html.escape(head)}</b></td></tr>')
        lines += [f"{'  ' if head else ''}{name}: {text}" for name, text in rows]
        cells += [_cell(name, _linked(text)) for name, text in rows]
        said = [f"*{_slack(head)}*"] if head else []
        said += [f"*{name}:* {_slack(text)}" for name, text in rows]
        if said:
            blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": _cut("\n".join(said), SECTION)}})
    for label, url in links.items():
        lines.append(f"{label}: {url}")
        cells.append(_cell(label, _linked(url)))
    if links:
        said = [f"<{url}|{_slack(label)}>" if _is_web(url) else f"{_slack(label)}: {_slack(url)}"
                for label, url in links.items()]  # fmt: skip
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _cut(" · ".join(said), SECTION)}]})
    page = (
        '<table role="presentation" style="font:15px/1.5 system-ui,sans-serif;border-left:4px solid '
        f'{COLOURS[tone]};padding-left:14px"><tr><td colspan="2" style="font-size:18px;padding-bottom:8px">'
        f"<b>{html.escape(subject)}</b></td></tr>{''.join(cells)}</table>"
    )
    return Message(subject, "\n".join(lines), page, blocks[:50], data)


def _cell(name: str, content: str) -> str:
    return (
        f'<tr><td style="color:#5b6b7c;padding:2px 14px 2px 0;vertical-align:top;white-space:nowrap">'
        f'{html.escape(name)}</td><td style="padding:2px 0">{content}</td></tr>'
    )


def _linked(text: str) -> str:
    safe = html.escape(text)
    return f'<a href="{safe}">{safe}</a>' if _is_web(text) else safe


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://")) and not any(one in url for one in " <>|\"'\n")


def _slack(text: str) -> str:
    """Return text as Slack shows it literally."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
