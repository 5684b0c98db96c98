"""Evaluation in processes of its own: the fresh process that loads the model, and a step that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core import models
from airflow_mlops.core.evaluation import fresh
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import client, experiment_id, sqlite_uri
from airflow_mlops.core.vocabulary import ModelRef

COLUMNS = ["größe", "distance"]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database whose migrations have run, which takes seconds; the tests get copies."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client(StepContext(store=LocalStore(file.parent), tracking_uri=sqlite_uri(file)), "a test")
    return file


@pytest.fixture(autouse=True)
def _database(migrated: Path, tmp_path: Path) -> None:
    shutil.copy(migrated, tmp_path / "mlflow.db")


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(300, 2)), columns=COLUMNS)
    return frame.assign(late=(frame["größe"] + 0.3 * rng.normal(size=300) > 0).astype("int64"))


@pytest.fixture
def dataset(frame: pd.DataFrame, tmp_path: Path) -> str:
    path = tmp_path / "flights.parquet"
    frame.to_parquet(path, index=False)
    return str(path)


@pytest.fixture
def log_model(context: StepContext, frame: pd.DataFrame) -> Callable[..., ModelRef]:
    """Log a model to MLflow and put it on record, as a trainer does."""

    def log(model: Any = None, *, example: bool = True, **options: Any) -> ModelRef:
        mlflow_client = client(context, "a test")
        with mlflow.start_run(experiment_id=experiment_id(mlflow_client, context, "tests")):
            info = mlflow.sklearn.log_model(
                model or LogisticRegression().fit(frame[COLUMNS], frame["late"]),
                name="model",
                pip_requirements=["scikit-learn"],
                signature=infer_signature(frame[COLUMNS], frame["late"]),
                input_example=frame[COLUMNS].head(3) if example else None,
                serialization_format="cloudpickle",
                **options,
            )
        ref = ModelRef(uri=f"models:/{info.model_id}", model_id=info.model_id, name="late", target="late")
        models.record(context, ref, models.manifest_of(mlflow.artifacts.download_artifacts(ref.uri)))
        return ref

    return log


def by_kind(context: StepContext, report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    details = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
    return {test["kind"]: test for test in details["tests"]}


LOAD = {"kind": "load"}
LATENCY = {"kind": "latency", "p95_ms": 5000}


def test_a_model_loads_and_answers_in_a_fresh_process(
    context: StepContext, log_model: Any, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    run = fresh.run

    def counted(*args: Any, **kwargs: Any) -> dict[str, Any]:
        started.append(1)
        return run(*args, **kwargs)

    monkeypatch.setattr(fresh, "run", counted)
    report = evaluate_model(context, model=log_model().to_dict(), dataset=dataset, tests=[LOAD, LATENCY])
    assert report["passed"], report["summary"]
    found = by_kind(context, report)
    assert "predicts its own input example" in found["load"]["message"]
    assert 0 < found["latency"]["value"] < 5000
    assert "Of 300 single-row predictions p50 is" in found["latency"]["message"]
    assert started == [1]


def test_the_served_model_is_measured_and_keeps_to_its_contract(
    context: StepContext, log_model: Any, dataset: str
) -> None:
    tests = [
        LOAD,
        {"kind": "contract"},
        {"kind": "latency", "over": "http", "p50_ms": 5000, "p95_ms": 5000, "p99_ms": 5000},
        {"kind": "latency", "name": "impossible", "p99_ms": 0.000001},
        {"kind": "throughput", "min_rows_per_second": 10, "min_requests_per_second": 1, "batch": 500},
        {"kind": "memory", "max_mb": 2000},
        {"kind": "memory", "max_mb": 10, "name": "too little", "severity": "warning"},
    ]
    report = evaluate_model(context, model=log_model().to_dict(), dataset=dataset, tests=tests)
    details = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
    found = details["tests"][1:]
    assert [one["passed"] for one in found] == [True, True, True, False, True, True, True, False], found
    load, contract, http, impossible, rows, requests, memory, _ = found
    assert "does so as MLflow serves it" in load["message"]
    # Two columns, each missing and as text, and one more.
    assert "keeps to its signature on 5 inputs" in contract["message"]
    assert "requests of one row to MLflow's scoring server" in http["message"]
    assert "must be p99 ≤ 1e-06 ms" in impossible["message"]
    assert "rows a second in batches of 500" in rows["message"]
    assert "with 4 clients at once" in requests["message"]
    # Of the program alone, as its kernel counts it: less than what the process of the tests has by now.
    assert 50 < memory["value"] < 2000
    measured = details["infrastructure"]["process"]
    assert measured["http"]["p50_ms"] <= measured["http"]["p95_ms"] <= measured["http"]["p99_ms"]
    assert measured["server"] == {"ping": 200, "invocations": 200, "predictions": 3}
    page = context.store.get_bytes(context.store.key_of(report["report_uri"]) or "").decode()
    assert "request to MLflow&#39;s scoring server" in page


def test_a_model_without_a_signature_and_one_that_answers_at_random_break_their_contract(
    context: StepContext, log_model: Any, dataset: str, tmp_path: Path
) -> None:
    class AtRandom(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            import random

            return [random.random() for _ in range(len(model_input))]

    frame = pd.read_parquet(dataset)[COLUMNS].head(4)
    mlflow.pyfunc.save_model(
        tmp_path / "at_random", python_model=AtRandom(), input_example=frame, pip_requirements=["scikit-learn"],
        signature=infer_signature(frame, np.array([0.5])),
    )  # fmt: skip
    mlflow.sklearn.save_model(
        LogisticRegression().fit(frame, [0, 1, 0, 1]), tmp_path / "nameless", pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle", signature=False,
    )  # fmt: skip
    said = {}
    for name in ("at_random", "nameless"):
        report = evaluate_model(
            context, model=str(tmp_path / name), dataset=dataset, target="late", trust="unverified",
            tests=[{"kind": "contract"}],
        )  # fmt: skip
        found = by_kind(context, report)["contract"]
        assert not found["passed"]
        said[name] = found["message"]
    assert "Of 5 inputs 1 are not treated as the signature says: one column more changes the" in said["at_random"]
    assert "the model has no signature that names its columns" in said["nameless"]


def test_a_model_that_needs_the_workers_modules_fails_to_load(
    context: StepContext, log_model: Any, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It loads in the task's own process, where the module is; not where it is to be served.
    (tmp_path / "dag_project.py").write_text(
        "from sklearn.linear_model import LogisticRegression\nclass Mine(LogisticRegression):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import dag_project

    frame = pd.read_parquet(dataset)
    model = dag_project.Mine().fit(frame[COLUMNS], frame["late"])
    report = evaluate_model(context, model=log_model(model).to_dict(), dataset=dataset, tests=[LOAD, LATENCY])
    assert not report["passed"]
    found = by_kind(context, report)
    assert found["sanity"]["passed"]
    assert "ModuleNotFoundError: No module named 'dag_project'" in found["load"]["message"]
    assert "code_paths" in found["load"]["message"]
    assert found["latency"]["message"].startswith("Not measured")
    brought = log_model(model, code_paths=[str(tmp_path / "dag_project.py")])
    assert evaluate_model(context, model=brought.to_dict(), dataset=dataset, tests=[LOAD])["passed"]


def test_without_an_input_example_rows_of_the_dataset_stand_in(
    context: StepContext, log_model: Any, dataset: str
) -> None:
    report = evaluate_model(context, model=log_model(example=False).to_dict(), dataset=dataset, tests=[LOAD])
    assert "rows of the dataset (it has no input example)" in by_kind(context, report)["load"]["message"]


@pytest.fixture
def model_that_runs(frame: pd.DataFrame, tmp_path: Path) -> Callable[[str], Path]:
    """Save a model that runs some code when it is loaded."""

    def save(source: str) -> Path:
        folder = tmp_path / "model_folder"
        mlflow.sklearn.save_model(
            LogisticRegression().fit(frame[COLUMNS], frame["late"]),
            folder,
            pip_requirements=[],
            serialization_format="cloudpickle",
        )
        (folder / "code").mkdir()
        (folder / "code" / "runs_at_load.py").write_text(f"{source}\n")
        text = (folder / "MLmodel").read_text().replace("mlflow.sklearn", "runs_at_load", 1)
        (folder / "MLmodel").write_text(text.replace("python_function:", "python_function:\n    code: code", 1))
        return folder

    return save


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process died (signal SIGSEGV)"),
        ("import time; time.sleep(600)", "it did not answer within"),
    ],
)
def test_a_model_that_crashes_or_hangs_is_a_failed_test(
    model_that_runs: Any, tmp_path: Path, source: str, says: str
) -> None:
    (tmp_path / "scratch").mkdir()
    timeout = 20 if "sleep" in source else 120
    folder = model_that_runs(source)
    found = fresh.run(folder, rows=None, measure=(), batch=1, timeout=timeout, scratch=tmp_path / "scratch")
    assert found["stage"] == "load"
    assert says in found["error"]


def test_the_fresh_process_sees_no_credentials_and_no_path_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "geheim")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    variables = fresh.environment(tmp_path)
    assert "geheim" not in variables.values()
    assert variables["PYTHONPATH"].endswith("provider")


def test_the_fresh_process_ends_with_a_killed_task(model_that_runs: Any, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    started = tmp_path / "started"
    folder = model_that_runs(f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    code = (
        "import sys; from pathlib import Path; from airflow_mlops.core.evaluation import fresh;"
        "fresh.run(Path(sys.argv[1]), rows=None, measure=(), batch=1, timeout=600, scratch=Path(sys.argv[2]))"
    )
    task = subprocess.Popen([sys.executable, "-c", code, str(folder), str(tmp_path / "scratch")])
    assert eventually(lambda: started.exists() and started.read_text() != "")
    task.kill()
    task.wait()
    pid = int(started.read_text())
    assert eventually(lambda: not alive(pid))


def eventually(holds: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def alive(pid: int) -> bool:
    # An orphan that nobody waits for stays in the table as a zombie.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def run_spec(spec: dict[str, Any], folder: Path, crash_at: str | None = None) -> subprocess.CompletedProcess[str]:
    (folder / "spec.json").write_text(json.dumps(spec))
    variables = dict(os.environ) | ({VARIABLE: crash_at} if crash_at else {})
    command = [sys.executable, "-m", "airflow_mlops.core", "--spec", str(folder / "spec.json")]
    return subprocess.run(
        [*command, "--report", str(folder / "report.json")], env=variables, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("point", CRASH_POINTS["evaluate_model"])
def test_killed_at_any_point_and_run_again_there_is_one_report(
    context: StepContext, log_model: Any, dataset: str, tmp_path: Path, point: str
) -> None:
    spec = {
        "step": "evaluate_model",
        "args": {
            "model": log_model().to_dict(),
            "dataset": dataset,
            "tests": [{"kind": "metric", "metric": "roc_auc", "min": 0.8}, {"kind": "signature"}],
        },
        "store": context.store.uri,
        "tracking_uri": context.tracking_uri,
        "key": context.key,
        "run": context.run,
    }
    killed = run_spec(spec, tmp_path, crash_at=point)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "report.json").exists()
    done = run_spec(spec, tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"]
    keys = list(context.store.keys("reports"))
    assert sorted(key.rpartition("/")[2] for key in keys) == ["details.json", "report.html"]
    assert {context.store.uri_of(key) for key in keys} == {report["details_uri"], report["report_uri"]}


def test_an_altered_model_stops_the_step_and_names_the_file(
    context: StepContext, log_model: Any, dataset: str, tmp_path: Path
) -> None:
    ref = log_model()
    (file,) = (path for path in (tmp_path / "artifacts").rglob("MLmodel") if ref.model_id in str(path))
    file.write_text(file.read_text() + "# a friendly change\n")
    spec = {
        "step": "evaluate_model",
        "args": {"model": ref.to_dict(), "dataset": dataset},
        "store": context.store.uri,
        "tracking_uri": context.tracking_uri,
    }
    done = run_spec(spec, tmp_path)
    assert done.returncode == 1
    error = json.loads((tmp_path / "report.json").read_text())["error"]
    assert (error["type"], error["retryable"]) == ("IntegrityError", False)
    assert error["fields"]["changed"] == ["MLmodel"]
