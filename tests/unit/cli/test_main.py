"""``python -m airflow_mlops``: the same commands, for an Airflow that reads none of a provider."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops.__main__ import main, parser
from airflow_mlops.cli.definition import get_mlops_cli_commands


def test_it_has_every_command_with_its_arguments() -> None:
    for command in get_mlops_cli_commands()[0].subcommands:
        needed = {"name": "churn", "version": "3", "folder": "dags"}
        words = [needed[one.flags[0]] for one in command.args if one.flags[0] in needed]
        words += [word for one in command.args if one.kwargs.get("required") for word in (one.flags[-1], "x")]
        given = vars(parser().parse_args([command.name, *words]))
        names = {one.flags[-1].lstrip("-").replace("-", "_") for one in command.args}
        assert names == set(given) - {"subcommand", "func"}
        assert given["func"].__name__ == command.func.__name__


def test_a_command_runs_and_fails_as_airflows_own_does(airflow, context, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = airflow("history", "nothing", "--output", "json")
    with pytest.raises(SystemExit) as stopped:
        main(["history", "nothing", "--output", "json"])
    assert stopped.value.code == code
    assert "nothing" in str(code)
    assert capsys.readouterr().out == ""


def test_its_help_imports_no_library_behind_a_command(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom airflow_mlops.__main__ import main\ntry: main(['promote', '--help'])\n"
        "except SystemExit: print([n for n in ('mlflow', 'pandas', 'pyarrow', 'docker') if n in sys.modules])"
    )
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("usage: python -m airflow_mlops promote")
    assert done.stdout.splitlines()[-1] == "[]"
