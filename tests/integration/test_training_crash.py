"""A training killed at any of its crash points and tried again ends as one clean run does; four at once all end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from airflow_mlops.core import models
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.steps import StepContext, run_step
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri
from airflow_mlops.core.vocabulary import ModelRef

TRAINER = """
from sklearn.ensemble import RandomForestClassifier

def train(X, y, *, random_state, n_estimators=5):
    return RandomForestClassifier(n_estimators, random_state=random_state).fit(X, y)

def features(frame):
    return frame.assign(ab=frame["a"] * frame["b"])
"""


#: A script that logs to MLflow by itself, in a run and beside it.
SCRIPT = """
import os, sys
import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression

frame = pd.read_parquet(sys.argv[1])
model = LogisticRegression().fit(frame[["a", "b"]], frame["y"])
mlflow.sklearn.log_model(model, name="mine", serialization_format="skops", pip_requirements=["scikit-learn"],
                         input_example=frame[["a", "b"]].head(2))
mlflow.log_metric("mine", 1)
if os.environ.get("WAIT_IN"):
    open(os.environ["WAIT_IN"], "w").write(str(os.getpid()))
    import time
    time.sleep(600)
"""

WAYS: dict[str, dict[str, Any]] = {
    "function": {"trainer": "crash_trainer:train", "features": "crash_trainer:features"},
    "command": {"command": ["python", "crash_script.py", "{dataset}"]},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Rows and a trainer that every process can import."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(400, 2)), columns=["a", "b"])
    frame.assign(id=range(400), y=(frame["a"] > 0).astype(int)).to_parquet(folder / "rows.parquet", index=False)
    (folder / "crash_trainer.py").write_text(TRAINER)
    (folder / "crash_script.py").write_text(SCRIPT)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("crash_trainer", None)


def spec_of(project: Path, place: str, key: str = "d/r/train/-1", way: str = "function") -> Path:
    """Write the spec of a training whose store and MLflow are in a folder of their own."""
    home = project / place
    home.mkdir(exist_ok=True)
    spec = {
        "step": "train_model",
        "args": {
            "dataset": str(project / "rows.parquet"),
            "target": "y",
            "roles": {"key": "id"},
            **WAYS[way],
            **({"cwd": str(project)} if way == "command" else {}),
        },
        "store": str(home / "store"),
        "tracking_uri": sqlite_uri(home / "mlflow.db"),
        "key": key,
        "run": {"dag_id": "d", "run_id": "r", "task_id": "train", "map_index": -1},
    }
    path = home / f"{key.replace('/', '_')}.json"
    path.write_text(json.dumps(spec))
    return path


def start(spec: Path, **environment: str) -> subprocess.Popen[str]:
    report = spec.with_suffix(".report")
    report.unlink(missing_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_mlops.core", "--spec", str(spec), "--report", str(report)],
        env={**os.environ, "PYTHONPATH": str(spec.parents[1]), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def state(home: Path) -> dict[str, Any]:
    """What a person sees in MLflow and the store, without ids and times."""
    client = MlflowClient(sqlite_uri(home / "mlflow.db"), sqlite_uri(home / "mlflow.db"))
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments)
    logged = client.search_logged_models(experiments)
    store = LocalStore(home / "store")
    return {
        "runs": [(r.info.status, r.data.params, r.data.metrics, len(r.outputs.model_outputs)) for r in runs],
        "histories": [
            len(client.get_metric_history(r.info.run_id, name)) for r in runs for name in sorted(r.data.metrics)
        ],
        "models": [(m.status.value, {x.key: x.value for x in m.metrics}) for m in logged],
        "inputs": [i.dataset.digest for r in runs for i in r.inputs.dataset_inputs],
        "keys": sorted(k if k.startswith(("data", "rowkeys")) else k.partition("/")[0] for k in list(store.keys())),
        "staged": list((home / "store" / ".staging").glob("*")),
    }


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def clean_state(project: Path, way: str) -> dict[str, Any]:
    run_step(json.loads(spec_of(project, f"clean-{way}", way=way).read_text()))
    return state(project / f"clean-{way}")


@pytest.mark.parametrize("point", CRASH_POINTS["train_model"])
def test_killed_at_any_point_and_tried_again_it_is_one_model(
    project: Path, clean_state: dict[str, Any], way: str, point: str
) -> None:
    place = f"{point}-{way}"
    spec = spec_of(project, place, way=way)
    process = start(spec, **{VARIABLE: point})
    _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, errors
    assert not spec.with_suffix(".report").exists()

    result = run_step(json.loads(spec.read_text()))
    home = project / place
    found = state(home)
    assert found == clean_state
    assert len(found["runs"]) == len(found["models"]) == 1
    assert found["runs"][0][0] == "FINISHED"
    assert found["models"][0][0] == "READY"

    # The files in MLflow are those on record, and the model that came back is that one.
    context = StepContext(store=LocalStore(home / "store"), tracking_uri=sqlite_uri(home / "mlflow.db"))
    (record,) = context.store.keys("models")
    assert context.store.get_json(record)["ref"]["digest"] == result["digest"]
    models.download(context, ModelRef.from_dict(result), home / "copy")


def test_four_first_uses_at_once(project: Path) -> None:
    specs = [spec_of(project, "four", key=f"d/r/train/{i}") for i in range(4)]
    processes = [start(spec) for spec in specs]
    errors = [process.communicate(timeout=400)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], "\n".join(errors)
    found = state(project / "four")
    assert [status for status, *_ in found["runs"]] == ["FINISHED"] * 4
    assert [status for status, _ in found["models"]] == ["READY"] * 4


def test_a_worker_killed_while_the_script_runs_leaves_no_script_and_one_model(project: Path, tmp_path: Path) -> None:
    run_step(json.loads(spec_of(project, "clean-killed", way="command").read_text()))
    spec = spec_of(project, "killed", way="command")
    waiting = tmp_path / "waiting"
    process = start(spec, WAIT_IN=str(waiting))
    while not (waiting.exists() and waiting.read_text()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    script = int(waiting.read_text())
    process.kill()
    process.communicate()
    while Path(f"/proc/{script}").exists():
        time.sleep(0.05)

    result = run_step(json.loads(spec.read_text()))

    assert not result["reused"]
    found = state(project / "killed")
    assert found == state(project / "clean-killed")
    assert found["models"][0][0] == "READY"
