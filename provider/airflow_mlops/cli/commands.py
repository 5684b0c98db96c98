"""What ``airflow mlops status | history | promote`` do. Imported when one of them runs."""

from __future__ import annotations

import argparse

from airflow_mlops.cli.session import command, session, show, user
from airflow_mlops.core.registry import overview
from airflow_mlops.core.registry.promote import promote_model


@command
def status(args: argparse.Namespace) -> None:
    """Show which version each alias points at, and whether the ledger agrees."""
    with session(args) as context:
        show(overview.status(context, args.name), args.output)


@command
def history(args: argparse.Namespace) -> None:
    """Show every entry of a model's ledger."""
    with session(args) as context:
        rows = overview.history(context, args.name)
    if args.output == "table":
        # The state stands in the reason already; a table has no room for it twice.
        rows = [{key: value for key, value in row.items() if key != "state"} for row in rows]
    show(rows, args.output)


@command
def promote(args: argparse.Namespace) -> None:
    """Point an alias at a version, on the evidence that was registered with it."""
    with session(args) as context:
        entry = promote_model(
            context,
            model=f"models:/{args.name}/{args.version}",
            alias=args.alias,
            evidence=[] if args.without_evidence else None,
            expected_champion=args.expected_champion,
            reason=args.reason,
            by=args.by or user(),
        )
    if args.output in ("json", "yaml"):
        show([entry], args.output)
        return
    keys = ("seq", "model", "alias", "version", "previous_version", "by", "reason", "at")
    show([{key: entry[key] for key in keys}], args.output)
