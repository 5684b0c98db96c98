"""promote_model: move an alias to a version, on evidence, through the ledger."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.drift.binding import attempt_binding, bind
from airflow_mlops.core.errors import ConflictError, NotFoundError, SpecError
from airflow_mlops.core.registry import evidence as held
from airflow_mlops.core.registry import verdict
from airflow_mlops.core.registry.card import attempt_card, check_about
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.registry.moves import UNSET, Expected, Move, carry_out
from airflow_mlops.core.registry.register import version_of
from airflow_mlops.core.registry.versions import RegisteredModel, resolve, verified, version_record
from airflow_mlops.core.vocabulary import ModelRef, optional_instant

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

__all__ = ["UNSET", "promote_model"]


def promote_model(
    context: StepContext,
    *,
    model: Any,
    alias: str = "champion",
    to_name: str | None = None,
    evidence: Any = None,
    expected_champion: Any = UNSET,
    reason: str | None = None,
    by: str | None = None,
    card: dict[str, Any] | None = None,
    reference: Any = None,
    clock: str | None = None,
    refuse: str = "raise",
) -> dict[str, Any]:
    """Point an alias at a version, if the evidence allows it and nobody else was first.

    :param model: ref or URI of a registered version; with ``to_name`` also of a model that is only logged.
    :param alias: the alias to move.
    :param to_name: another registered name to promote to, such as ``churn_production``; the version is made there
        of the same files.
    :param evidence: reports that must have passed and speak of this model. None: those that were registered with the
        version. An empty list: none, which the entry then says.
    :param expected_champion: the version that the alias must have now; None or ``"none"``: it must not exist.
        ``"unset"``: the version that the evidence was measured against, else what stands when this begins.
    :param reason: why, for the ledger; default: the reason of the approval among the evidence, else the one that the
        version was registered with.
    :param by: who, for the ledger; default: who approved it, else the user who triggered the run.
    :param card: what the model card is to say beside what is on record, such as ``{"intended_use": ...}``.
    :param reference: the dataset that drift of what the version sees is held against; default: the data that it was
        trained on, where that is in the store.
    :param clock: when this takes place in the time of the data, ISO 8601: its probation begins then. Default: now.
    :param refuse: what happens if a report did not pass, or was measured against a version that serves no more:
        ``raise``, or ``return`` ``{"kind": "refusal", ...}``.
    :return: the ledger entry, with ``card_uri``, the page of the model card, where a DAG has promoted.
    :raises GateFailedError: if a report did not pass; the version's record then says why.
    :raises ConflictError: if the evidence speaks of another model, or the alias is not where it is expected.
    :raises SupersededError: if this task promoted before, and a later entry stands.
    :raises IntegrityError: if the model's files or a report's details are not those on record.
    """
    if not isinstance(alias, str) or not alias.strip():
        raise SpecError(f"alias must be a name such as 'champion', got {alias!r}")
    expected = read_expected(expected_champion)
    check_about(card)
    at = read_clock(clock)
    ref, manifest = verified(context, resolve(context, model))
    recorded = version_record(context, ref.name, ref.version) if ref.name and ref.version else None
    waived = evidence is not None and not evidence
    reports = held.as_reports(evidence if evidence is not None else (recorded or {}).get("evidence"))
    refused = verdict.refusal(reports)
    if refused is not None and ref.version is not None:
        _note(context, ref, refused, reports)
    if refused is not None and refuse == "return":
        return _refusal(context, ref, refused, card)
    proofs = held.check(context, reports, with_origin(ref, recorded))

    registered, version = _target(context, ref, manifest, to_name, reports)
    ledger = Ledger(context.store, registered.name)
    ledger.bind(registered)
    if expected == UNSET:
        expected = held.expected_champion(proofs, registered.name, alias)
    approval = held.approval(proofs, registered.name, alias)
    move = Move(
        action="promote",
        alias=alias,
        version=version,
        digest=ref.digest,
        expected=expected,
        key=context.key,
        by=by or approval.get("by") or context.run.get("triggered_by"),
        reason=reason or approval.get("reason") or (recorded or {}).get("reason"),
        evidence=[proof.summary() for proof in proofs],
        evidence_waived=waived,
        run=context.run or None,
        clock=at,
    )
    if reference not in (None, "", {}):
        # Before the alias moves: what serves has a reference at every instant.
        bind(context, registered.name, version, reference)
    try:
        entry = carry_out(ledger, registered, move, context.log)
    except ConflictError as error:
        # The alias moved after the test: not shown to be better than what serves now, so it is refused like any other.
        if refuse != "return" or "expected" not in error.fields:
            raise
        if ref.name and ref.version is not None:
            verdict.note(context, RegisteredModel(context, ref.name), ref.version, error.message, reports)
        return _refusal(context, ref, error.message, card)
    if (recorded or {}).get("refused") and proofs:
        _note(context, ref, None, reports)
    attempt_binding(context, registered.name, version)
    context.log.info("%s", entry)
    page = attempt_card(context, registered.name, version, card)
    return {**entry.to_ledger_entry().to_dict(), "card_uri": page}


def _refusal(context: StepContext, ref: ModelRef, why: str, card: Any) -> dict[str, Any]:
    """Say that a version is not promoted, and return that, with its card where it has a record."""
    context.log.warning("%s is not promoted: %s", ref.uri, why)
    page = None
    if ref.name and ref.version is not None and version_record(context, ref.name, ref.version):
        page = attempt_card(context, ref.name, ref.version, card)
    return {
        **{"kind": "refusal", "model": ref.name or ref.uri, "version": ref.version},
        **{"reason": why, "card_uri": page},
    }


def _note(context: StepContext, ref: ModelRef, refused: str | None, reports: list[dict[str, Any]]) -> None:
    """Keep with a version why it is refused, unless what says so is about another model."""
    about = [one for one in reports if one.get("kind") != "model_test" or one.get("subject") == ref.digest]
    if ref.name and ref.version is not None and verdict.refusal(about) == refused:
        verdict.note(context, RegisteredModel(context, ref.name), ref.version, refused, reports)


def read_clock(value: Any) -> str | None:
    """Return an instant as a user or a template writes it, in UTC; None for none.

    :raises SpecError: if it is no instant.
    """
    found = optional_instant(value, "clock")
    return found.isoformat() if found else None


def read_expected(value: Any) -> Expected:
    """Return an expected version from what a user or a template writes: ``3``, ``"3"``, ``None``, ``"none"``.

    :raises SpecError: for anything else.
    """
    text = str(value).strip().lower()
    if value is None or text in ("none", "null"):
        return None
    if text in (UNSET, ""):
        return UNSET
    if not text.isdigit():
        raise SpecError(f"expected_champion must be a version number, 'none' or 'unset', got {value!r}")
    return int(text)


def with_origin(ref: ModelRef, recorded: dict[str, Any] | None) -> ModelRef:
    """Return the ref completed by what was registered with the version: the data that it was made from."""
    if recorded is None:
        return ref
    known = ModelRef.from_dict(recorded["ref"])
    return dataclasses.replace(
        ref, training=ref.training or known.training, test_dataset=ref.test_dataset or known.test_dataset
    )


def _target(
    context: StepContext,
    ref: ModelRef,
    manifest: dict[str, str],
    to_name: str | None,
    reports: list[dict[str, Any]],
) -> tuple[RegisteredModel, int]:
    """Return the registered model and version to point at; under another name the version is made of the same files."""
    if to_name and to_name != ref.name:
        target = RegisteredModel(context, to_name)
        target.create()
        Ledger(context.store, to_name).bind(target)
        source = [ref.name, ref.version] if ref.name else [ref.uri]
        origin = {"promoted_from": f"{ref.name}/{ref.version}" if ref.name else ref.uri}
        number = version_of(
            context, target, ref, manifest, identity=["promoted", *source], tags=origin, evidence=reports
        )
        return target, number
    if not ref.name or ref.version is None:
        raise SpecError(f"{ref.uri} is not registered: register it first, or give to_name to register it under")
    registered = RegisteredModel(context, ref.name)
    if registered.version(ref.version) is None:
        raise NotFoundError(f"{ref.name!r} has no version {ref.version} in MLflow", model=ref.name, version=ref.version)
    return registered, ref.version
