"""``airflow mlops init``: what it writes for a user's own data runs as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest


def customers(kind: str) -> pd.DataFrame:
    """Rows with numbers, words, a time, missing values, and a target of a kind."""
    rng = np.random.default_rng(0)
    count = 600
    frame = pd.DataFrame(
        {
            "signed up": pd.date_range("2026-01-01", periods=count, freq="3h"),
            "visits": rng.integers(0, 50, count),
            "größe": np.where(rng.random(count) < 0.1, np.nan, rng.normal(size=count)),
            "plan": rng.choice(["basic", "pro", None], count),
        }
    )
    if kind == "classes":
        frame["left"] = np.where(frame["visits"] + rng.normal(0, 10, count) < 20, "yes", "no")
    else:
        frame = frame.drop(columns="signed up")
        frame["left"] = frame["visits"] * 2.5 + rng.normal(size=count)
    return frame


@pytest.mark.parametrize("kind", ["classes", "quantity"])
def test_what_it_writes_passes_its_own_tests_and_registers_a_model(
    airflow_test: Any, tmp_path: Path, kind: str
) -> None:
    frame = customers(kind)
    file = tmp_path / ("My Customers.csv" if kind == "classes" else "customers.parquet")
    frame.to_csv(file, index=False) if kind == "classes" else frame.to_parquet(file, index=False)
    name = "my_customers" if kind == "classes" else "customers"
    command = ("mlops", "init", str(airflow_test.dags), "--data", str(file), "--target", "left")
    done = airflow_test.cli(*command)
    assert done.returncode == 0, done.stdout
    written = sorted(path.relative_to(airflow_test.dags).as_posix() for path in airflow_test.dags.rglob("*.*"))
    assert f"{name}_level_1.py" in written
    before = {path: path.read_bytes() for path in airflow_test.dags.rglob("*.py")}
    again = airflow_test.cli(*command)
    assert again.returncode != 0
    assert "is there already; nothing was written" in again.stdout
    assert {path: path.read_bytes() for path in airflow_test.dags.rglob("*.py")} == before

    # The tests' own process imports Airflow, which reads its configuration from there.
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(airflow_test.dags / name / "tests")],
        env=airflow_test.environment,
        cwd=airflow_test.dags,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout[-3000:]
    assert "4 passed" in tests.stdout

    listed = airflow_test.cli("dags", "list-import-errors", "--output", "json")
    assert listed.stdout.strip().endswith(("[]", "No data found")), listed.stdout
    run = airflow_test.cli("dags", "test", f"{name}_level_1", "--conf", '{"max_iter": 20}')
    assert run.returncode == 0, run.stdout[-4000:]
    promoted = airflow_test.cli("mlops", "promote", name, "1")
    assert promoted.returncode == 0, promoted.stdout


def test_what_cannot_be_is_refused_and_nothing_written(airflow_test: Any, tmp_path: Path) -> None:
    from airflow_mlops.cli.skeleton import look, write
    from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, MissingSourceError, SpecError

    file = tmp_path / "c.csv"
    file.write_text("a,b\n1,0\n2,1\n")
    with pytest.raises(MissingColumnError, match="has no column 'c'"):
        look(str(file), "c")
    with pytest.raises(MissingSourceError):
        look(str(tmp_path / "absent.csv"), "b")
    with pytest.raises(SpecError, match="cannot be the name"):
        write(1, airflow_test.dags, look(str(file), "b"), "my-project")
    file.write_text("a,b\n1,0\n2,0\n")
    with pytest.raises(EmptyDataError, match="two or more"):
        look(str(file), "b")
    assert list(airflow_test.dags.iterdir()) == []
