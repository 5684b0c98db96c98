"""What ``airflow mlops calibrate`` does. Imported when it runs."""

from __future__ import annotations

import argparse

from airflow_mlops.cli.session import command, note, session, show
from airflow_mlops.core.data.dataset import resolve
from airflow_mlops.core.drift.calibrate import calibrate as replay
from airflow_mlops.core.drift.reading import open_dataset
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import parse_duration


@command
def calibrate(args: argparse.Namespace) -> None:
    """Show what each sensitivity of learnt thresholds would have cost on data of the past."""
    k, _, n = args.windows.partition("of")
    if not (k.strip().isdigit() and n.strip().isdigit()):
        raise SpecError(f"--windows is like '3of3': k of the last n windows, got {args.windows!r}")
    with session(args) as context:
        roles = {"time": args.time, **({"key": args.key} if args.key else {})}
        data = open_dataset(context.store, resolve(context.store, args.data, roles=roles))
        costs = replay(
            data,
            length=parse_duration(args.length),
            reference=args.reference,
            columns=args.columns,
            k=int(k),
            n=int(n),
            cooldown=parse_duration(args.cooldown),
        )
    rows = [
        {
            "sensitivity": cost.sensitivity,
            "windows": cost.windows,
            "alarms": cost.alarms,
            "incidents": cost.incidents,
            "incidents_a_year": round(cost.a_year(cost.incidents), 1),
            "retrainings_a_year": round(cost.a_year(cost.retrainings), 1),
            "columns": ", ".join(f"{name} {count}" for name, count in cost.worst.items()),
        }
        for cost in costs
    ]
    show(rows, args.output)
    note(f"{args.name}: learnt from the first {args.reference} windows of {args.length}, judged on the others")
