"""What ``airflow mlops reap`` does. Imported when it runs."""

from __future__ import annotations

import argparse
import datetime as dt
from typing import Any

from airflow_mlops.cli.session import command, note, show
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import parse_duration
from airflow_mlops.runtimes.docker_engine import engine_of
from airflow_mlops.runtimes.docker_leftovers import StepContainer, remove, step_containers


@command
def reap(args: argparse.Namespace) -> None:
    """Show or remove the containers of steps that nobody will come back for."""
    try:
        grace = parse_duration(args.grace)
    except SpecError as error:
        raise SpecError(f"--grace: {error.message}") from None
    engine = engine_of(args.docker_conn_id)
    client = engine.client()
    try:
        now = dt.datetime.now(dt.timezone.utc)
        found = step_containers(engine, client, args.dag)
        spared = [one.spared(grace, running=args.running, kept=args.kept, now=now) for one in found]
        doomed = [one for one, why in zip(found, spared, strict=True) if why is None]
        if args.delete:
            for one in doomed:
                remove(engine, client, one)
    finally:
        client.close()
    verdict = "removed" if args.delete else "would be removed"
    show([_row(one, why or verdict, now) for one, why in zip(found, spared, strict=True)], args.output)
    if args.delete:
        note(f"Removed {len(doomed)} of {len(found)} containers of steps on {engine.name}")
    else:
        note(
            f"Dry run: {len(doomed)} of {len(found)} containers of steps on {engine.name} would be removed. "
            "Add --delete to remove them."
        )


def _row(one: StepContainer, verdict: str, now: dt.datetime) -> dict[str, Any]:
    task = {name: one.labels.get(name, "") for name in ("dag", "run", "task", "map_index")}
    hours = round((now - one.since).total_seconds() / 3600, 1)
    return {"container": one.name, **task, "state": one.state, "hours": hours, "verdict": verdict}
