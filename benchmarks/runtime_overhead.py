"""What it costs to run a step in another interpreter instead of in the task's process, beyond the step's own imports.

``python benchmarks/runtime_overhead.py [--rounds N] [--python PATH]``. Each of the four heavy steps runs on 2,000 rows
by ``runtime={"python": ...}`` and, in turn with it, in process in a fresh interpreter of the same libraries, as each
task of an executor is one: there the libraries are imported too, so what is left between the two is the runtime's own
cost. It is measured from the call to the result. The figure is the median of the differences; that of CPU time is
printed beside it, because on a busy machine the two part. Exit code 1 if the target is missed for any step.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import Figure, report

ROWS, TARGET_SECONDS = 2_000, 0.5

TRAINER = """
def train(X, y, *, random_state):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(random_state=random_state).fit(X, y)
"""
EXPECTATIONS = [
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "f0"}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "f1", "min_value": -10, "max_value": 10}},
]


def in_process(spec: Path) -> None:
    """Run a step here, in a process that has imported nothing, and print its seconds."""
    from airflow_mlops.core.steps import run_step

    value = json.loads(spec.read_text())
    sys.path.insert(0, str(spec.parent))
    started, cpu = time.perf_counter(), time.process_time()
    run_step(value)
    print(time.perf_counter() - started, time.process_time() - cpu)


def seconds_in_process(spec: dict[str, Any], folder: Path) -> tuple[float, float]:
    """Return the seconds of a step in a fresh process, and its CPU time."""
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, __file__, "--in-process", folder / "spec.json"], check=True, capture_output=True, text=True
    )
    seconds, cpu = map(float, done.stdout.split()[-2:])
    return seconds, cpu


def seconds_by_runtime(python: str, spec: dict[str, Any], folder: Path) -> tuple[float, float, dict[str, Any]]:
    """Return the seconds of a step in the other interpreter, its CPU time, and its result."""
    from airflow_mlops.runtimes.base import Job
    from airflow_mlops.runtimes.python import PythonRuntime

    log = logging.getLogger("benchmark")
    started, cpu = time.perf_counter(), _cpu()
    result = PythonRuntime({"python": python}).run(Job(spec, {}, (str(folder),)), log)
    return time.perf_counter() - started, _cpu() - cpu, result


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def steps(folder: Path, python: str) -> list[dict[str, Any]]:
    """Make the data and the model, and return the four specs."""
    import numpy as np
    import pandas as pd

    from airflow_mlops.core.tracking import sqlite_uri

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(ROWS, 8)), columns=[f"f{i}" for i in range(8)])
    frame["y"] = (frame["f0"] + rng.normal(size=ROWS) > 0).astype("int64")
    frame.assign(id=range(ROWS)).to_parquet(folder / "rows.parquet", index=False)
    (folder / "benchmark_trainer.py").write_text(TRAINER)
    data = {"dataset": str(folder / "rows.parquet"), "roles": {"key": "id"}}

    def spec(step: str, **args: Any) -> dict[str, Any]:
        return {
            "step": step,
            "args": args,
            "store": str(folder / "store"),
            "tracking_uri": sqlite_uri(folder / "mlflow.db"),
            "key": f"b/r/{step}/-1",
            "run": {"dag_id": "b", "task_id": step},
        }

    train = spec("train_model", **data, trainer="benchmark_trainer:train", target="y", reuse=False)
    _, _, model = seconds_by_runtime(python, train, folder)
    return [
        spec("snapshot_data", source=data["dataset"], name="rows"),
        spec("validate_data", **data, expectations=EXPECTATIONS),
        train,
        spec("evaluate_model", model=model, tests=[{"kind": "metric", "metric": "roc_auc", "min": 0.5}]),
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--in-process", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        in_process(options.in_process)
        return 0
    worst = 0.0
    print(f"{'':<16}{'in process':>12}{'runtime':>12}{'beyond':>12}{'CPU beyond':>12}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for spec in steps(folder, options.python):
            pairs = []
            for number in range(options.rounds + 1):
                here, there = seconds_in_process(spec, folder), seconds_by_runtime(options.python, spec, folder)
                if number:  # the first round fills the disk's cache
                    pairs.append((here[0], there[0], there[0] - here[0], there[1] - here[1]))
            figures = [statistics.median(column) for column in zip(*pairs, strict=True)]
            worst = max(worst, figures[2])
            print(f"{spec['step']:<16}" + "".join(f"{one:>10.2f} s" for one in figures), flush=True)
    return report(Figure("a step in another interpreter, beyond", worst, TARGET_SECONDS, "s"))


if __name__ == "__main__":
    sys.exit(main())
