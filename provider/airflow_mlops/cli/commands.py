"""What ``airflow mlops status | history | promote | rollback | archive | card`` do. Imported when one of them runs."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from airflow_mlops.cli.session import command, note, session, show, user
from airflow_mlops.core.alerts.listing import incident_history
from airflow_mlops.core.errors import NotFoundError
from airflow_mlops.core.registry import overview
from airflow_mlops.core.registry.archive import archive_models
from airflow_mlops.core.registry.card import publish_card
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.rollback import rollback_model
from airflow_mlops.core.registry.versions import RegisteredModel

#: Characters that a table shows of a sentence.
WIDTH = 120
#: Columns of a table; json and yaml have what stands behind them too.
_HISTORY = ("entry", "at", "action", "alias", "version", "previous", "by", "reason", "evidence", "run")
_INCIDENTS = ("at", "incident", "event", "severity", "since", "windows", "summary", "told")
_ENTRY = ("seq", "model", "alias", "version", "previous_version", "by", "reason", "at")


@command
def status(args: argparse.Namespace) -> None:
    """Show which version each alias points at, whether the ledger agrees, how the model does, and open incidents."""
    with session(args) as context:
        rows = overview.status(context, args.name)
    if args.output not in ("json", "yaml"):
        rows = [{key: value for key, value in row.items() if key != "series"} for row in rows]
        for row in rows:
            row["refused"] = row["refused"] and textwrap.shorten(row["refused"], WIDTH, placeholder=" ...")
    show(rows, args.output)


@command
def history(args: argparse.Namespace) -> None:
    """Show every entry of a model's ledger, the figures of its windows, or every incident about it."""
    if args.metric or args.series or args.since:
        _figures(args)
        return
    with session(args) as context:
        rows = incident_history(context, args.name) if args.incidents else overview.history(context, args.name)
    if args.output not in ("json", "yaml"):
        rows = [{key: row[key] for key in (_INCIDENTS if args.incidents else _HISTORY)} for row in rows]
    show(rows, args.output)


@command
def adopt(args: argparse.Namespace) -> None:
    """Put a version of somebody else's on record, with its level and its reference."""
    from airflow_mlops.core.registry.adopt_version import adopt_model, parse_baseline

    with session(args) as context:
        ref = adopt_model(
            context,
            model=f"models:/{args.name}/{args.version}",
            reference=args.reference,
            baseline=parse_baseline(args.baseline or []),
        )
    if args.output not in ("json", "yaml"):
        ref = {key: ref[key] for key in ("name", "version", "digest", "baseline")}
    show([ref], args.output)


def _figures(args: argparse.Namespace) -> None:
    with session(args) as context:
        rows = overview.figures(context, args.name, metric=args.metric, kind=args.series, since=args.since)
    if args.output not in ("json", "yaml"):
        hidden = {"figures", "facts", "report_uri"} | ({"summary"} if args.metric else set())
        rows = [{key: value for key, value in row.items() if key not in hidden} for row in rows]
    show(rows, args.output)


@command
def promote(args: argparse.Namespace) -> None:
    """Point an alias at a version, on the evidence that was registered with it."""
    with session(args) as context:
        entry = promote_model(
            context,
            model=f"models:/{args.name}/{args.version}",
            alias=args.alias,
            to_name=args.to_name,
            evidence=[] if args.without_evidence else None,
            expected_champion=args.expected_champion,
            reason=args.reason,
            by=args.by or user(),
            clock=args.clock,
        )
    _show_entry(entry, args.output)


def _show_entry(entry: dict[str, Any], output: str) -> None:
    show([entry] if output in ("json", "yaml") else [{key: entry[key] for key in _ENTRY}], output)


@command
def rollback(args: argparse.Namespace) -> None:
    """Point an alias back at the version before, or at one that it had."""
    with session(args) as context:
        entry = rollback_model(
            context,
            model_name=args.name,
            alias=args.alias,
            to_version=args.to_version,
            reason=args.reason,
            by=args.by or user(),
        )
    _show_entry(entry, args.output)


@command
def archive(args: argparse.Namespace) -> None:
    """Show or archive the old versions that nothing needs."""
    with session(args) as context:
        done = archive_models(
            context,
            model_name=args.name,
            keep=args.keep,
            keep_rollback=args.keep_rollback,
            delete_files=args.delete_files,
            dry_run=not args.archive,
            reason=args.reason,
            by=args.by or user(),
        )
    if args.output in ("json", "yaml"):
        show([done], args.output)
        return
    goes = "archived" if args.archive else "would be archived"
    rows = [
        {"version": n, "what": goes, "files": "deleted" if n in done["files"] else "stay"} for n in done["versions"]
    ]
    rows += [{"version": int(number), "what": f"stays: {why}", "files": "stay"} for number, why in done["kept"].items()]
    show(sorted(rows, key=lambda row: int(row["version"])), args.output)
    if not args.archive:
        note("Dry run: nothing was changed. Add --archive to archive.")


@command
def card(args: argparse.Namespace) -> None:
    """Make the model card of a version anew, and print it as Markdown."""
    with session(args) as context:
        version = args.version
        if version is None:
            version = RegisteredModel(context, args.name).alias(args.alias)
            if version is None:
                raise NotFoundError(f"{args.name!r} has no alias {args.alias!r}: name a version")
        found = publish_card(context, args.name, version)
        print(context.store.get_bytes(context.store.key_of(found["markdown"]) or "").decode(), end="")
    note(f"Page: {found['html']}")
