"""The core's zip: the same bytes for the same code, all that the core reads, and nothing of Airflow."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import airflow_mlops
from airflow_mlops.runtimes.bundle import core_bundle

PACKAGE = Path(airflow_mlops.__file__).parent


def test_it_has_every_file_of_the_core_and_of_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(core_bundle())) as archive:
        found = set(archive.namelist())
        assert archive.testzip() is None
    files = [PACKAGE / "__init__.py", *(PACKAGE / "core").rglob("*")]
    assert found == {f"airflow_mlops/{f.relative_to(PACKAGE)}" for f in files if f.is_file() and f.suffix != ".pyc"}
    assert any(name.endswith(".html") for name in found)


def test_the_same_code_makes_the_same_bytes() -> None:
    code = (
        "import hashlib; from airflow_mlops.runtimes.bundle import core_bundle; "
        "print(hashlib.sha256(core_bundle()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert len(digests) == 1


def test_an_interpreter_without_any_library_can_ask_it_for_help(bare_python: Path, tmp_path: Path) -> None:
    archive = tmp_path / "core.zip"
    archive.write_bytes(core_bundle())
    done = subprocess.run(
        [bare_python, "-m", "airflow_mlops.core", "--help"],
        env={"PYTHONPATH": str(archive)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--spec" in done.stdout, done.stderr
