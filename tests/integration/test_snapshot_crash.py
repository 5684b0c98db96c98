"""A snapshot killed at any of its crash points and taken again ends as one clean run does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.data.dataset import read_table
from airflow_mlops.core.faults import CRASH_POINTS, PAUSE_VARIABLE, VARIABLE
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.vocabulary import DatasetRef

ROWS = 1000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.parquet"
    pq.write_table(pa.table({"id": list(range(ROWS)), "name": [f"n{i}" for i in range(ROWS)]}), path)
    return path


def spec_of(tmp_path: Path, source: Path, store: str = "store") -> Path:
    path = tmp_path / f"{store}.spec.json"
    args = {"source": str(source), "name": "flights", "roles": {"key": "id"}}
    path.write_text(
        json.dumps(
            {"step": "snapshot_data", "args": args, "store": str(tmp_path / store), "key": "flights/r/snapshot/-1"}
        )
    )
    return path


def run(spec: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    report = spec.with_suffix(".report.json")
    report.unlink(missing_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "airflow_mlops.core", "--spec", str(spec), "--report", str(report)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def result(spec: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(spec.with_suffix(".report.json").read_text())
    return value


def state(root: Path) -> dict[str, Any]:
    """Everything in a store that two clean runs have in common."""
    found: dict[str, Any] = {}
    store = LocalStore(root)
    for key in list(store.keys()):
        if key.startswith("datasets/"):
            found[key] = {k: v for k, v in store.get_json(key).items() if k not in ("created_at", "uri")}
        else:
            found[key] = store.get_bytes(key)
    return found


@pytest.mark.parametrize("point", CRASH_POINTS["snapshot_data"])
def test_killed_at_any_point_and_retried_it_is_one_snapshot(tmp_path: Path, source: Path, point: str) -> None:
    clean = spec_of(tmp_path, source, "clean")
    assert run(clean).returncode == 0

    spec = spec_of(tmp_path, source)
    killed = run(spec, **{VARIABLE: point})
    assert killed.returncode == -signal.SIGKILL
    assert not spec.with_suffix(".report.json").exists()
    # What readers can see so far is whole.
    for key in LocalStore(tmp_path / "store").keys("data"):
        if key.endswith(".parquet"):
            assert pq.read_table(tmp_path / "store" / key).num_rows == ROWS

    retried = run(spec)
    assert retried.returncode == 0, retried.stderr
    assert state(tmp_path / "store") == state(tmp_path / "clean")
    assert list((tmp_path / "store" / ".staging").iterdir()) == []

    ref = result(spec)
    volatile = {"created_at", "uri"}
    assert {k: v for k, v in ref.items() if k not in volatile} == {
        k: v for k, v in result(clean).items() if k not in volatile
    }
    assert read_table(LocalStore(tmp_path / "store"), DatasetRef.from_dict(ref)).num_rows == ROWS
    # Cleared with nothing changed, it gives the same ref, to the byte.
    assert run(spec).returncode == 0
    assert result(spec) == ref


def test_many_deaths_in_a_row_leave_no_pile_of_staged_files(tmp_path: Path, source: Path) -> None:
    spec = spec_of(tmp_path, source)
    for _ in range(3):
        assert run(spec, **{VARIABLE: "snapshot.staged"}).returncode == -signal.SIGKILL
        assert len(list((tmp_path / "store" / ".staging").iterdir())) == 1
    assert run(spec).returncode == 0
    assert list((tmp_path / "store" / ".staging").iterdir()) == []


def test_two_at_once_are_one_snapshot_with_one_ref(tmp_path: Path, source: Path) -> None:
    specs = [spec_of(tmp_path, source), spec_of(tmp_path, source).rename(tmp_path / "other.spec.json")]
    specs[0] = spec_of(tmp_path, source)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "airflow_mlops.core", "--spec", spec, "--report", spec.with_suffix(".report.json")],
            # Both have staged their file before either publishes.
            env={**os.environ, PAUSE_VARIABLE: "snapshot.staged:2"},
            stderr=subprocess.DEVNULL,
        )
        for spec in specs
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert result(specs[0]) == result(specs[1])
    keys = list(LocalStore(tmp_path / "store").keys())
    assert len([key for key in keys if key.endswith(".parquet")]) == 1
    assert len([key for key in keys if key.startswith("datasets/")]) == 1


def test_a_retry_after_the_source_changed_is_a_new_version(tmp_path: Path, source: Path) -> None:
    spec = spec_of(tmp_path, source)
    assert run(spec, **{VARIABLE: "snapshot.published"}).returncode == -signal.SIGKILL
    pq.write_table(pq.read_table(source).slice(1), source)
    assert run(spec).returncode == 0
    assert result(spec)["rows"] == ROWS - 1


def test_a_known_failure_is_an_exit_code_of_one_and_a_named_error(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, tmp_path / "nothing.parquet")
    failed = run(spec)
    assert failed.returncode == 1
    error = result(spec)["error"]
    assert (error["type"], error["retryable"]) == ("MissingSourceError", False)
    assert "Traceback" not in failed.stderr
