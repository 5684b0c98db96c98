"""The anchor of an alias: the last version that was shown to be better, read from the ledger. Pure.

A gate that allows a margin allows it each time: fifty challengers that are each a little worse than the champion before
add up. So a challenger is also held against a version that stands still until another was *shown* to be better than it.

The anchor is the first version that the alias had, until a promotion rests on evidence that the new version is better,
beyond chance, than the anchor itself. Better than the champion is not enough: after a step down, half a step up is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.registry.ledger import Entry, rollback_targets


@dataclass(frozen=True)
class Anchor:
    """A version that others are held against.

    :param seq: the entry that made it the anchor.
    :param shown: the comparison with the anchor before, as the entry's evidence has it; None: it was the first.
    """

    version: int
    seq: int
    shown: dict[str, Any] | None = None

    @property
    def why(self) -> str:
        """Why it is the anchor, as part of a sentence."""
        if self.shown is None:
            return f"the first that the alias had (entry {self.seq})"
        return f"shown to be better than version {self.shown['version']} in entry {self.seq}"


def anchors(entries: list[Entry], alias: str, metric: str | None = None) -> tuple[Anchor, ...]:
    """Return the anchors of an alias up to now; the last one stands, those before it are what it took the place of.

    A rollback takes the anchor back with it: what was promoted after the version that it went to, and what its evidence
    showed, does not count. A move by hand in MLflow has no evidence and changes nothing, but for the first.

    :param metric: by which a version must have been shown to be better; None: by any.
    """
    stack: list[tuple[int | None, tuple[Anchor, ...]]] = []
    known: dict[int, tuple[Anchor, ...]] = {}
    for entry in entries:
        if not entry.done or entry.alias != alias:
            continue
        standing = stack[-1][1] if stack else ()
        version = entry.version
        if entry.intent["action"] == "rollback" and version is not None:
            if any(one == version for one, _ in stack):
                while stack[-1][0] != version:
                    stack.pop()
            else:  # It was rolled back from before: what was known when it served holds again.
                stack.append((version, known.get(version, standing)))
            continue
        if version is not None:
            standing = _after(entry, version, standing, alias, metric)
            known[version] = standing
        stack.append((version, standing))
    return stack[-1][1] if stack else ()


def _after(
    entry: Entry, version: int, standing: tuple[Anchor, ...], alias: str, metric: str | None
) -> tuple[Anchor, ...]:
    if not standing:
        return (Anchor(version, entry.seq),)
    if entry.intent["action"] != "promote" or version == standing[-1].version:
        return standing
    for one in comparisons(entry):
        if (
            one.get("verdict") == "better"
            and one.get("version") == standing[-1].version
            and one.get("against") == f"{entry.intent.get('model')}@{alias}"
            and metric in (None, one.get("metric"))
        ):
            return (*standing, Anchor(version, entry.seq, one))
    return standing


def comparisons(entry: Entry) -> list[dict[str, Any]]:
    """Return what the evidence of an entry says of its version beside others; see :meth:`.evidence.Proof.compared`."""
    return [one for report in entry.intent.get("evidence") or [] for one in report.get("compared") or []]


def anchor_versions(entries: list[Entry]) -> set[int]:
    """Return the versions that are the anchor of an alias, where releases are held against one."""
    asked = {
        (entry.alias, metric)
        for entry in entries
        for report in entry.intent.get("evidence") or []
        for metric in report.get("anchored") or []
    }
    return {found[-1].version for alias, metric in asked if (found := anchors(entries, alias, metric))}


def needed_versions(entries: list[Entry], keep: int | None) -> set[int]:
    """Return the versions that an alias has, can be rolled back to, or whose challengers are held against them."""
    return rollback_targets(entries, keep) | anchor_versions(entries)
