"""Approval without asking: a policy that counts green releases in a row."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.registry.evidence import APPROVAL
from airflow_mlops.core.registry.ledger import Entry
from airflow_mlops.core.vocabulary import parse_instant


@dataclass(frozen=True)
class Policy:
    """When a release needs nobody's approval.

    :param green_runs: so many releases in a row before this one must have been green.
    """

    green_runs: int

    @classmethod
    def of(cls, value: Any) -> Policy | None:
        """Read ``{"green_runs": 5}``; None for none.

        :raises SpecError: for anything else.
        """
        if value is None or value == "" or value == {}:
            return None
        if not isinstance(value, dict):
            raise SpecError(f"auto_approve is a dict such as {{'green_runs': 5}}, got {value!r}")
        for name in value:
            if name != "green_runs":
                raise SpecError(
                    f"auto_approve has no {name!r}{did_you_mean(name, ['green_runs'])}; it has 'green_runs'"
                )
        number = str(value["green_runs"]).strip()
        if not number.isdigit() or int(number) < 1:
            raise SpecError(f"auto_approve['green_runs'] must be a number of 1 or more, got {value['green_runs']!r}")
        return cls(int(number))


@dataclass(frozen=True)
class Verdict:
    """What the policy says of one release, and why, in one sentence."""

    approved: bool
    green: int
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as it stands on record."""
        return {"approved": self.approved, "green": self.green, "sentence": self.sentence}


def decide(
    policy: Policy,
    entries: list[Entry],
    refusals: list[dict[str, Any]],
    *,
    name: str,
    alias: str,
    flaw: str | None,
) -> Verdict:
    """Say whether a release of ``name`` to ``alias`` needs nobody's approval.

    A release is green if it was promoted on evidence that passed. The count begins anew after a rollback, a change of
    the alias outside the ledger, a promotion without evidence, and a release that was rejected or that nobody answered.

    :param entries: the ledger.
    :param refusals: decisions about this alias that were no approval: ``{"decision", "by", "at"}``.
    :param flaw: what is not green about the present evidence; None if nothing is.
    """
    green, since, broken = _green(entries, refusals, alias)
    row = f"{green} release{'s' if green != 1 else ''} of {name!r} to {alias!r} in a row"
    wanted = f"the policy approves by itself after {policy.green_runs}"
    if flaw is not None:
        return Verdict(False, green, f"A person is asked because {flaw}.")
    if green >= policy.green_runs:
        first = f" (since entry {since})" if since else ""
        return Verdict(
            True,
            green,
            f"Approved without asking: {row}{first} were green, and {wanted}, as the evidence of this one passed.",
        )
    why = f", counted from {broken}" if broken else ""
    return Verdict(
        False, green, f"A person is asked because {row} {'is' if green == 1 else 'are'} green{why}; {wanted}."
    )


def _green(entries: list[Entry], refusals: list[dict[str, Any]], alias: str) -> tuple[int, int | None, str | None]:
    """Return the number of green releases in a row, the entry of the first, and what stands before it."""
    last = max((one for one in refusals), key=lambda one: parse_instant(one["at"]), default=None)
    refused = parse_instant(last["at"]) if last else dt.datetime.min.replace(tzinfo=dt.timezone.utc)
    green, since = 0, None
    for entry in reversed(entries):
        if not entry.done or entry.alias != alias:
            continue
        if last is not None and parse_instant(entry.intent["at"]) <= refused:
            who = f" by {last['by']}" if last.get("by") else ""
            return green, since, f"a release that was {last['decision']}{who}"
        if entry.intent["action"] != "promote":
            return green, since, f"entry {entry.seq}, a {_word(entry)}"
        if not _has_evidence(entry):
            return green, since, f"entry {entry.seq}, which was promoted without evidence"
        green, since = green + 1, entry.seq
    if last is not None and not green:
        return green, since, f"a release that was {last['decision']}"
    return green, since, None


def _word(entry: Entry) -> str:
    return {"rollback": "rollback", "external": "change outside the ledger"}.get(entry.intent["action"], "change")


def _has_evidence(entry: Entry) -> bool:
    """Return whether a gate's report stands behind an entry, by itself or among what its approver was shown."""
    evidence = entry.intent.get("evidence") or []
    measured = any(one.get("kind") != APPROVAL or one.get("shown") for one in evidence)
    return measured and not entry.intent.get("evidence_waived") and all(one["passed"] for one in evidence)
