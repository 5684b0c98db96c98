"""Evidence for a rollback: a report that the version before is better than the one that serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.registry.evidence import Proof, details_of
from airflow_mlops.core.registry.ledger import Entry, last_done

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext


@dataclass(frozen=True)
class Regression:
    """What evidence asks for.

    :param entry: the ledger's entry of the release that was judged.
    :param version: that release; ``to_version``: the one before, which is better.
    :param clock: when that was found, in the time of the data.
    """

    entry: int
    version: int
    to_version: int
    clock: str | None
    reason: str
    evidence: list[dict[str, Any]]

    def superseded(self, entries: list[Entry], alias: str) -> str | None:
        """Return that another release serves by now, or None."""
        tail = last_done(entries, alias)
        if tail is not None and tail.seq == self.entry:
            return None
        stands = f"superseded by {tail}" if tail else "it is not in the ledger"
        return f"the release of version {self.version} in entry {self.entry}, which was judged, is {stands}"


def asked(context: StepContext, reports: list[dict[str, Any]], alias: str) -> Regression | str:
    """Return what reports ask for, or why they ask for nothing.

    :param alias: ``name@alias`` that would be rolled back.
    :raises SpecError: if none of them compares with the version before.
    :raises IntegrityError: if the details of a report are not those that it was made with.
    """
    about = [report for report in reports if isinstance(report.get("probation"), dict)]
    if not about:
        raise SpecError(
            "evidence for a rollback is a report of EvaluateModelOperator with a test of the kind 'previous'; without "
            "evidence the rollback takes place in any case"
        )
    reasons = []
    for report in about:
        details = details_of(context, report)
        release = details.get("probation") or {}
        if release.get("alias") != alias:
            reasons.append(f"the evidence is about {release.get('alias')}, not {alias}")
            continue
        shown = [
            test
            for test in details.get("tests") or []
            if test["kind"] == "previous" and not test["passed"] and test.get("severity") == "error"
        ]
        if not shown:
            reasons.append(_not_shown(details))
            continue
        proof = Proof(report, details)
        said, who = str(shown[0]["message"]), f"Version {release['version']}"
        worse = f"{who} did worse than version {release['previous']} on the same rows: {said}"
        return Regression(
            entry=int(release["entry"]),
            version=int(release["version"]),
            to_version=int(release["previous"]),
            clock=release.get("clock"),
            reason=said if said.startswith(f"{who} ") else worse,
            evidence=[proof.summary()],
        )
    return "; ".join(reasons)


def _not_shown(details: dict[str, Any]) -> str:
    tests = [test for test in details.get("tests") or [] if test["kind"] == "previous"]
    said = "; ".join(str(test["message"]) for test in tests)
    failed = [test["name"] for test in details.get("tests") or [] if not test["passed"]]
    if not failed:
        return said
    return f"{said}. What failed, {failed[0]!r}, is no comparison with the version before: it may be the season"
