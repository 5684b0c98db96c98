"""What the gates said of a version, in one sentence: kept with its record in the store, and on the version as a tag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core.registry.versions import RegisteredModel, version_key, version_record
from airflow_mlops.core.vocabulary import utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Tags of a version: why it was made, and why it was not promoted.
REASON_TAG = "mlops.reason"
REFUSED_TAG = "mlops.refused"
#: MLflow takes tags of up to this many characters.
TAG_LIMIT = 5000


def refusal(reports: list[dict[str, Any]]) -> str | None:
    """Return why reports stand against a promotion: which test, by how much, how sure; None if all passed."""
    for report in reports:
        if report.get("passed") is True:
            continue
        worst = next(iter(report.get("failures") or []), None) or {}
        said = worst.get("message") or worst.get("brief")
        name = worst.get("name") or worst.get("type") or worst.get("check")
        what = f"{name}: {said}" if name and said else said or report.get("summary")
        more = len(report.get("failures") or []) - 1
        others = f" (and {more} more)" if more > 0 else ""
        return f"the {str(report['kind']).replace('_', ' ')} did not pass: {what or 'no summary'}{others}"
    return None


def note(
    context: StepContext, registered: RegisteredModel, number: int, why: str | None, reports: list[dict[str, Any]]
) -> None:
    """Put on a version's record and tags why it is refused, or that it is not any more.

    :param reports: what says so; kept beside what the version came with.
    """
    record = version_record(context, registered.name, number)
    if record is None or (why is None and not record.get("refused")):
        return
    evidence = _kept(record.get("evidence") or [], reports, why)
    if record.get("refused") != why or evidence != record.get("evidence"):
        since = (record.get("refused_at") if record.get("refused") == why else None) or utc_now()
        kept = {**record, "refused": why, "refused_at": since if why else None, "evidence": evidence}
        context.store.put_json(version_key(registered.name, number), kept)
    registered.tag_version(number, {REFUSED_TAG: (why or "")[:TAG_LIMIT]})


def _kept(before: list[dict[str, Any]], reports: list[dict[str, Any]], why: str | None) -> list[dict[str, Any]]:
    """Return what stands as a version's evidence, by which a promotion that names none is held.

    What refused it stays, such as the report of a canary that came after the test, until it is promoted all the same.
    """
    if why is None:
        return [one for one in before if one.get("passed") is True]
    known = {one.get("digest") for one in before}
    return [*before, *(one for one in reports if one.get("digest") not in known)]
