"""Each heavy step in interpreters without Airflow and with other libraries: the same report as in the task's process,
one model after a crash, scripts and notebooks at home."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from airflow_mlops.core.errors import MissingExtraError, UnsupportedError
from airflow_mlops.core.tracking import sqlite_uri
from airflow_mlops.runtimes.base import Job, Runtime
from airflow_mlops.runtimes.in_process import InProcessRuntime
from airflow_mlops.runtimes.python import PythonRuntime
from servers.interpreters import OTHER
from servers.mlflow import start_mlflow, stop_mlflow

log = logging.getLogger("tests.python")

PROJECT = {
    "elsewhere_team.py": """
def features(raw):
    return raw.assign(ab=raw["a"] * raw["b"])


def train(X, y, *, C=1.0, random_state):
    from sklearn.linear_model import LogisticRegression

    print(f"fitting {len(X)} rows")
    return LogisticRegression(C=C, random_state=random_state).fit(X, y)


def is_modest(model, X, y):
    return {"positive_share": float(model.predict(X).mean()), "passed": True}
""",
    "elsewhere_patient.py": """
import os, tempfile, time


def train(X, y, *, folder):
    from sklearn.linear_model import LogisticRegression

    tempfile.mkdtemp()
    with open(f"{folder}/starts", "a") as starts:
        starts.write(f"{os.getpid()} {os.getppid()}\\n")
    while not os.path.exists(f"{folder}/go"):
        time.sleep(0.05)
    return LogisticRegression().fit(X, y)
""",
    "scripts/helper.py": "COLUMNS = ['a', 'b']\n",
    "scripts/settings.json": '{"C": 0.5}',
    "scripts/train.py": """
import importlib.util, json, pickle, sys
import pandas as pd
import skops.io
from sklearn.linear_model import LogisticRegression
from helper import COLUMNS

print("prefix", sys.prefix)
print("airflow", importlib.util.find_spec("airflow"))
frame = pd.read_parquet(sys.argv[1])
model = LogisticRegression(**json.load(open("scripts/settings.json"))).fit(frame[COLUMNS], frame["y"])
skops.io.dump(model, sys.argv[2])
""",
}
SCRIPT = {"command": ["python", "scripts/train.py", "{dataset}", "{model_out}"]}
FUNCTION = {"trainer": "elsewhere_team:train", "features": "elsewhere_team:features", "hyperparameters": {"C": 0.5}}


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[str]:
    """The address of an MLflow server."""
    uri, server = start_mlflow(tmp_path_factory.mktemp("server"), migrated_database)
    yield uri
    stop_mlflow(server)


@pytest.fixture
def home(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows, the code of a project, and an MLflow on SQLite."""
    for name, text in PROJECT.items():
        (tmp_path / "bundle" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bundle" / name).write_text(text)
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(400, 2)), columns=["a", "b"])
    frame = frame.assign(id=range(400), y=(frame["a"] + rng.normal(size=400) > 0).astype(int))
    frame.to_parquet(tmp_path / "rows.parquet", index=False)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.syspath_prepend(str(tmp_path / "bundle"))
    yield tmp_path
    for name in ("elsewhere_team", "elsewhere_patient"):
        sys.modules.pop(name, None)


@pytest.fixture
def run(home: Path) -> Callable[..., dict[str, Any]]:
    """Run a step by a runtime, under a key of its own for each place."""

    def run(runtime: Runtime, place: str, step: str, *, uri: str | None = None, **args: Any) -> dict[str, Any]:
        return runtime.run(job_of(home, step, place=place, uri=uri, **args), log)

    return run


def job_of(home: Path, step: str, *, place: str = "etl", uri: str | None = None, **args: Any) -> Job:
    if step != "evaluate_model":
        args = {"roles": {"key": "id"}, **args}
    if step == "train_model":
        args = {"dataset": str(home / "rows.parquet"), "target": "y", "experiment": "churn", **args}
        if "command" in args:
            args["cwd"] = str(home / "bundle")
    spec = {
        "step": step,
        "args": args,
        "store": (home / "store").as_uri(),
        "tracking_uri": uri or sqlite_uri(home / "mlflow.db"),
        "key": f"{place}/r/{step}/-1",
        "run": {"dag_id": place, "run_id": "r", "task_id": step, "map_index": -1},
    }
    return Job(spec, {}, (str(home / "bundle"),))


def told(report: dict[str, Any], place: str) -> Any:
    """Return what a report says, without what is another one for each run: ids, times, its own place."""
    text = json.dumps({name: value for name, value in report.items() if name != "digest"}, sort_keys=True)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)", "TIME", text)
    text = re.sub(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", "ID", text)
    text = re.sub(rf"/{place}/(\w+)/[0-9a-f]{{16}}/", r"/DAG/\1/KEY/", text)
    return json.loads(text)


def logged_runs(home: Path) -> list[Any]:
    client = MlflowClient(sqlite_uri(home / "mlflow.db"), sqlite_uri(home / "mlflow.db"))
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()]))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 240) -> Any:
    """Return the condition's first true value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def test_each_step_reports_the_same_as_in_the_tasks_process(
    home: Path, run: Any, plain_python: Path, caplog: Any
) -> None:
    """One interpreter has the libraries of this one, and no Airflow."""
    here, there = InProcessRuntime(), PythonRuntime({"python": str(plain_python)})
    rows = str(home / "rows.parquet")
    expectations = [
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "b", "max_value": 0}},
    ]

    def both(step: str, **args: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        first = run(here, "here", step, **args)
        with caplog.at_level(logging.INFO):
            caplog.clear()
            second = run(there, "there", step, **args)
        assert f"The step runs in {plain_python}" in caplog.messages
        assert told(first, "here") == told(second, "there")
        return first, second

    both("snapshot_data", source=rows, name="rows")
    _, checked = both("validate_data", dataset=rows, expectations=expectations)
    assert (checked["passed"], checked["checks"]) == (False, {"total": 2, "failed": 1})
    _, model = both("train_model", **FUNCTION)
    assert "fitting 320 rows" in caplog.messages
    assert model["metrics"]["roc_auc"] > 0.7
    tests = [
        {"kind": "metric", "metric": "roc_auc", "min": 0.99},
        {"kind": "custom", "name": "modest", "function": "elsewhere_team:is_modest"},
    ]
    _, tested = both("evaluate_model", model=model, tests=tests)
    assert (tested["passed"], tested["checks"]["failed"]) == (False, 1)
    assert list((home / "scratch").iterdir()) == []


class TestOtherVersions:
    def test_the_reports_say_the_same_and_name_the_versions(
        self, home: Path, run: Any, other_python: Path, mlflow_server: str
    ) -> None:
        here, there = InProcessRuntime(), PythonRuntime({"python": str(other_python)})
        versions = dict(one.split("==") for one in OTHER)

        first, second = (
            run(one, place, "snapshot_data", source=str(home / "rows.parquet"), name="rows")
            for one, place in ((here, "here"), (there, "there"))
        )
        assert told(first, "here") == told(second, "there")
        assert first["digest"] == second["digest"]

        ours, theirs = (
            run(one, place, "train_model", uri=mlflow_server, **FUNCTION)
            for one, place in ((here, "here"), (there, "there"))
        )
        assert theirs["metrics"] == pytest.approx(ours["metrics"], abs=1e-6)
        assert (theirs["training"], theirs["code"]) == (ours["training"], ours["code"])
        assert theirs["test_dataset"]["digest"] == ours["test_dataset"]["digest"]
        packages = theirs["environment"]["packages"]
        assert {name: packages[name] for name in ("scikit-learn", "pandas", "mlflow", "skops")} == {
            name: versions[name] for name in ("scikit-learn", "pandas", "mlflow", "skops")
        }
        assert theirs["environment"]["digest"] != ours["environment"]["digest"]

        tests = [{"kind": "metric", "metric": "roc_auc", "min": 0.7}, {"kind": "signature"}]
        ours, theirs = (
            run(one, place, "evaluate_model", uri=mlflow_server, model=model, tests=tests)
            for one, place, model in ((here, "here", ours), (there, "there", theirs))
        )
        assert (theirs["passed"], theirs["checks"]) == (ours["passed"], ours["checks"]) == (True, ours["checks"])
        assert theirs["metrics"]["roc_auc"] == pytest.approx(ours["metrics"]["roc_auc"])

    def test_what_it_lacks_is_said_with_how_to_install_it(self, home: Path, run: Any, other_python: Path) -> None:
        runtime = PythonRuntime({"python": str(other_python)})
        expectations = [{"type": "expect_column_to_exist", "kwargs": {"column": "a"}}]
        with pytest.raises(MissingExtraError, match=rf"--python {other_python} 'great-expectations>=") as caught:
            run(runtime, "there", "validate_data", dataset=str(home / "rows.parquet"), expectations=expectations)
        assert f"'great_expectations', which is not installed in {other_python}" in caught.value.message

    def test_an_mlflow_database_of_another_version_is_refused(self, run: Any, other_python: Path) -> None:
        with pytest.raises(UnsupportedError, match=r"another version of MLflow than the 3\.16\.0 of .*MLflow server"):
            run(PythonRuntime({"python": str(other_python)}), "there", "train_model", **FUNCTION)


class TestScripts:
    def test_a_script_runs_in_the_interpreter_and_at_home(
        self, home: Path, run: Any, plain_python: Path, caplog: Any
    ) -> None:
        with caplog.at_level(logging.INFO):
            found = run(PythonRuntime({"python": str(plain_python)}), "there", "train_model", **SCRIPT)
        assert f"| prefix {plain_python.parents[1]}" in caplog.messages
        assert "| airflow None" in caplog.messages
        assert told(found, "there")["metrics"] == run(InProcessRuntime(), "here", "train_model", **SCRIPT)["metrics"]

    def test_a_notebook_too(self, home: Path, run: Any) -> None:
        """By the tests' own interpreter, as the others have no Jupyter."""
        cells = [
            "dataset, model_out = None, None",
            "import json, pandas as pd, skops.io\nfrom sklearn.linear_model import LogisticRegression\n"
            "from helper import COLUMNS\nframe = pd.read_parquet(dataset)\n"
            "settings = json.load(open('settings.json'))\n"
            "skops.io.dump(LogisticRegression(**settings).fit(frame[COLUMNS], frame['y']), model_out)",
        ]
        notebook = {
            "cells": [
                {
                    "cell_type": "code",
                    "id": f"cell{number}",
                    "execution_count": None,
                    "metadata": {"tags": [] if number else ["parameters"]},
                    "outputs": [],
                    "source": text,
                }
                for number, text in enumerate(cells)
            ],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        path = home / "bundle" / "scripts" / "train.ipynb"
        path.write_text(json.dumps(notebook))
        found = run(PythonRuntime({"python": sys.executable}), "there", "train_model", notebook=str(path))
        assert found["metrics"]["roc_auc"] > 0.7


#: What a worker does, in a process that may be killed.
WORKER = """
import json, logging, sys, tempfile
tempfile.tempdir = sys.argv[2]
log = logging.Logger("worker")
log.addHandler(logging.StreamHandler(sys.stderr))
from airflow_mlops.runtimes.base import Job
from airflow_mlops.runtimes.python import PythonRuntime
given = json.load(open(sys.argv[1]))
job = Job(given["spec"], {}, tuple(given["code"]))
sys.stdout.write(json.dumps(PythonRuntime({"python": given["python"]}).run(job, log)))
"""


class TestWorkerKilled:
    @pytest.fixture
    def worker(self, home: Path, plain_python: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
        """Start workers that train; those that still run in the end are killed."""
        job = job_of(home, "train_model", trainer="elsewhere_patient:train", hyperparameters={"folder": str(home)})
        given = {"spec": job.spec, "code": job.code, "python": str(plain_python)}
        (home / "job.json").write_text(json.dumps(given))
        started: list[subprocess.Popen[str]] = []

        def start() -> subprocess.Popen[str]:
            with (home / f"said-{len(started)}").open("w") as said:
                command = [sys.executable, "-c", WORKER, str(home / "job.json"), str(home / "scratch")]
                started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True))
            return started[-1]

        yield start
        for one in started:
            one.kill()
            one.wait()

    def test_nothing_is_left_of_it_and_the_retry_leaves_one_model(self, home: Path, worker: Any) -> None:
        def starts() -> list[list[int]]:
            path = home / "starts"
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            return [list(map(int, line.split())) for line in lines if line.endswith("\n")]

        first = worker()
        wait_for(lambda: starts() or first.poll() is not None)
        assert starts(), (home / "said-0").read_text()
        assert list((home / "scratch").glob("mlops-step-*"))
        os.kill(first.pid, 9)
        first.wait()
        # The trainer and its guard.
        wait_for(lambda: not any(map(alive, starts()[0])))
        wait_for(lambda: list((home / "scratch").iterdir()) == [])
        assert [one.info.status for one in logged_runs(home)] == ["RUNNING"]

        second = worker()
        wait_for(lambda: len(starts()) == 2 or second.poll() is not None)
        (home / "go").touch()
        said, _ = second.communicate(timeout=300)
        assert second.returncode == 0, (home / "said-1").read_text()
        (made,) = logged_runs(home)
        assert (made.info.status, made.info.run_id) == ("FINISHED", json.loads(said)["run_id"])
        assert len(made.outputs.model_outputs) == 1
        assert list((home / "scratch").iterdir()) == []
