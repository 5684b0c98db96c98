"""An Airflow of each test's own, whose DAGs run by ``airflow dags test``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

#: Airflow 3.1 reads no commands of providers.
READS_COMMANDS = not version("apache-airflow-core").startswith("3.1.")


@dataclass(frozen=True)
class DagsTest:
    """Runs DAGs of one dags folder in one Airflow home.

    :param connections: as JSON or URI, by id; they go by the environment, which costs no process.
    """

    home: Path
    dags: Path
    connections: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every process."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))}
        return {
            **inherited,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            **{f"AIRFLOW_CONN_{name.upper()}": value for name, value in self.connections.items()},
        }

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``airflow ...``; its output is in ``stdout``, both streams."""
        own = arguments[0] == "mlops" and not READS_COMMANDS
        return subprocess.run(
            [sys.executable, "-m", "airflow_mlops", *arguments[1:]] if own else ["airflow", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )

    def several(self, *commands: tuple[str, ...]) -> list[tuple[int, str]]:
        """Run several ``airflow ...`` in one process, which imports what they need once; stop at one that fails.

        :return: exit code and output of each.
        """
        done = subprocess.run(
            [sys.executable, "-c", SEVERAL, json.dumps(commands), json.dumps(READS_COMMANDS)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        *parts, rest = re.split(r"^=== (-?\d+)\n", done.stdout, flags=re.MULTILINE)
        assert done.returncode == 0, rest[-4000:]
        return [(int(code), output) for output, code in zip(parts[::2], parts[1::2], strict=True)]


SEVERAL = """
import json, sys
from airflow.__main__ import main
from airflow_mlops.__main__ import main as own
reads_commands = json.loads(sys.argv[2])
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["airflow", *arguments]
    code = 0
    try:
        own(arguments[1:]) if arguments[0] == "mlops" and not reads_commands else main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if code == 1 and error.code != 1:
            print(error.code)
    print(f"\\n=== {code}", flush=True)
    if code:
        break
"""


@pytest.fixture(scope="session")
def migrated_airflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow home after its migrations, which take long; tests copy it."""
    home = tmp_path_factory.mktemp("airflow")
    done = DagsTest(home, home / "dags").cli("db", "migrate")
    assert done.returncode == 0, done.stdout
    return home


@pytest.fixture
def airflow_test(migrated_airflow: Path, tmp_path: Path) -> DagsTest:
    """A fresh home and an empty dags folder."""
    home, dags = tmp_path / "home", tmp_path / "dags"
    home.mkdir()
    dags.mkdir()
    shutil.copy(migrated_airflow / "airflow.db", home)
    return DagsTest(home, dags)
