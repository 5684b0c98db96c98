"""What every command of ``airflow mlops`` shares: its context, its output, and how it fails."""

from __future__ import annotations

import argparse
import functools
import getpass
import json
import os
import sys
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
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import open_store


def command(function: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
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
def session(args: argparse.Namespace) -> Iterator[StepContext]:
    """Give a step's context on the back end that the arguments or the configuration name."""
    from airflow_mlops.core.extras import silence_telemetry
    from airflow_mlops.hooks.mlflow import MLflowHook
    from airflow_mlops.hooks.store import StoreHook

    silence_telemetry()
    tracking = MLflowHook(args.mlflow_conn_id).tracking
    hook = StoreHook(args.store_conn_id)
    with backend.environment({**getattr(hook, "environment", {}), **tracking.environment}):
        yield StepContext(
            store=open_store(hook.uri),
            tracking_uri=tracking.tracking_uri,
            registry_uri=tracking.registry_uri,
            # Each call is an act of its own, never the retry of another one.
            key=f"cli/{uuid.uuid4().hex}",
        )


def user() -> str:
    """Return the name of the user of the shell."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def show(rows: list[dict[str, Any]], output: str) -> None:
    """Print rows as ``--output`` asks."""
    if output == "json":
        # Not print_as, which makes text of numbers and null.
        print(json.dumps(rows))
    elif output == "yaml":
        print(yaml.dump(rows, sort_keys=False), end="")
    else:
        AirflowConsole().print_as(
            data=[{k: "" if v is None else v for k, v in row.items()} for row in rows], output=output
        )


def note(text: str) -> None:
    """Say something to the person at the terminal that is no output."""
    print(text, file=sys.stderr)
