"""Pieces of Markdown that mean what they say, whatever stands in them."""

from __future__ import annotations

import re
from typing import Any

from airflow_mlops.core.reports import figure

#: Characters of a value in a table.
VALUE = 80


def plain(text: Any) -> str:
    """Return text that no Markdown renderer reads as anything else; words with underscores stay as they are."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", str(text if text is not None else "–")).replace("\n", " ")


def code(text: Any) -> str:
    """Return text as a code span that may stand in a table."""
    return "`" + str(text).replace("`", "'").replace("|", "\\|").replace("\n", " ") + "`"


def value(what: Any) -> str:
    """Return a value as a code span of bounded length; a dash for none."""
    if what is None:
        return "–"
    text = figure(what)
    return code(text if len(text) <= VALUE else text[:VALUE] + "…")


def table(headers: list[str], rows: list[list[str]]) -> str:
    """Return a table; a header that begins with ``>`` is that of a column of figures."""
    names = " | ".join(header.removeprefix(">") for header in headers)
    lines = "|".join("--:" if header.startswith(">") else "---" for header in headers)
    return "\n".join([f"| {names} |", f"|{lines}|", *(f"| {' | '.join(row)} |" for row in rows)])
