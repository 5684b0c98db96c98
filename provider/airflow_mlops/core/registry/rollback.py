"""rollback_model: move an alias back to a version that it had, through the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import ConflictError, NotFoundError, SpecError, SupersededError
from airflow_mlops.core.registry import regression
from airflow_mlops.core.registry.evidence import as_reports
from airflow_mlops.core.registry.ledger import Entry, Ledger
from airflow_mlops.core.registry.moves import Expected, Move, carry_out, catch_up
from airflow_mlops.core.registry.promote import read_clock
from airflow_mlops.core.registry.releases import releases
from airflow_mlops.core.registry.versions import RegisteredModel, resolve, verified

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext


def rollback_model(
    context: StepContext,
    *,
    model_name: str,
    alias: str = "champion",
    to_version: Any = None,
    reason: str | None = None,
    by: str | None = None,
    evidence: Any = None,
    clock: str | None = None,
) -> dict[str, Any]:
    """Point an alias at a version that it had before; what it had since stays on record.

    Without a version it goes one release back: what was itself rolled back is passed over, so a second rollback goes
    further back and never forth. The version that is left must still be there when the alias moves: a rollback does
    not undo a promotion that came in meanwhile.

    With evidence it goes back only if a test of the kind ``previous`` showed that the version before is better, or
    answers where this one does not, to that version, and only while the release that was judged still serves.

    :param model_name: name in the registry.
    :param alias: the alias to move.
    :param to_version: a version that the alias had; None: the one before the present one.
    :param reason: why, for the ledger.
    :param by: who, for the ledger; default: the user who triggered the run.
    :param evidence: a report of ``evaluate_model``, or several.
    :param clock: when this takes place in the time of the data, ISO 8601; default: now.
    :return: the ledger entry, or, of evidence that asks for none, ``{"kind": "no_rollback", "reason", ...}``.
    :raises NotFoundError: if there is nothing to go back to.
    :raises ConflictError: if the alias is there already, or moves meanwhile.
    :raises SupersededError: if this task rolled back before, and a later entry stands.
    :raises IntegrityError: if the version's files are not those on record.
    """
    if not isinstance(alias, str) or not alias.strip():
        raise SpecError(f"alias must be a name such as 'champion', got {alias!r}")
    wanted = read_version(to_version)
    registered, ledger = RegisteredModel(context, model_name), Ledger(context.store, model_name)
    at = read_clock(clock)
    asked: regression.Regression | None = None
    if evidence is not None:
        told = regression.asked(context, as_reports(evidence), f"{model_name}@{alias}")
        if isinstance(told, str):
            return _nothing(context, model_name, alias, told)
        asked, wanted = told, told.to_version
    ledger.bind(registered, begin=False)
    entries = catch_up(ledger, registered, alias, context.key, context.log)
    own = _own(entries, context.key, alias, wanted)
    if asked is not None and (own is None or own[1] != asked.version):
        own = None
        if later := asked.superseded(entries, alias):
            return _nothing(context, model_name, alias, later)
    target, leaving = own or _target(registered, entries, alias, wanted, context)
    ref, _ = verified(context, resolve(context, f"models:/{model_name}/{target}"))
    move = Move(
        action="rollback",
        alias=alias,
        version=target,
        digest=ref.digest,
        expected=leaving,
        key=context.key,
        by=by or context.run.get("triggered_by"),
        reason=reason or (asked.reason if asked else None),
        evidence=asked.evidence if asked else [],
        run=context.run or None,
        clock=at or (asked.clock if asked else None),
    )
    try:
        entry = carry_out(ledger, registered, move, context.log)
    except ConflictError as error:
        later = asked.superseded(ledger.entries(), alias) if asked and not isinstance(error, SupersededError) else None
        if later is None:
            raise
        return _nothing(context, model_name, alias, later)
    context.log.info("%s", entry)
    return entry.to_ledger_entry().to_dict()


def _nothing(context: StepContext, model_name: str, alias: str, why: str) -> dict[str, Any]:
    context.log.info("%s@%s stays: %s", model_name, alias, why)
    return {"kind": "no_rollback", "model": model_name, "alias": alias, "reason": why}


def read_version(value: Any) -> int | None:
    """Return a version from what a user or a template writes: ``3``, ``"3"``; None for none.

    :raises SpecError: for anything else.
    """
    text = str(value).strip().lower()
    if value is None or text in ("", "none", "null"):
        return None
    if not text.isdigit():
        raise SpecError(f"to_version must be a version number, got {value!r}")
    return int(text)


def _own(entries: list[Entry], key: str, alias: str, wanted: int | None) -> tuple[int, Expected] | None:
    """Return what an earlier try of this task went back to, and from where: the retry must not go back once more."""
    for entry in reversed(entries):
        if entry.is_by(key) and entry.alias == alias and entry.state != "void":
            if entry.intent["action"] == "rollback" and wanted in (None, entry.version) and entry.version is not None:
                return entry.version, entry.intent["expected"]
            return None
    return None


def _target(
    registered: RegisteredModel, entries: list[Entry], alias: str, wanted: int | None, context: StepContext
) -> tuple[int, Expected]:
    stack = releases(entries, alias)
    present = stack[-1] if stack else None
    if wanted is not None:
        return _checked(registered, entries, alias, wanted, present), present
    for version in reversed(stack[:-1]):
        if version is None or version == present:
            continue
        if registered.version(version) is None:
            context.log.warning("version %d of %r was deleted in MLflow; going further back", version, registered.name)
            continue
        return version, present
    now = f"version {present}" if present is not None else "no version"
    raise NotFoundError(
        f"{alias!r} of {registered.name!r} has {now} now, and the ledger knows of no release before it that is still "
        "there: nothing to roll back to. Name a version with to_version, or promote one",
        model=registered.name,
        alias=alias,
    )


def _checked(registered: RegisteredModel, entries: list[Entry], alias: str, wanted: int, present: int | None) -> int:
    moved = [entry for entry in entries if entry.done and entry.alias == alias]
    had = sorted({one for entry in moved for one in (entry.version, entry.previous) if one is not None})
    if wanted == present:
        raise ConflictError(
            f"{alias!r} of {registered.name!r} has version {wanted} already: nothing to roll back",
            model=registered.name,
            found=present,
        )
    if wanted not in had:
        raise NotFoundError(
            f"{alias!r} of {registered.name!r} never had version {wanted}, only {had or 'none'}: a rollback goes back "
            "to what served. To release another version, promote it",
            model=registered.name,
            version=wanted,
        )
    if registered.version(wanted) is None:
        raise NotFoundError(f"version {wanted} of {registered.name!r} was deleted in MLflow", version=wanted)
    return wanted
