"""Evidence: the reports that a promotion rests on, held against what is on record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import ConflictError, GateFailedError, IntegrityError, NotFoundError, SpecError
from airflow_mlops.core.registry.moves import UNSET, Expected
from airflow_mlops.core.vocabulary import ModelRef, Report

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Where a report's details list what it checked.
CHECK_LISTS = ("tests", "expectations")


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


def check(context: StepContext, reports: list[dict[str, Any]], ref: ModelRef) -> list[dict[str, Any]]:
    """Return the reports as a ledger entry keeps them, if they speak for this model.

    :param ref: the model, with its digest.
    :raises GateFailedError: if a report did not pass.
    :raises ConflictError: if a report speaks of another model or of data that it was not made from.
    :raises IntegrityError: if a report cannot be held against its details in the store, or contradicts them.
    """
    for report in reports:
        _check_passed(report)
        _check_subject(report, ref)
        _check_details(context, report)
    return [{k: report.get(k) for k in ("kind", "passed", "digest", "subject", "report_uri")} for report in reports]


def _check_passed(report: dict[str, Any]) -> None:
    if report["passed"] is not True:
        raise GateFailedError(
            f"the {report['kind']} report did not pass: {report.get('summary') or 'no summary'} "
            f"Nothing was promoted. Report: {report.get('report_uri')}",
            report_uri=report.get("report_uri"),
        )


def _check_subject(report: dict[str, Any], ref: ModelRef) -> None:
    data = {(ref.training or {}).get("dataset_digest"), (ref.test_dataset or {}).get("digest")}
    subject = report.get("subject")
    if subject is None or subject not in {ref.digest, *data}:
        raise ConflictError(
            f"the {report['kind']} report speaks of {subject}, not of {ref.uri} ({ref.digest}) or of the data it was "
            "made from: test this model and give that report",
            subject=subject,
            digest=ref.digest,
        )


def _check_details(context: StepContext, report: dict[str, Any]) -> None:
    uri, kind = report.get("details_uri"), report["kind"]
    key = context.store.key_of(uri) if uri else None
    if key is None or not report.get("digest"):
        raise IntegrityError(
            f"the {kind} report cannot be verified: its details ({uri}) are not in the store {context.store.uri}. "
            "Promote with the store that the gate wrote to",
            details_uri=uri,
        )
    try:
        details = context.store.get_json(key)
    except NotFoundError:
        raise IntegrityError(f"the details of the {kind} report are gone from {uri}; run the gate again") from None
    if digests.of_json(details) != report["digest"]:
        raise IntegrityError(
            f"the details of the {kind} report at {uri} are not those that it was made with: they were altered, or "
            "the gate has run again since. Run the gate again, and promote with what it returns",
            details_uri=uri,
        )
    failed = [
        check
        for name in CHECK_LISTS
        for check in details.get(name) or []
        if check.get("passed") is False and check.get("severity", "error") not in ("warning", "info")
    ]
    if failed:
        raise IntegrityError(
            f"the {kind} report says that it passed, but {len(failed)} of the checks in its details failed: it was "
            "altered after the gate had written it. Run the gate again",
            details_uri=uri,
        )


def expected_champion(reports: list[dict[str, Any]], name: str, alias: str) -> Expected:
    """Return the version that the model was measured against, None if there was no champion, or :data:`UNSET`.

    A report that was measured against another name or alias says nothing of this one.
    """
    for report in reports:
        against = report.get("champion")
        if "champion_version" in report and (against is None or against == f"{name}@{alias}"):
            version = report["champion_version"]
            return None if version is None else int(version)
    return UNSET
