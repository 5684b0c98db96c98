"""The commands on the pages about operations, as they stand there, on the store of a DAG that a user would write."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.data.dataset import read_table
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.vocabulary import DatasetRef

PAGES = Path(__file__).resolve().parents[2] / "docs" / "operations"

DAG = """
from airflow.sdk import DAG
from airflow_mlops.operators.data import SnapshotDataOperator

with DAG("customers", schedule=None):
    SnapshotDataOperator(
        task_id="snapshot", source="customers.csv", name="customers", roles={"key": "customer"}
    )
"""


def commands(page: str) -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", (PAGES / page).read_text(encoding="utf-8"), flags=re.S | re.M)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


class Shell:
    """Runs what the pages show, in a folder of its own."""

    def __init__(self, airflow_test: Any, folder: Path) -> None:
        self.airflow, self.folder = airflow_test, folder
        self.store = LocalStore(airflow_test.home / "mlops" / "store")

    def __call__(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.airflow.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def snapshot(self, *customers: str) -> None:
        lines = "".join(f"{one},{one}@example.org,{i}\n" for i, one in enumerate(customers))
        (self.airflow.dags / "customers.csv").write_text("customer,email,calls\n" + lines)
        run = self.airflow.cli("dags", "test", "customers")
        assert run.returncode == 0, run.stdout[-3000:]

    def refs(self) -> list[DatasetRef]:
        return [DatasetRef.from_dict(self.store.get_json(key)) for key in self.store.keys("datasets")]


@pytest.fixture
def shell(airflow_test: Any, tmp_path: Path) -> Shell:
    (airflow_test.dags / "customers_dag.py").write_text(DAG)
    folder = tmp_path / "shell"
    folder.mkdir()
    return Shell(airflow_test, folder)


def test_the_page_about_gc(shell: Shell) -> None:
    shell.snapshot("ana", "bo")
    then = (dt.datetime.now() - dt.timedelta(days=40)).timestamp()
    for key in list(shell.store.keys()):
        os.utime(shell.store.path_of(key), (then, then))
    shell.snapshot("ana", "bo", "cy")
    assert len(shell.refs()) == 2

    look, listing, delete, strict = commands("gc.md")

    done = shell(look)
    assert done.returncode == 0, done.stderr
    assert "snapshot" in done.stdout
    assert "Dry run: nothing was deleted" in done.stderr
    assert "datasets/customers/" in shell(listing).stdout.replace("\n", "")
    assert len(shell.refs()) == 2
    done = shell(delete)
    assert done.returncode == 0, done.stderr
    (left,) = shell.refs()
    assert read_table(shell.store, left).num_rows == 3
    (record,) = json.loads(shell(strict).stdout)
    assert (record["deleted"], record["keep_rollback"], record["grace_days"]) == ([], 5, 30)


def test_the_page_about_erasure(shell: Shell) -> None:
    shell.snapshot("ana", "bo", "cy")
    (ref,) = shell.refs()
    (shell.folder / "keys.txt").write_text("bo\n")

    look, erase, by_column = commands("erasure.md")

    done = shell(look)
    assert done.returncode == 0, done.stderr
    assert "Dry run: nothing was erased. 1 rows would be" in done.stderr
    done = shell(erase)
    assert done.returncode == 0, done.stderr
    assert read_table(shell.store, ref).column("customer").to_pylist() == ["ana", "cy"]
    (shell.folder / "keys.txt").write_text("cy@example.org\n")
    done = shell(by_column)
    assert done.returncode == 0, done.stderr
    assert read_table(shell.store, ref).column("customer").to_pylist() == ["ana"]
    everything = b"".join(shell.store.get_bytes(key) for key in list(shell.store.keys()))
    assert b"cy@example.org" not in everything
    # The source still has the rows.
    run = shell.airflow.cli("dags", "test", "customers")
    assert "the source still has them" in run.stdout


def test_the_page_about_the_doctor(shell: Shell) -> None:
    shell.snapshot("ana", "bo")
    people, machines = commands("doctor.md")

    done = shell(people)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ok +store: file://", done.stdout, flags=re.M), done.stdout
    findings = json.loads(shell(machines).stdout)
    table = (PAGES / "doctor.md").read_text(encoding="utf-8")
    described = {name.strip() for row in re.findall(r"^\| (.*?) \|", table, flags=re.M) for name in row.split(",")}
    found = {"extras" if one["check"].startswith("extra ") else one["check"] for one in findings}
    assert {name.removesuffix(" database") for name in found} <= described
