"""An Airflow of each test's own, whose DAGs run by ``airflow dags test``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest


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
        return subprocess.run(
            ["airflow", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )


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
