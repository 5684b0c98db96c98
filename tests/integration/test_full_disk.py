"""A disk that is full while a report is written: a small file system of the test's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core import models
from airflow_mlops.core.errors import CannotReachError
from airflow_mlops.core.steps import StepContext, run_step
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import client, experiment_id
from airflow_mlops.core.vocabulary import ModelRef

SIZE = 1 << 20


class Disk:
    """A file system of one megabyte."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def leave(self, size: int | None) -> None:
        """Fill it but for so many bytes; None: empty what filled it."""
        (self.root / "filling").unlink(missing_ok=True)
        if size is not None:
            found = os.statvfs(self.root)
            (self.root / "filling").write_bytes(b"0" * max(0, found.f_bavail * found.f_frsize - size))

    def files(self) -> dict[str, bytes]:
        """What stands in the store, with what is staged."""
        store = self.root / "store"
        return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    root = tmp_path / "disk"
    root.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(root)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", str(root)], check=True)


@pytest.fixture
def evaluate(mlflow_context: StepContext, disk: Disk, tmp_path: Path) -> Callable[[float], dict[str, Any]]:
    """Test a model; the report is the same one each time, with another verdict."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(400, 2)), columns=["a", "b"])
    frame["y"] = (frame["a"] + rng.normal(size=400) > 0).astype("int64")
    frame.to_parquet(tmp_path / "rows.parquet")
    model = LogisticRegression().fit(frame[["a", "b"]], frame["y"])
    with mlflow.start_run(experiment_id=experiment_id(client(mlflow_context, "a test"), mlflow_context, "tests")):
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            pip_requirements=["scikit-learn"],
            signature=infer_signature(frame[["a", "b"]], frame["y"]),
            serialization_format="cloudpickle",
        )
    ref = ModelRef(uri=f"models:/{info.model_id}", model_id=info.model_id, target="y")
    store = LocalStore(disk.root / "store")
    context = StepContext(store=store, tracking_uri=mlflow_context.tracking_uri)
    models.record(context, ref, models.manifest_of(mlflow.artifacts.download_artifacts(ref.uri)))

    def run() -> dict[str, Any]:
        tests = [{"kind": "metric", "metric": "roc_auc", "min": 0.5}, {"kind": "signature"}]
        args = {"model": ref.to_dict(), "dataset": str(tmp_path / "rows.parquet"), "target": "y", "tests": tests}
        spec = {"step": "evaluate_model", "args": args, "store": store.uri, "key": mlflow_context.key}
        return run_step({**spec, "tracking_uri": mlflow_context.tracking_uri, "run": mlflow_context.run})

    return run  # type: ignore[return-value]


def test_the_old_report_stays_whole_and_a_retry_writes_the_new_one(disk: Disk, evaluate: Any) -> None:
    evaluate()
    before = disk.files()
    assert any(name.endswith("report.html") for name in before)
    said = []
    for free in (0, 4 << 10, 8 << 10, 12 << 10, 16 << 10, 24 << 10, 32 << 10, 48 << 10):
        disk.leave(free)
        try:
            evaluate()
        except CannotReachError as error:
            said.append(error.message)
        disk.leave(None)
        after = disk.files()
        assert after.keys() == before.keys(), "no partial file, and nothing staged"
        assert all(after.values())
    assert len(said) >= 4
    for message in said:
        assert "No space left on device" in message
        assert "airflow mlops gc" in message
    assert evaluate()["passed"]


def test_details_and_page_never_part(disk: Disk) -> None:
    """Room for the one and not for the other."""
    from airflow_mlops.core.reports import publish
    from airflow_mlops.core.vocabulary import Report

    context = StepContext(store=LocalStore(disk.root / "store"), key="d/r/t/-1", run={"dag_id": "d", "task_id": "t"})

    def write(summary: str, size: int) -> None:
        report = Report(report="approval", passed=True, severity="ok", summary=summary)
        asked = {"model": {"name": "m", "version": 1, "uri": "u"}, "champion": {"version": None, "alias": "c"}}
        known = {"policy": None, "reports": [], "drift": [], "caveats": [], "metrics": [], "slices": []}
        details = {
            "decision": "approved", "by": "ana", "by_id": None, "at": "now", "reason": summary * size, "name": "m",
            "alias": "c", "request": {**asked, **known, "hyperparameters": [], "origin": []},
        }  # fmt: skip
        publish(context, report, details=details, template="approval.html", identity="one", title="Approval")

    write("old", 1)
    before = disk.files()
    for free in range(0, 96 << 10, 8 << 10):
        disk.leave(free)
        try:
            write("new", 10_000)
        except CannotReachError:
            assert disk.files() == before
        else:
            assert all(b"new" in data for data in disk.files().values())
            break
    else:
        pytest.fail("it was never written")
