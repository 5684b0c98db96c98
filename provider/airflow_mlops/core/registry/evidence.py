"""Evidence: the reports that a promotion rests on, held against what is on record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import ConflictError, GateFailedError, IntegrityError, NotFoundError, SpecError
from airflow_mlops.core.lifecycle import erasures, uses
from airflow_mlops.core.registry.moves import UNSET, Expected
from airflow_mlops.core.vocabulary import ModelRef, Report

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Where a report's details list what it checked.
CHECK_LISTS = ("tests", "expectations")
#: What a ledger entry keeps of a comparison with another version.
COMPARED = ("against", "version", "metric", "verdict", "ahead", "low", "high", "alpha")
#: Kind of the report of a person's or a policy's decision.
APPROVAL = "approval"


def as_reports(evidence: Any) -> list[dict[str, Any]]:
    """Return evidence as a list of report dicts; one report may stand alone, None is no evidence.

    :raises SpecError: for anything else.
    """
    found = (
        [evidence] if isinstance(evidence, dict) else list(evidence) if isinstance(evidence, (list, tuple)) else None
    )
    if evidence is None:
        return []
    if found is None or not all(isinstance(report, dict) for report in found):
        raise SpecError("evidence must be a report or a list of reports, as a gate returns them (its task's .output)")
    for report in found:
        Report.from_dict(report)
    return found


@dataclass(frozen=True)
class Proof:
    """A report that passed and speaks for the model, and the details behind it, as they are in the store."""

    report: dict[str, Any]
    details: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """Return what a ledger entry keeps of it."""
        kept = {key: self.report.get(key) for key in ("kind", "passed", "digest", "subject", "report_uri")}
        if self.report["kind"] == APPROVAL:
            kept |= {key: self.details.get(key) for key in ("by", "at", "reason")}
            kept["shown"] = [one.get("digest") for one in self.details.get("request", {}).get("reports") or []]
        found = {"compared": self.compared(), "anchored": self.anchored()}
        return {**kept, **{key: one for key, one in found.items() if one}}

    def compared(self) -> list[dict[str, Any]]:
        """Return how the model did beside other versions: ``[{"against", "version", "metric", "verdict", ...}]``.

        An approval has what its approver was shown.
        """
        if self.report["kind"] == APPROVAL:
            return list(self.details.get("request", {}).get("compared") or [])
        sure = (test.get("comparison") for test in self.details.get("tests") or [])
        return [{key: one.get(key) for key in COMPARED} for one in sure if one and one.get("version") is not None]

    def anchored(self) -> list[str]:
        """Return the metrics by which the model was held against the anchor."""
        if self.report["kind"] == APPROVAL:
            return list(self.details.get("request", {}).get("anchored") or [])
        return sorted({str(one["metric"]) for one in self.details.get("specs") or [] if one.get("kind") == "anchor"})

    def champion_of(self, name: str, alias: str) -> Expected:
        """Return the version that the model was measured against, None if there was no champion yet.

        :data:`UNSET` if it was measured against none, or against another name or alias.
        """
        against = self.details.get("champion")
        if "champion" in self.details and not isinstance(against, dict):
            return UNSET
        if isinstance(against, dict):
            asked, version = against.get("alias"), against.get("version")
        elif "champion_version" in self.report:
            asked, version = self.report.get("champion"), self.report["champion_version"]
        else:
            return UNSET
        if asked not in (None, f"{name}@{alias}"):
            return UNSET
        return None if version is None else int(version)


def check(context: StepContext, reports: list[dict[str, Any]], ref: ModelRef) -> list[Proof]:
    """Return the reports with their details, if they speak for this model.

    :param ref: the model, with its digest.
    :raises GateFailedError: if a report did not pass.
    :raises ConflictError: if a report speaks of another model or of data that it was not made from.
    :raises IntegrityError: if a report cannot be held against its details in the store, or contradicts them.
    """
    proofs = []
    for report in reports:
        _check_passed(report)
        _check_subject(context, report, ref)
        proofs.append(Proof(report, _checked_details(context, report)))
    return proofs


def expected_champion(proofs: list[Proof], name: str, alias: str) -> Expected:
    """Return the version that the evidence was measured against, or :data:`UNSET` if it does not say."""
    found = (proof.champion_of(name, alias) for proof in proofs)
    return next((version for version in found if version != UNSET), UNSET)


def approval(proofs: list[Proof], name: str, alias: str) -> dict[str, Any]:
    """Return the decision among the evidence, ``{"by", "reason", ...}``; an empty dict if there is none.

    :raises ConflictError: if it is about another name or alias: who approved staging has not approved production.
    """
    for proof in proofs:
        if proof.report["kind"] == APPROVAL:
            given = (proof.details.get("name"), proof.details.get("alias"))
            if given != (name, alias):
                raise ConflictError(
                    f"the approval is for {given[0]}@{given[1]}, not for {name}@{alias}: have this release approved",
                    approved=f"{given[0]}@{given[1]}",
                )
            return proof.details
    return {}


def _check_passed(report: dict[str, Any]) -> None:
    if report["passed"] is not True:
        raise GateFailedError(
            f"the {report['kind']} report did not pass: {report.get('summary') or 'no summary'} "
            f"Nothing was promoted. Report: {report.get('report_uri')}",
            report_uri=report.get("report_uri"),
        )


def _check_subject(context: StepContext, report: dict[str, Any], ref: ModelRef) -> None:
    data = {(ref.training or {}).get("dataset_digest"), (ref.test_dataset or {}).get("digest")} - {None}
    # A person's rows may have been erased from it since.
    data |= {later.new for one in data if (later := erasures.successor(context.store, str(one)))}
    subject = report.get("subject")
    if subject is None or subject not in {ref.digest, *data}:
        raise ConflictError(
            f"the {report['kind']} report speaks of {subject}, not of {ref.uri} ({ref.digest}) or of the data it was "
            "made from: test this model and give that report",
            subject=subject,
            digest=ref.digest,
        )


def _checked_details(context: StepContext, report: dict[str, Any]) -> dict[str, Any]:
    details = details_of(context, report)
    failed = [
        check
        for name in CHECK_LISTS
        for check in details.get(name) or []
        if check.get("passed") is False and check.get("severity", "error") in ("error", "critical")
    ]
    if failed:
        raise IntegrityError(
            f"the {report['kind']} report says that it passed, but {len(failed)} of the checks in its details failed: "
            "it was altered after the gate had written it. Run the gate again",
            details_uri=report["details_uri"],
        )
    return details


def details_of(context: StepContext, report: dict[str, Any]) -> dict[str, Any]:
    """Return the details behind a report, which must be those that it was made with.

    :raises IntegrityError: if they are not in the store, or are others.
    """
    uri, kind = report.get("details_uri"), report["kind"]
    key = context.store.key_of(uri) if uri else None
    if key is None or not report.get("digest"):
        raise IntegrityError(
            f"the {kind} report cannot be verified: its details ({uri}) are not in the store {context.store.uri}. "
            "Use the store that the gate wrote to",
            details_uri=uri,
        )
    uses.keep(context.store, key)
    try:
        details: dict[str, Any] = context.store.get_json(key)
    except NotFoundError:
        raise IntegrityError(f"the details of the {kind} report are gone from {uri}; run the gate again") from None
    if digests.of_json(details) != report["digest"]:
        raise IntegrityError(
            f"the details of the {kind} report at {uri} are not those that it was made with: they were altered, or "
            "the gate has run again since. Run the gate again, and go on with what it returns",
            details_uri=uri,
        )
    return details
