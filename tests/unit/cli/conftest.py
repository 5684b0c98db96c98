"""``airflow mlops``, through Airflow's own parser, on the embedded back end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import airflow_mlops.__main__
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri


@pytest.fixture
def context(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> StepContext:
    """The embedded back end, as a task would see it; ``log_model`` logs there."""
    home = tmp_path / "mlops"
    home.mkdir()
    shutil.copy(migrated_database, home / "mlflow.db")
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(home))
    monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "embedded")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    # The command sets it for its process; here that is the tests'.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    return StepContext(store=LocalStore(home / "store"), tracking_uri=sqlite_uri(home / "mlflow.db"), key="register")


@pytest.fixture
def airflow(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line in this process; return exit code or message, and what it printed."""

    def run(*words: str) -> tuple[Any, str]:
        from airflow.cli import cli_parser

        if "mlops" in cli_parser.ALL_COMMANDS_DICT:
            args = cli_parser.get_parser().parse_args(["mlops", *words])
        else:  # Airflow 3.1 reads no commands of providers
            args = airflow_mlops.__main__.parser().parse_args(words)
        code: Any = 0
        try:
            args.func(args)
        except SystemExit as error:
            code = error.code
        printed = capsys.readouterr()
        run.errors = printed.err
        return code, printed.out

    return run
