"""What ``airflow mlops gc | erase`` do. Imported when one of them runs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from airflow_mlops.cli.session import command, note, session, show, user
from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.lifecycle import erase as erasing
from airflow_mlops.core.lifecycle import gc as collecting
from airflow_mlops.core.vocabulary import parse_duration

#: Columns of a table; the other forms of output have everything.
_ERASED = ("datasets", "digest", "columns", "rows")
_MODELS = ("model", "uri", "trained", "tested", "input_example", "aliases")


def _duration(text: str, option: str) -> Any:
    try:
        return parse_duration(text)
    except SpecError as error:
        raise SpecError(f"{option}: {error.message}") from None


@command
def gc(args: argparse.Namespace) -> None:
    """Show or delete what nothing in the store needs."""
    limits = collecting.limits_of(
        grace=_duration(args.grace, "--grace"),
        retention=_duration(args.retention, "--retention"),
        keep_rollback=args.keep_rollback,
    )
    with session(args) as context:
        if args.delete:
            _show_collected(collecting.collect(context, limits, by=args.by or user()), args.output)
        else:
            _show_plan(collecting.plan(context, limits), args)


def _show_plan(plan: collecting.Plan, args: argparse.Namespace) -> None:
    if args.output in ("json", "yaml"):
        whole = {
            "dry_run": True,
            "summary": plan.summary(),
            "garbage": [one.to_dict() for one in plan.garbage],
            "staging": [{"name": name, "bytes": size} for name, size in plan.staging],
            "kept_objects": plan.kept,
            "versions_not_needed": plan.unneeded,
            "notes": plan.notes,
        }
        show([whole], args.output)
        return
    rows = plan.summary()
    if args.list:
        rows = [{"kind": g.kind, "key": g.keys[0], "bytes": g.size, "age_days": g.age.days} for g in plan.garbage]
    show(rows, args.output)
    for row in plan.unneeded:
        note(f"MLflow has {row['model']} version {row['version']} of {row['since'][:10]}, which no alias needs")
    for text in plan.notes:
        note(text)
    size = sum(row["bytes"] for row in plan.summary())
    note(f"Dry run: nothing was deleted. {size:,} bytes would be; {plan.kept:,} objects stay. Add --delete to delete.")


def _show_collected(record: dict[str, Any], output: str) -> None:
    if output in ("json", "yaml"):
        show([record], output)
        return
    rows: dict[str, dict[str, Any]] = {}
    for one in (
        *record["deleted"],
        *({**left, "kind": "staging", "keys": [left["name"]]} for left in record["staging"]),
    ):
        row = rows.setdefault(one["kind"], {"kind": one["kind"], "count": 0, "objects": 0, "bytes": 0})
        row["count"] += 1
        row["objects"] += len(one["keys"])
        row["bytes"] += one["bytes"]
    show(list(rows.values()), output)
    if record["restored"]:
        note(f"{len(record['restored'])} objects came into use meanwhile and were put back")
    note(f"Deleted {sum(row['bytes'] for row in rows.values()):,} bytes. Record: {record['id']}")


@command
def erase(args: argparse.Namespace) -> None:
    """Show or erase the rows of a person in every stored dataset."""
    subject = erasing.Subject(_keys(args), args.column)
    with session(args) as context:
        if args.delete:
            found = erasing.erase(context, subject, by=args.by or user(), reason=args.reason)
        else:
            found = erasing.preview(context, subject)
    if args.output in ("json", "yaml"):
        show([found], args.output)
    else:
        _show_erasure(found, args.output)
    if found["unsearched"]:
        # What nobody looked into may still have the person's rows.
        raise MlopsError(
            f"{len(found['unsearched'])} contents could not be searched, for example "
            f"{', '.join(found['unsearched'][0]['datasets']) or found['unsearched'][0]['digest']}: "
            f"{found['unsearched'][0]['why']}"
        )


def _keys(args: argparse.Namespace) -> tuple[str, ...]:
    if (args.key is None) == (args.keys_file is None):
        raise SpecError("give either --key or --keys-file")
    if args.key is not None:
        return tuple(args.key)
    try:
        if args.keys_file == "-":
            text = sys.stdin.read()
        else:
            with open(args.keys_file, encoding="utf-8-sig") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SpecError(f"the file of keys {args.keys_file} cannot be read: {why}") from None
    keys = tuple(line for line in text.splitlines() if line)
    if not keys:
        raise SpecError(f"the file of keys {args.keys_file} has no key: one on each line")
    return keys


def _show_erasure(found: dict[str, Any], output: str) -> None:
    done = found["state"] == "done"
    columns = ("kind", "old", "new", "rows_removed", "rows") if done else _ERASED
    show([{key: _text(row[key]) for key in columns} for row in found["objects"]], output)
    for row in found["models"]:
        known = {key: _text(row.get(key)) for key in _MODELS}
        what = " and ".join(word for word, is_so in (("trained", row["trained"]), ("tested", row["tested"])) if is_so)
        example = "; its input example holds rows" if row["input_example"] else ""
        aliases = f" ({known['aliases']})" if row["aliases"] else ""
        note(f"{row['model'] or row['uri']}{aliases} was {what} on data that had the rows{example}: decide to retrain")
    for uri in found["reports"]:
        note(f"{uri} has the key in its text: look at it, and delete it if it shows the person's data")
    if done:
        note(f"Erased {found['rows']:,} rows. Record: {found['id']}")
    else:
        note(f"Dry run: nothing was erased. {found['rows']:,} rows would be. Add --delete to erase them.")


def _text(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
