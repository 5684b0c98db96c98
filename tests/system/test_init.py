"""``airflow mlops init``: what it writes for a user's own data runs as it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes

ROOT = Path(__file__).resolve().parents[2]
#: The reference DAG of a level has fewer lines; so has what is written.
MOST_LINES = {1: 120, 2: 150, 3: 150, 4: 180}


def projects_tests(airflow_test: Any, *projects: str) -> str:
    """Run the tests that come with projects; return what pytest says of them."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"{name}/tests" for name in projects)],
        env=airflow_test.environment,
        cwd=airflow_test.dags,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight weeks of flights in two files, with a key and a time."""
    sys.path.insert(0, str(ROOT / "dags"))
    try:
        from flights.source import read_flights
    finally:
        sys.path.remove(str(ROOT / "dags"))
    frame = read_flights()
    frame = frame[frame["scheduled_departure"] < "2013-03-01"].iloc[::3]
    folder = tmp_path_factory.mktemp("data") / "flights of 2013"
    folder.mkdir()
    frame.iloc[: len(frame) // 2].to_parquet(folder / "1.parquet", index=False)
    frame.iloc[len(frame) // 2 :].to_parquet(folder / "2.parquet", index=False)
    return folder


def test_each_level_runs_on_real_data_of_other_people(airflow_test: Any, flights: Path, tmp_path: Path) -> None:
    study = tmp_path / "Diabetes study.csv"
    load_diabetes(as_frame=True, scaled=False).frame.to_csv(study, index=False)
    dags, january = str(airflow_test.dags), str(flights / "1.parquet")

    wrong = tmp_path / "late is in time.parquet"
    pd.read_parquet(january).assign(late=lambda frame: 1 - frame["late"]).to_parquet(wrong, index=False)

    def test(dag: str, **conf: Any) -> tuple[str, ...]:
        return ("dags", "test", dag, "--conf", json.dumps(conf))

    mistake = ("--clock", "2013-02-01", "--expected-champion", "2", "--reason", "a mistake")
    done = airflow_test.several(
        ("mlops", "init", "--level", "3", dags, "--data", str(study), "--target", "target"),
        ("mlops", "init", dags, "--data", str(flights), "--target", "late"),
        ("mlops", "init", "--level", "4", dags, "--name", "flights_of_2013"),
        ("dags", "list-import-errors", "--output", "json"),
        test("diabetes_study_level_1"),
        ("mlops", "promote", "diabetes_study", "1"),
        test("diabetes_study_level_2", green_runs=1),
        test("diabetes_study_level_3"),
        test("flights_of_2013_level_1", data=str(wrong), max_iter=20),
        ("mlops", "promote", "flights_of_2013", "1"),
        test("flights_of_2013_level_1", data=january, max_iter=20),
        ("mlops", "promote", "flights_of_2013", "2"),
        test("flights_of_2013_level_3"),
        test("flights_of_2013_level_3", start="2013-02-04", end="2013-02-11"),
        ("mlops", "promote", "flights_of_2013", "1", *mistake),
        test("flights_of_2013_level_4", force=True, clock="2013-02-26"),
        ("mlops", "decide", "flights_of_2013", "--output", "json"),
        ("mlops", "status", "--output", "json"),
        ("mlops", "history", "flights_of_2013", "--metric", "roc_auc", "--output", "json"),
        ("mlops", "history", "flights_of_2013", "--output", "json"),
    )
    for code, output in done:
        assert code == 0, output[-4000:]
    outputs = [output for _, output in done]
    assert "a quantity" in outputs[0]
    assert "no column of times" in outputs[0]
    assert "is a git repository now" in outputs[0]
    tracked = subprocess.run(["git", "-C", dags, "ls-files"], capture_output=True, text=True, check=True).stdout.split()
    assert ".gitignore" in tracked
    assert not any("__pycache__" in name for name in tracked)
    assert "'flight_id' identifies a row" in outputs[1]
    assert "'scheduled_departure' says when a row is of: periods of 7d" in outputs[1]
    assert "tested on the latest 16 days" in outputs[1]
    assert "flights_of_2013_level_1.py" not in outputs[2], "it is there, and stays as it is"
    assert "flights_of_2013_level_4.py" in outputs[2]
    assert outputs[3].strip().endswith(("[]", "No data found"))

    rows = {(row["model"], row["alias"]): row for row in listed(outputs[-3])}
    assert rows["diabetes_study", "champion"]["version"] == 2, "the commit that init made was released"
    assert rows["diabetes_study", "staging"]["version"] == 2
    assert [one["action"] for one in listed(outputs[-4])] == ["retrain"]
    assert "as version 3 of 'flights_of_2013'" in outputs[15], "a challenger, whether or not it won"
    moves = [row for row in listed(outputs[-1]) if row["action"] != "refused"]
    assert [(row["action"], row["version"]) for row in moves][:4] == [
        *(("promote", version) for version in (1, 2, 1)),
        ("rollback", 2),
    ], "the mistake went back by itself"
    assert "Version 1 did worse than version 2 on the same rows" in moves[3]["reason"]
    assert {row["health"] for row in rows.values()} <= {"ok", "warning", None}, "of a new release there is no window"
    weeks = {point["start"][:10]: point["value"] for point in listed(outputs[-2])}
    assert sorted(weeks) == ["2013-02-04", "2013-02-18"], "the newest whole week, and the one that was asked for"
    assert 0.5 < weeks["2013-02-18"] < 0.75

    project = airflow_test.dags / "flights_of_2013" / "project.py"
    project.write_text(project.read_text().replace("SERVER = None", 'SERVER = "flights"'))
    for file in airflow_test.dags.glob("*_level_*.py"):
        assert len(file.read_text().splitlines()) < MOST_LINES[int(file.stem[-1])], file
    assert "8 passed" in projects_tests(airflow_test, "diabetes_study", "flights_of_2013")
    style = (
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--select",
        "F,I",
        "--config",
        "line-length = 120",
        "--config",
        "src = ['.']",
        ".",
    )
    checked = subprocess.run([sys.executable, "-m", *style], cwd=dags, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def listed(output: str) -> list[dict[str, Any]]:
    """Return the rows of ``--output json``."""
    found: list[dict[str, Any]] = json.loads(next(line for line in output.splitlines() if line.startswith("[{")))
    return found


def customers() -> pd.DataFrame:
    """Rows with names that need care, a time, missing values, and a target of words."""
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
    frame["left"] = np.where(frame["visits"] + rng.normal(0, 10, count) < 20, "yes", "no")
    return frame


def test_the_project_goes_up_level_by_level_and_nothing_is_overwritten(airflow_test: Any, tmp_path: Path) -> None:
    from airflow_mlops.cli.skeleton import known, look, write
    from airflow_mlops.core.errors import ConflictError, SpecError

    file = tmp_path / "My Customers.csv"
    customers().to_csv(file, index=False)
    data, folder = look(str(file), "left"), airflow_test.dags
    assert (data.key, data.time, data.classes, data.window) == (None, "signed up", 2, "7d")
    first = write(1, folder, data, "my_customers")
    assert first[0] == folder / "my_customers_level_1.py"
    assert "4 passed" in projects_tests(airflow_test, "my_customers")
    before = {path: path.read_bytes() for path in first}
    with pytest.raises(ConflictError, match="is there already; nothing was written"):
        write(1, folder, data, "my_customers")
    assert known(folder, None, None, None) == (str(file), "left", "my_customers")
    assert write(3, folder, data, "my_customers") == [folder / f"my_customers_level_{one}.py" for one in (2, 3)]
    with pytest.raises(ConflictError, match="is of the column 'left' of"):
        write(3, folder, look(str(file), "plan"), "my_customers")
    (folder / "other").mkdir()
    with pytest.raises(ConflictError, match=r"is no project of this command's"):
        write(1, folder, data, "other")
    assert {path: path.read_bytes() for path in before} == before

    write(1, folder, data, "second")
    with pytest.raises(SpecError, match="has the projects my_customers, second"):
        known(folder, None, None, None)
    with pytest.raises(SpecError, match="give --data and --target"):
        known(tmp_path, None, None, None)


def test_what_a_column_means_is_guessed_with_care(tmp_path: Path) -> None:
    from airflow_mlops.cli.skeleton import look

    file = tmp_path / "c.csv"
    count = 400
    frame = pd.DataFrame({"customerId": range(count), "grid": range(count), "at": "2026-01-01", "y": 0.5})
    frame["at"] = pd.date_range("2026-01-01", periods=count, freq="h")
    frame["y"] = np.arange(count) / 7
    frame.to_csv(file, index=False)
    data = look(str(file), "y")
    assert (data.key, data.time, data.classes, data.window) == ("customerId", "at", None, "1d")
    assert not data.learns, "24 rows of a day say little of how days vary"
    frame["customerId"] //= 2
    frame["paid at"] = frame["at"]
    frame.to_csv(file, index=False)
    data = look(str(file), "y")
    assert (data.key, data.time, data.window) == (None, None, None), "no key twice, and of two times none"
    assert any("several times ('at', 'paid at')" in line for line in data.said())
    assert data.unlike == "grid"
    assert any("'grid' is different in each row" in line for line in data.said()), "the model would learn it by heart"


def test_text_that_looks_like_times_is_told_of(tmp_path: Path) -> None:
    from airflow_mlops.cli.skeleton import look

    at = pd.date_range("2024-01-01", periods=200, freq="6h")
    frame = pd.DataFrame({"phone": "070-123 45 67", "at": at.strftime("%d.%m.%Y %H:%M"), "y": range(200)})
    frame.to_csv(tmp_path / "c.csv", index=False)
    data = look(str(tmp_path / "c.csv"), "y")
    assert (data.time, data.daylike) == (None, "at")
    assert any("'at' looks like times, and is read as text" in line for line in data.said())


@pytest.mark.parametrize(
    ("days", "a_day", "window", "rows", "few"),
    [(912, 1, "84d", 84, False), (912, 24, "28d", 672, False), (150, 1, "7d", 7, True)],
)
def test_a_period_has_rows_enough_for_drift_to_be_told(
    tmp_path: Path, days: int, a_day: int, window: str, rows: int, few: bool
) -> None:
    from airflow_mlops.cli.skeleton import look

    at = pd.date_range("2024-01-01", periods=days * a_day, freq=f"{24 // a_day}h")
    pd.DataFrame({"at": at, "y": range(len(at))}).to_parquet(tmp_path / "c.parquet")
    data = look(str(tmp_path / "c.parquet"), "y")
    assert data.window == window
    assert abs(data.per_window - rows) <= 1
    assert any("too few for drift to be told" in line for line in data.said()) == few


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/My Orders.csv", "my_orders"),
        ("s3://lake/2013/flights-*.parquet", "flights"),
        ("2013.csv", "model_2013"),
        ("/x/calendar.csv", "calendar_model"),
        ("test.csv", "test_model"),
        ("class.csv", "class_model"),
        ("airflow.parquet", "airflow_model"),
    ],
)
def test_a_project_is_called_as_its_data_unless_something_else_is_imported_under_that(path: str, name: str) -> None:
    from airflow_mlops.cli.skeleton import project_name

    assert project_name(path) == name


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
    for taken in ("calendar", "pandas"):
        with pytest.raises(SpecError, match="is the name of a package"):
            write(1, airflow_test.dags, look(str(file), "b"), taken)
    for text, message in (
        ("a,b\n1,0\n2,0\n", "'b' .* is the same in all rows that have one; a model needs two values or more"),
        ("a,b\n1,\n2,\n", "'b' .* has no value in any row"),
        ("a,b\n", "has names of columns, but no rows"),
        ("", "is empty: it has no line of column names"),
    ):
        file.write_text(text)
        with pytest.raises(EmptyDataError, match=message):
            look(str(file), "b")
    (airflow_test.dags / "inner").mkdir()
    command = ("mlops", "init", str(airflow_test.dags / "inner"), "--data", str(file), "--target", "b")
    refused = airflow_test.cli(*command)
    assert re.search(r"SpecError: .*inner is inside the dags folder", refused.stdout), refused.stdout
    assert [path.name for path in airflow_test.dags.rglob("*")] == ["inner"]
