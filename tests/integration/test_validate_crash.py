"""SIGKILL at every crash point of ``validate_data``, then the same spec again: the state of one clean run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    pd.DataFrame({"age": [25, None]}).to_parquet(tmp_path / "people.parquet")
    suite = [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age"}}]
    path = tmp_path / "spec.json"
    path.write_text(
        json.dumps(
            {
                "step": "validate_data",
                "args": {
                    "dataset": str(tmp_path / "people.parquet"),
                    "expectations": suite,
                    "quarantine": {"max_share": 0.5},
                },
                "store": str(tmp_path / "store"),
                "key": "etl/r1/validate/-1",
                "run": {"dag_id": "etl", "run_id": "r1", "task_id": "validate", "map_index": -1},
            }
        )
    )
    return path


def run(spec: Path, crash_at: str | None = None, store: Path | None = None) -> tuple[int, dict[str, Any]]:
    if store:
        other = spec.with_name("clean.json")
        other.write_text(json.dumps({**json.loads(spec.read_text()), "store": str(store)}))
        spec = other
    report = spec.with_name("report.json")
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "airflow_mlops.core", "--spec", str(spec), "--report", str(report)],
        env={**os.environ, **({VARIABLE: crash_at} if crash_at else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, json.loads(report.read_text()) if report.exists() else {}


def objects(store: Path) -> dict[str, Any]:
    """What a reader of the store sees: the details whole, of the page only whether it is there."""
    files = [path for path in store.rglob("*") if path.is_file() and ".staging" not in path.parts]
    return {
        str(path.relative_to(store)): json.loads(path.read_text())
        if path.suffix == ".json"
        else path.stat().st_size > 0
        for path in files
    }


@pytest.mark.parametrize("point", CRASH_POINTS["validate_data"])
def test_killed_and_run_again(spec: Path, tmp_path: Path, point: str) -> None:
    code, report = run(spec, crash_at=point)
    assert (code, report) == (-signal.SIGKILL, {})

    code, report = run(spec)

    assert code == 0
    _, clean = run(spec, store=tmp_path / "clean")
    found = objects(tmp_path / "store")
    assert found.keys() == objects(tmp_path / "clean").keys()
    assert len(found) == 2 + 2 * 3, (
        "two of the report; data, its record and a ref of those that go on and of those aside"
    )
    assert (report["dataset"]["digest"], report["quarantine"]["digest"]) == (
        clean["dataset"]["digest"],
        clean["quarantine"]["digest"],
    )
    assert report["severity"] == "warning"
    assert not list((tmp_path / "store" / ".staging").glob("*"))
