"""What has changed beside the distribution of values: columns, missing values, categories.

No value of the data stands in a finding unless the user asked for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.drift.categories import CategorySummary
from airflow_mlops.core.drift.compare import Verdict
from airflow_mlops.core.drift.scores import Summary

#: Share of missing values that must be gained or lost to be a finding; from ``BROKEN_SHARE`` on it is an error.
MISSING_SHARE, BROKEN_SHARE = 0.05, 0.2
#: Share of rows in new categories, or formerly in those that are gone, to be a finding.
CATEGORY_SHARE = 0.01
#: A gain must be so many of its standard errors: a few rows prove nothing.
_ERRORS = 4.0
#: Rows that must have been expected in a category for its absence to count.
_EXPECTED = 10


@dataclass(frozen=True)
class Finding:
    """Something that has changed.

    :param kind: ``column``, ``missing``, ``new_categories`` or ``vanished_categories``.
    :param severity: ``error``, ``warning``, or ``info``, which changes no verdict.
    :param message: in one sentence.
    :param value: the share that was found, with ``threshold``, where there is one.
    :param examples: categories, where the user asked to see values.
    """

    kind: str
    column: str
    severity: str
    message: str
    value: float | None = None
    threshold: float | None = None
    examples: list[Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as it stands in the details."""
        found = {key: getattr(self, key) for key in ("kind", "column", "severity", "message", "value", "threshold")}
        return {**found, **({"examples": self.examples} if self.examples is not None else {})}


def find(
    verdicts: list[Verdict],
    reference: Mapping[str, Summary],
    current: Mapping[str, Summary],
    *,
    show_values: bool = False,
    private: list[str] | None = None,
) -> list[Finding]:
    """Return what has changed, in the order of the columns.

    :param show_values: whether categories may stand in what is found, but for ``private`` columns.
    """
    found = []
    for verdict in verdicts:
        if verdict.broken:
            found.append(Finding("column", verdict.name, "error", f"{verdict.name}: {verdict.skipped}."))
        elif verdict.skipped and verdict.skipped.startswith("it is new"):
            found.append(Finding("column", verdict.name, "info", f"{verdict.name}: {verdict.skipped}."))
        if verdict.broken or verdict.name not in reference or verdict.name not in current:
            continue
        ours, theirs = reference[verdict.name], current[verdict.name]
        if shift := missing_shift(verdict.name, ours, theirs):
            found.append(shift)
        if isinstance(ours, CategorySummary) and isinstance(theirs, CategorySummary):
            shown = show_values and verdict.name not in (private or [])
            found += category_changes(verdict.name, ours, theirs, show=shown)
    return found


def missing_shift(name: str, reference: Summary, current: Summary) -> Finding | None:
    """Return the finding that more or fewer values are missing, or None."""
    n, m = reference.rows, current.rows
    if not n or not m:
        return None
    before, after = reference.absent / n, current.absent / m
    pooled = (reference.absent + current.absent) / (n + m)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    apart = after - before
    if abs(apart) < MISSING_SHARE or abs(apart) < _ERRORS * error:
        return None
    severity = "error" if apart >= BROKEN_SHARE else "warning"
    message = f"{name}: {after:.1%} of the values are missing, {before:.1%} in the reference."
    return Finding("missing", name, severity, message, apart, MISSING_SHARE)


def category_changes(name: str, reference: CategorySummary, current: CategorySummary, *, show: bool) -> list[Finding]:
    """Return the findings that categories are new or have vanished."""
    mine, its = reference.known, current.known
    if not mine or not its:
        return []
    found = []
    new = {key: number for key, number in its.items() if key not in mine}
    share = sum(new.values()) / current.count
    if share >= CATEGORY_SHARE and sum(new.values()) >= _EXPECTED:
        message = f"{name}: {_categories(len(new))} that the reference does not have make up {share:.1%} of the values."
        found.append(
            Finding("new_categories", name, "warning", message, share, CATEGORY_SHARE, _examples(new) if show else None)
        )
    gone = {
        key: number
        for key, number in mine.items()
        if key not in its and number / reference.count * current.count >= _EXPECTED
    }
    share = sum(gone.values()) / reference.count
    if share >= CATEGORY_SHARE:
        message = f"{name}: {_categories(len(gone))} that made up {share:.1%} of the reference no longer occur."
        examples = _examples(gone) if show else None
        found.append(Finding("vanished_categories", name, "warning", message, share, CATEGORY_SHARE, examples))
    return found


def _categories(number: int) -> str:
    return "a category" if number == 1 else f"{number:,} categories"


def _examples(counts: dict[Any, int]) -> list[Any]:
    return sorted(counts, key=lambda key: -counts[key])[:20]
