"""archive_models: old versions that nothing needs are marked as such, and their files deleted if wanted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.registry.anchor import anchor_versions
from airflow_mlops.core.registry.ledger import Entry, Ledger, rollback_targets
from airflow_mlops.core.registry.moves import Move, carry_out, catch_up
from airflow_mlops.core.registry.versions import ARCHIVED_TAG, RegisteredModel
from airflow_mlops.core.vocabulary import SCHEMA

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: An archival is of versions, not of an alias.
NO_ALIAS = ""


@dataclass(frozen=True)
class Plan:
    """What an archival would do.

    :param versions: what goes, with why nothing needs it.
    :param kept: what stays, with why.
    :param files: where the files of a version are that go too; those that another version shares stay.
    """

    versions: list[int]
    kept: dict[int, str]
    files: dict[str, str]


def archive_models(
    context: StepContext,
    *,
    model_name: str,
    keep: Any = 10,
    keep_rollback: Any = None,
    delete_files: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
    by: str | None = None,
) -> dict[str, Any]:
    """Archive the versions of a model that are neither new, nor aliased, nor what an alias can be rolled back to.

    :param model_name: name in the registry.
    :param keep: how many of the newest versions stay in any case.
    :param keep_rollback: how many versions each alias can be rolled back to; None: all that it ever had.
    :param delete_files: delete the files of what is archived as well; it can then never serve again.
    :param dry_run: change nothing, and say what would be done.
    :param reason: why, for the ledger.
    :param by: who, for the ledger; default: the user who triggered the run.
    :return: ``{"kind": "archive", "model", "dry_run", "versions", "files", "kept", "entry"}``; ``entry`` is None where
        there was nothing to archive.
    """
    newest, reach = _count(keep, "keep"), None if keep_rollback is None else _count(keep_rollback, "keep_rollback")
    registered, ledger = RegisteredModel(context, model_name), Ledger(context.store, model_name)
    ledger.bind(registered, begin=not dry_run)
    if dry_run:
        return _result(model_name, _plan(registered, ledger.entries(), newest, reach, delete_files), None, True)
    entries = catch_up(ledger, registered, NO_ALIAS, context.key, context.log)
    own = next((one for one in reversed(entries) if one.is_by(context.key) and _archives(one)), None)
    plan = _of(own) if own is not None else _plan(registered, entries, newest, reach, delete_files)
    if own is not None and own.done:
        context.log.info("%s was made by this task and stands; nothing is done again", own)
        return _result(model_name, plan, own, False)
    if not plan.versions:
        context.log.info("nothing to archive of %r", model_name)
        return _result(model_name, plan, None, False)
    move = Move(
        action="archive",
        alias=NO_ALIAS,
        version=None,
        key=context.key,
        by=by or context.run.get("triggered_by"),
        reason=reason or None,
        run=context.run or None,
        archived={"versions": plan.versions, "files": plan.files, "keep_rollback": reach},
    )
    entry = carry_out(ledger, registered, move, context.log)
    context.log.info("%s", entry)
    return _result(model_name, plan, entry, False)


def _archives(entry: Entry) -> bool:
    return bool(entry.intent.get("archived")) and entry.state != "void"


def _of(entry: Entry) -> Plan:
    archived = entry.intent["archived"]
    return Plan(list(archived["versions"]), {}, dict(archived["files"]))


def _count(value: Any, name: str) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value).strip()):
        raise SpecError(f"{name} must be a number of versions, 0 or more, got {value!r}")
    return int(str(value))


def _plan(registered: RegisteredModel, entries: list[Entry], keep: int, reach: int | None, delete_files: bool) -> Plan:
    standing = {int(one.version): one for one in registered.versions()}
    aliases: dict[int, str] = {}
    for alias, number in registered.aliases().items():
        aliases.setdefault(number, alias)
    targets, anchored = rollback_targets(entries, reach), anchor_versions(entries)
    newest = set(sorted(standing)[-keep:] if keep else [])
    kept: dict[int, str] = {}
    for number, version in standing.items():
        if ARCHIVED_TAG in (version.tags or {}):
            continue
        if number in aliases:
            kept[number] = f"is {aliases[number]!r}"
        elif number in targets:
            kept[number] = "can be rolled back to"
        elif number in anchored:
            kept[number] = "is an anchor"
        elif number in newest:
            kept[number] = f"among the newest {keep}"
    going = sorted(n for n, version in standing.items() if n not in kept and ARCHIVED_TAG not in (version.tags or {}))
    files = _files(registered, [standing[number] for number in going]) if delete_files and going else {}
    return Plan(going, dict(sorted(kept.items())), files)


def _files(registered: RegisteredModel, going: list[Any]) -> dict[str, str]:
    """Return where the files of versions are, but for those that a version which stays shares, under any name."""
    leaving = {(one.name, int(one.version)) for one in going}
    shared = {
        source
        for one in registered.all_versions()
        if (one.name, int(one.version)) not in leaving
        for source in (one.source, models.model_id_of(one))
        if source
    }
    return {
        str(one.version): registered.location(one)
        for one in going
        if one.source not in shared and models.model_id_of(one) not in shared
    }


def _result(name: str, plan: Plan, entry: Entry | None, dry_run: bool) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": "archive",
        "model": name,
        "dry_run": dry_run,
        "versions": plan.versions,
        "files": sorted(int(number) for number in plan.files),
        "kept": {str(number): why for number, why in plan.kept.items()},
        "entry": entry.to_ledger_entry().to_dict() if entry else None,
    }
