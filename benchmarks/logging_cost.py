"""What it costs to log, register and alias a model on SQLite, beyond the fit.

``python benchmarks/logging_cost.py [--rounds N]``. A round is the steps ``train_model``, ``register_model`` and
``promote_model`` in one process, on 20,000 rows and 100 boosted trees. The time between the log's "Fitting" and
"Metrics" lines, the fit and the predictions on both sides, is taken off; what remains is reading, splitting, writing
the model, MLflow, the records and the ledger. The figure is the fastest round, the one that other programs disturbed
least; imports, the first migration of the database and one warm-up round do not count. CPU time is printed beside it:
on a busy machine the two part. Exit code 1 if the target is missed.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import Figure, report

ROWS, TREES, TARGET_SECONDS = 20_000, 100, 0.5


class Clock(logging.Handler):
    """Takes the time between two lines of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.began = self.seconds = self.cpu_began = self.cpu = 0.0
        self.all: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Start at "Fitting", stop at "Metrics"."""
        if record.msg.startswith("Fitting"):
            self.began = time.perf_counter()
            self.cpu_began = time.process_time()
        elif record.msg.startswith("Metrics"):
            self.seconds = time.perf_counter() - self.began
            self.cpu = time.process_time() - self.cpu_began
            self.all.append(self.seconds)


CLOCK = Clock()
CPU: list[float] = []


def train(X: Any, y: Any, *, random_state: int, max_iter: int = TREES) -> Any:
    """Fit boosted trees."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=max_iter, random_state=random_state).fit(X, y)


def make(path: Path) -> None:
    """Write the rows."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(ROWS, 16)), columns=[f"f{i}" for i in range(16)])
    frame["y"] = (frame["f0"] + rng.normal(size=ROWS) > 0).astype("int64")
    frame.assign(id=range(ROWS)).to_parquet(path, index=False)


def one_round(folder: Path, number: int) -> dict[str, float]:
    """Return the seconds of each step, the fit taken off."""
    from airflow_mlops.core.steps import run_step
    from airflow_mlops.core.tracking import sqlite_uri

    common = {"store": str(folder / "store"), "tracking_uri": sqlite_uri(folder / "mlflow.db"), "run": {"dag_id": "b"}}
    times = {}
    cpu = time.process_time()

    def step(name: str, **args: Any) -> dict[str, Any]:
        started = time.perf_counter()
        result = run_step({"step": name, "args": args, "key": f"b/{number}/{name}/-1", **common})
        times[name] = time.perf_counter() - started
        return result

    model = step(
        "train_model", dataset=str(folder / "rows.parquet"), trainer=train, target="y", roles={"key": "id"}, seed=number
    )
    times["train_model"] -= CLOCK.seconds
    version = step("register_model", model=model, model_name="benchmark")
    step("promote_model", model=version, alias="champion")
    CPU.append(time.process_time() - cpu - CLOCK.cpu)
    return times


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    logger = logging.getLogger("airflow_mlops")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(CLOCK)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # On a busy machine waiting threads of the fit would spin through the time that the rest needs.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "rows.parquet")
        one_round(folder, 0)
        rounds = [one_round(folder, number) for number in range(1, options.rounds + 1)]
    totals = [sum(times.values()) for times in rounds]
    best = rounds[totals.index(min(totals))]
    for step, seconds in best.items():
        print(f"{step:<16}{seconds:8.3f} s")
    print(f"{'fit, metrics':<16}{min(CLOCK.all[1:]):8.3f} s, not counted")
    print(f"{'CPU time':<16}{min(CPU[1:]):8.3f} s; median round {statistics.median(totals):.3f} s")
    return report(
        Figure("logging, registering and aliasing, beyond the fit", min(totals), TARGET_SECONDS, "s"),
    )


if __name__ == "__main__":
    sys.exit(main())
