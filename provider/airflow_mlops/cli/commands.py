"""What ``airflow mlops`` does. Imported when one of its commands runs."""

from __future__ import annotations

import argparse
import functools
import getpass
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow.cli.simple_table import AirflowConsole
from airflow.utils import yaml
from airflow.utils.cli import suppress_logs_and_warning
from airflow.utils.providers_configuration_loader import providers_configuration_loaded

from airflow_mlops import backend
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.core.registry import overview
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import open_store


def _command(function: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Run a command with the providers' configuration, and end a known failure in one line."""

    @functools.wraps(function)
    def run(args: argparse.Namespace) -> None:
        # As a server process: a plain one would not see the connections in Airflow's database.
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
        try:
            function(args)
        except MlopsError as error:
            raise SystemExit(f"{type(error).__name__}: {error.message}") from None

    return suppress_logs_and_warning(providers_configuration_loaded(run))


@contextmanager
def _context(args: argparse.Namespace) -> Iterator[StepContext]:
    """Give a step's context on the back end that the arguments or the configuration name."""
    from airflow_mlops.core.extras import silence_telemetry
    from airflow_mlops.hooks.mlflow import MLflowHook
    from airflow_mlops.hooks.store import StoreHook

    silence_telemetry()
    tracking = MLflowHook(args.mlflow_conn_id).tracking
    store = open_store(StoreHook(args.store_conn_id).uri)
    with backend.environment(tracking.environment):
        yield StepContext(
            store=store,
            tracking_uri=tracking.tracking_uri,
            registry_uri=tracking.registry_uri,
            # Each call is an act of its own, never the retry of another one.
            key=f"cli/{uuid.uuid4().hex}",
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _show(rows: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        # Not print_as, which makes text of numbers and null.
        print(json.dumps(rows))
    elif output == "yaml":
        print(yaml.dump(rows, sort_keys=False), end="")
    else:
        AirflowConsole().print_as(
            data=[{k: "" if v is None else v for k, v in row.items()} for row in rows], output=output
        )


@_command
def status(args: argparse.Namespace) -> None:
    """Show which version each alias points at, and whether the ledger agrees."""
    with _context(args) as context:
        _show(overview.status(context, args.name), args.output)


@_command
def history(args: argparse.Namespace) -> None:
    """Show every entry of a model's ledger."""
    with _context(args) as context:
        rows = overview.history(context, args.name)
    if args.output == "table":
        # The state stands in the reason already; a table has no room for it twice.
        rows = [{key: value for key, value in row.items() if key != "state"} for row in rows]
    _show(rows, args.output)


@_command
def promote(args: argparse.Namespace) -> None:
    """Point an alias at a version, on the evidence that was registered with it."""
    with _context(args) as context:
        entry = promote_model(
            context,
            model=f"models:/{args.name}/{args.version}",
            alias=args.alias,
            evidence=[] if args.without_evidence else None,
            expected_champion=args.expected_champion,
            reason=args.reason,
            by=args.by or _user(),
        )
    if args.output in ("json", "yaml"):
        _show([entry], args.output)
        return
    keys = ("seq", "model", "alias", "version", "previous_version", "by", "reason", "at")
    _show([{key: entry[key] for key in keys}], args.output)
