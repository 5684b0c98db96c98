"""Approval of a release: what is asked of a person, what they decided, and when nobody has to be asked.

``request_approval`` says what to ask, or that the decision is there already. ``record_approval`` keeps a decision:
under ``approvals/<model>/`` for good, and as a report of kind ``approval``, which a promotion takes as evidence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import ConflictError, NotFoundError, SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.registry import briefing
from airflow_mlops.core.registry import evidence as held
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.registry.moves import UNSET
from airflow_mlops.core.registry.policy import Policy, Verdict, decide
from airflow_mlops.core.registry.promote import with_origin
from airflow_mlops.core.registry.versions import RegisteredModel, resolve, verified, version_record
from airflow_mlops.core.reports import publish
from airflow_mlops.core.store import safe_name
from airflow_mlops.core.vocabulary import SCHEMA, ModelRef, Report, parse_instant, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Records of decisions; never collected.
FOLDER = "approvals"
APPROVED, REJECTED, EXPIRED = "approved", "rejected", "expired"
DECISIONS = (APPROVED, REJECTED, EXPIRED)
#: Characters of a reason that are kept.
REASON_LIMIT = 2000


@dataclass(frozen=True)
class Request:
    """One release that somebody is asked about.

    :param name: the registered model that is promoted to.
    :param identity: of the asking task, the model and the evidence; a decision holds for exactly these.
    """

    ref: ModelRef
    name: str
    alias: str
    reports: list[dict[str, Any]]
    identity: str

    @property
    def folder(self) -> str:
        """Where the decisions about the registered model are."""
        return f"{FOLDER}/{safe_name(self.name)}"


def request_approval(
    context: StepContext,
    *,
    model: Any,
    evidence: Any = None,
    alias: str = "champion",
    to_name: str | None = None,
    drift: Any = None,
    auto_approve: dict[str, Any] | None = None,
    links: dict[str, Any] | None = None,
    attempt: int = 0,
) -> dict[str, Any]:
    """Return what to ask about a release, or the decision if there is one.

    :param model: ref or URI of the model.
    :param evidence: reports that must have passed and speak of this model; None: those that were registered with it.
    :param alias: the alias that it is to be promoted to.
    :param to_name: the registered name that it is to be promoted to, if that is another one.
    :param drift: reports that are shown and decide nothing.
    :param auto_approve: ``{"green_runs": 5}``: so many green releases in a row make a person's approval unnecessary.
    :param links: addresses for the text; see :func:`.briefing.markdown`.
    :param attempt: grows when a person asks for the task to be done anew, not when it is retried: then a release that
        was rejected is asked about again.
    :return: ``{"kind": "approval_request", "subject", "body", "decision"}``; ``decision`` is None, or the report of the
        decision that was made before or by the policy.
    :raises GateFailedError: if a report did not pass: nobody is asked.
    :raises ConflictError: if the alias has another version than the evidence was measured against.
    """
    policy = Policy.of(auto_approve)
    request = _request(context, model, evidence, alias, to_name)
    found = _decided(context, request, attempt)
    if found is not None:
        context.log.info("%s at %s; nobody is asked again", _sentence(found), found["at"])
        return _answer(context, found)
    proofs = held.check(context, request.reports, request.ref)
    registered = RegisteredModel(context, request.name)
    serving = registered.alias(alias) if registered.exists() else None
    against = held.expected_champion(proofs, request.name, alias)
    if against not in (UNSET, serving):
        raise ConflictError(
            f"the evidence was measured against {_name(against)}, and {alias!r} of {request.name!r} is "
            f"{_name(serving)} now: nobody is asked about it. Test the model against the present one",
            expected=against,
            found=serving,
        )
    shown = held.as_reports(drift)
    known = briefing.facts(context, request.ref, proofs, name=request.name, alias=alias, serving=serving, drift=shown)
    verdict = _verdict(context, policy, request, [*request.reports, *shown])
    asked = digests.of_json([request.identity, known])
    known["policy"] = verdict.to_dict() if verdict else None
    context.store.put_json(_request_key(context, request), known)
    if verdict is not None:
        context.log.info("%s", verdict.sentence)
        if verdict.approved:
            assert policy is not None
            by = f"policy green_runs={policy.green_runs}"
            return _answer(context, _keep(context, request, known, attempt, APPROVED, by, None, utc_now(), None))
    _check_asked(context, request, asked)
    return {
        "schema": SCHEMA,
        "kind": "approval_request",
        "subject": _subject(request),
        "body": briefing.markdown(known, links, verdict.sentence if verdict else None),
        "decision": None,
    }


def record_approval(
    context: StepContext,
    *,
    model: Any,
    decision: str,
    evidence: Any = None,
    alias: str = "champion",
    to_name: str | None = None,
    by: str | None = None,
    by_id: str | None = None,
    at: str | None = None,
    reason: str | None = None,
    attempt: int = 0,
) -> dict[str, Any]:
    """Keep a decision and return its report.

    The other arguments are those that the decision was asked for with.

    :param decision: ``approved``, ``rejected`` or ``expired``.
    :param by: who decided; None where nobody did.
    :param by_id: their id in Airflow.
    :param at: when, ISO 8601.
    :param reason: why, in their words.
    :return: a report of kind ``approval`` with ``decision``, ``by``, ``at``, ``reason``, ``name`` and ``version``.
    """
    if decision not in DECISIONS:
        raise SpecError(f"decision must be one of {', '.join(DECISIONS)}, got {decision!r}")
    request = _request(context, model, evidence, alias, to_name)
    found = _decided(context, request, attempt)
    if found is None:
        try:
            known = context.store.get_json(_request_key(context, request))
        except NotFoundError:
            raise NotFoundError(
                f"what was asked about {request.ref.uri} is not in the store {context.store.uri}: it was deleted, or "
                "the question was asked with another store. Clear the task to ask again"
            ) from None
        moment = parse_instant(at).isoformat() if at else utc_now()
        found = _keep(context, request, known, attempt, decision, by, by_id, moment, reason)
    return dict(_answer(context, found)["decision"])


def _request(context: StepContext, model: Any, evidence: Any, alias: str, to_name: str | None) -> Request:
    if not isinstance(alias, str) or not alias.strip():
        raise SpecError(f"alias must be a name such as 'champion', got {alias!r}")
    ref = resolve(context, model)
    recorded = version_record(context, ref.name, ref.version) if ref.name and ref.version else None
    if recorded is not None and ref.digest is None:
        ref = ModelRef.from_dict({**ref.to_dict(), "digest": recorded["ref"]["digest"]})
    if ref.digest is None:
        ref, _ = verified(context, ref)
    ref = with_origin(ref, recorded)
    name = to_name or ref.name
    if not name:
        raise SpecError(f"{ref.uri} is not registered: register it first, or give to_name to say what it is to become")
    reports = held.as_reports(evidence if evidence is not None else (recorded or {}).get("evidence"))
    identity = digests.hex_of(
        digests.of_json([context.key, ref.digest, name, alias, [report.get("digest") for report in reports]])
    )[:16]
    return Request(ref, str(name), alias, reports, identity)


def _request_key(context: StepContext, request: Request) -> str:
    return f"{context.report_folder('approval', request.identity)}/request.json"


def _check_asked(context: StepContext, request: Request, asked: str) -> None:
    """Refuse to ask another question than the one that this task instance asked first.

    Airflow keeps the text of a task instance's first question, also when the task is cleared: a person would be shown
    that text and approve something else.

    :raises ConflictError: if the model, the evidence or the champion has changed since.
    """
    key = f"{context.report_folder('approval asked')}/asked.json"
    context.store.put_json(key, {"schema": SCHEMA, "asked": asked, "subject": _subject(request)}, if_absent=True)
    first = context.store.get_json(key)
    if context.key and first["asked"] != asked:
        raise ConflictError(
            f"this run asked {first['subject']!r} before, and the model, its evidence or the champion has changed "
            "since: Airflow would show the first question again, and a person would approve what they have not seen. "
            "Start a new run"
        )


def _subject(request: Request) -> str:
    what = f"{request.ref.name} version {request.ref.version}" if request.ref.name else request.ref.uri
    return f"Release {what} as {request.name}@{request.alias}?"


def _verdict(
    context: StepContext, policy: Policy | None, request: Request, reports: list[dict[str, Any]]
) -> Verdict | None:
    if policy is None:
        return None
    flaw = None
    if not request.reports:
        flaw = "there is no evidence"
    elif doubtful := [report["kind"] for report in reports if report.get("severity") != "ok"]:
        flaw = f"the {doubtful[0].replace('_', ' ')} report has warnings"
    entries = Ledger(context.store, request.name).entries()
    refusals = [one for one in _records(context, request) if one["decision"] != APPROVED]
    return decide(policy, entries, refusals, name=request.name, alias=request.alias, flaw=flaw)


def _records(context: StepContext, request: Request) -> Iterator[dict[str, Any]]:
    """Yield the decisions about the target that were no approval; the names of the objects tell."""
    for key in context.store.keys(request.folder):
        if not key.endswith(f"-{APPROVED}.json"):
            record = context.store.get_json(key)
            if record["alias"] == request.alias:
                yield record


def _decided(context: StepContext, request: Request, attempt: int) -> dict[str, Any] | None:
    """Return the last decision of this request; one that refused holds only until a person asks again."""
    ours = [key for key in context.store.keys(request.folder) if f"-{request.identity}-" in key]
    if not ours:
        return None
    last: dict[str, Any] = context.store.get_json(max(ours))
    if last["decision"] == APPROVED or attempt <= last["attempt"]:
        return last
    context.log.info("%s at %s; the task was cleared since, so it is asked again", _sentence(last), last["at"])
    return None


def _keep(
    context: StepContext,
    request: Request,
    known: dict[str, Any],
    attempt: int,
    decision: str,
    by: str | None,
    by_id: str | None,
    at: str,
    reason: str | None,
) -> dict[str, Any]:
    record = {
        "schema": SCHEMA,
        "decision": decision,
        "by": by,
        "by_id": by_id,
        "at": at,
        "reason": (reason or "").strip()[:REASON_LIMIT] or None,
        "name": request.name,
        "alias": request.alias,
        "model": {"name": request.ref.name, "version": request.ref.version, "uri": request.ref.uri},
        "digest": request.ref.digest,
        "identity": request.identity,
        "attempt": attempt,
        "key": context.key,
        "run": context.run,
        "request": known,
    }
    stamp = parse_instant(at).strftime("%Y%m%dT%H%M%S%fZ")
    key = f"{request.folder}/{stamp}-{request.identity}-{decision}.json"
    context.store.put_json(key, record, if_absent=True)
    crash_point("approve.recorded")
    kept: dict[str, Any] = context.store.get_json(key)
    return kept


def _answer(context: StepContext, record: dict[str, Any]) -> dict[str, Any]:
    """Publish the report of a decision, the same each time, and return it as the answer to a request."""
    approved = record["decision"] == APPROVED
    report = Report(
        report="approval",
        passed=approved,
        severity="ok" if approved else "error",
        summary=_sentence(record),
        subject=record["digest"],
        checks={"total": 1, "failed": 0 if approved else 1},
        created_at=record["at"],
    )
    known = record["request"]
    details = {
        "schema": SCHEMA,
        "kind": "approval",
        **{key: record[key] for key in ("decision", "by", "by_id", "at", "reason", "name", "alias", "model")},
        "champion": {"alias": known["champion"]["alias"], "version": known["champion"]["version"]},
        "request": known,
    }
    published = publish(
        context,
        report,
        details=details,
        template="approval.html",
        identity=["approval", record["identity"]],
        title=f"Approval: {record['name']}@{record['alias']}",
    )
    told = {key: record[key] for key in ("decision", "by", "at", "reason")}
    version = {"name": record["model"]["name"], "version": record["model"]["version"]}
    return {"schema": SCHEMA, "kind": "approval_request", "decision": {**published, **told, **version}}


def _sentence(record: dict[str, Any]) -> str:
    verdict = record["request"].get("policy") or {}
    what = _what(record)
    if record["decision"] == APPROVED and verdict.get("approved"):
        return f"{what}: {verdict['sentence']}"
    if record["decision"] == EXPIRED:
        return f"{what}: nobody answered in time."
    why = f": {record['reason'].rstrip('.')}" if record["reason"] else ", without a reason"
    return f"{what}: {record['decision']} by {record['by'] or 'somebody'}{why}."


def _what(record: dict[str, Any]) -> str:
    model = record["model"]
    what = f"{model['name']} version {model['version']}" if model["name"] else model["uri"]
    return f"{what} as {record['name']}@{record['alias']}"


def _name(version: Any) -> str:
    return "no version" if version is None else f"version {version}"
