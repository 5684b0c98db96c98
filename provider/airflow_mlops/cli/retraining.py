"""What ``airflow mlops decide | reproduce`` do. Imported when one of them runs."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from airflow_mlops.cli.session import command, note, session, show
from airflow_mlops.core.errors import NotFoundError, SpecError
from airflow_mlops.core.policy import record
from airflow_mlops.core.policy.memory import Memory
from airflow_mlops.core.policy.record import Decisions
from airflow_mlops.core.policy.rules import Policy
from airflow_mlops.core.policy.step import decided, replayed


@command
def decide(args: argparse.Namespace) -> None:
    """Show the decisions about a model, or make them again from what they were made of."""
    policy = _policy(args.policy)
    with session(args) as context:
        decisions = Decisions(context.store, args.name)
        numbers = decisions.numbers()
        if not numbers:
            known = ", ".join(record.names(context.store)) or "nothing"
            raise NotFoundError(f"there are no decisions about {args.name!r}; there are some about: {known}")
        wanted = numbers if args.number is None else [args.number]
        if args.number is not None and args.number not in numbers:
            raise NotFoundError(f"there is no decision {args.number} about {args.name!r}; the last is {numbers[-1]}")
        if policy is not None:
            rows = _otherwise(decisions, numbers, policy)
        elif args.replay:
            rows = [_again(decisions, seq) for seq in wanted]
        else:
            rows = [_row(decisions.read(seq)) for seq in wanted]
    show(rows, args.output)
    if policy is not None:
        note(f"{sum(row['would_be'] == 'retrain' for row in rows)} retrainings instead of {_retrainings(rows)}")
    elif args.replay:
        other = [row for row in rows if row["replay"] != "same"]
        if other:
            raise SystemExit(f"{len(other)} of {len(rows)} decisions come out otherwise")
        one = len(rows) == 1
        note(f"{len(rows)} decision{'' if one else 's'} come{'s' if one else ''} out as on record")


@command
def reproduce(args: argparse.Namespace) -> None:
    """Train a version again from its record, and say what differs."""
    from airflow.providers.common.compat.sdk import conf

    from airflow_mlops import backend
    from airflow_mlops.hooks.mlflow import MLflowHook
    from airflow_mlops.hooks.store import StoreHook
    from airflow_mlops.runtimes.base import Job
    from airflow_mlops.runtimes.select import runtime_of

    tracking, store = MLflowHook(args.mlflow_conn_id).tracking, StoreHook(args.store_conn_id)
    code = str(Path(args.code or conf.get("core", "dags_folder")).absolute())
    spec = {
        "step": "reproduce_model",
        "args": {"model": f"models:/{args.name}/{args.version}", "code": "imported" if args.code else "recorded"},
        "store": store.uri,
        "tracking_uri": tracking.tracking_uri,
        "registry_uri": tracking.registry_uri,
        "key": f"cli/reproduce/{args.name}/{args.version}",
    }
    job = Job(spec, {**store.environment, **tracking.environment}, (code,))
    runtime = runtime_of({"python": args.python} if args.python else None)
    before = list(sys.path)
    sys.path.insert(0, code)
    try:
        with backend.environment(job.variables):
            report = runtime.run(job, logging.getLogger("airflow_mlops.task"))
    finally:
        sys.path[:] = before
    if args.output in ("json", "yaml"):
        show([report], args.output)
    elif report["differences"]:  # of none Airflow would say that no data was found
        show([{**one, "fails": "yes" if one["fails"] else "no"} for one in report["differences"]], args.output)
    if not report["passed"]:
        raise SystemExit(report["summary"])
    note(report["summary"])


def _policy(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"--policy is JSON, or a file of it: {error}") from None
    Policy.of(value)
    return value  # type: ignore[no-any-return]


def _row(found: dict[str, Any]) -> dict[str, Any]:
    decision, run = found["decision"], found["run"]
    return {
        "number": found["seq"],
        "clock": decision["clock"],
        "action": decision["action"],
        "reason": decision["reason"],
        "counted": decision["signals"]["counted"],
        "run": run.get("run_id"),
    }


def _again(decisions: Decisions, seq: int) -> dict[str, Any]:
    decision, found = replayed(decisions, seq)
    kept = {name: one for name, one in found["decision"].items() if name != "passed_over"}
    same = json.loads(json.dumps(decision.to_dict())) == kept
    now = "same" if same else f"{decision.action}: {decision.reason}"
    return {**_row(found), "replay": now}


def _otherwise(decisions: Decisions, numbers: list[int], policy: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what another policy would have decided, from the first decision on.

    Decisions that a cleared task took back are left out: nothing was built upon them.
    """
    memories: dict[int, Memory] = {0: Memory()}
    bases: dict[int, int] = {}
    rows = []
    for seq in numbers:
        found = decisions.read(seq)
        base = memories[found["base"]]
        decision, after = decided(found, base, policy)
        # The next one begins with this memory, or with that which this one began with.
        memories, bases[seq] = {found["base"]: base, seq: after}, found["base"]
        rows.append(
            {
                "number": seq,
                "clock": found["decision"]["clock"],
                "action": found["decision"]["action"],
                "would_be": decision.action,
                "reason": decision.reason,
            }
        )
    standing, seq = set(), numbers[-1]
    while seq:
        standing.add(seq)
        seq = bases[seq]
    return [row for row in rows if row["number"] in standing]


def _retrainings(rows: list[dict[str, Any]]) -> int:
    return sum(row["action"] == "retrain" for row in rows)
