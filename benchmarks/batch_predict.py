"""What batch scoring costs: 5 million rows through BatchPredictOperator's step against the bare model.

``python benchmarks/batch_predict.py [--rows N] [--rounds N] [--trees N]``. Both sides read the same Parquet file (24
features, a key, a time and a group) in batches of 65,536 rows and give each batch to the same model, a gradient-boosted
classifier of scikit-learn; the bare side drops what it says, ours writes the prediction log with digest, key, time and
probability. Each measurement runs in a process of its own; peak memory is the kernel's figure for that process. Memory
must be flat: from a tenth of the rows to all of them it may grow by as much as the limit. Exit code 1 if a figure is
missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import Figure, report

ROWS, FEATURES, GROUP = 5_000_000, 24, 1 << 19
MIN_THROUGHPUT, MAX_GROWTH_MB = 0.85, 60


def make(path: Path, rows: int) -> None:
    """Write rows with numeric features, a key, a time and a group."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, GROUP):
        n = min(GROUP, rows - start)
        columns: dict[str, Any] = {f"f{i}": rng.normal(size=n) for i in range(FEATURES)}
        columns["key"] = np.arange(start, start + n)
        columns["at"] = (np.datetime64("2013-01-01", "us") + np.arange(start, start + n)).astype("datetime64[us]")
        columns["customer"] = rng.integers(0, 50_000, n)
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def train(folder: Path, trees: int) -> str:
    """Log a classifier to an MLflow of the benchmark's own and return its URI."""
    import mlflow
    import numpy as np
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(1)
    frame = pd.DataFrame({f"f{i}": rng.normal(size=20_000) for i in range(FEATURES)})
    late = frame.sum(axis=1) + rng.normal(size=len(frame)) > 0
    model = HistGradientBoostingClassifier(max_iter=trees).fit(frame, late)
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("bench")
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
            signature=mlflow.models.infer_signature(frame, late),
        )
    return str(info.model_uri)


def bare(folder: Path, source: Path, model: str) -> float:
    """Read and predict, and nothing else; return the seconds."""
    import mlflow
    import pyarrow.parquet as pq

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    estimator = mlflow.sklearn.load_model(model)
    columns = [f"f{i}" for i in range(FEATURES)]
    began = time.perf_counter()
    with pq.ParquetFile(source, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=65_536, columns=columns):
            estimator.predict_proba(batch.to_pandas())
    return time.perf_counter() - began


def ours(folder: Path, source: Path, model: str) -> float:
    """Run the step, without loading the model; return the seconds."""
    from airflow_mlops.core.evaluation.loading import ModelCopy
    from airflow_mlops.core.predictions.batch import batch_predict
    from airflow_mlops.core.steps import StepContext
    from airflow_mlops.core.store import LocalStore

    loaded: list[float] = []
    plain = ModelCopy.load

    def load(copy: ModelCopy) -> Any:
        found = plain(copy)
        loaded.append(time.perf_counter())
        return found

    ModelCopy.load = load  # type: ignore[method-assign]
    context = StepContext(
        store=LocalStore(folder / f"store-{time.time_ns()}"), tracking_uri=f"sqlite:///{folder / 'mlflow.db'}"
    )
    result = batch_predict(
        context,
        model=model,
        dataset=str(source),
        roles={"key": "key", "time": "at", "group": "customer"},
        log_name="bench",
        trust="unverified",
    )
    seconds = time.perf_counter() - loaded[0]
    assert result["rows"] > 0
    return seconds


def measure(side: str, folder: Path, source: Path, model: str) -> tuple[float, float]:
    """Return seconds and peak megabytes of one side, in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--folder", folder, "--source", source, "--model", model]
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, megabytes = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"  {side:5} {source.stem:>9} {seconds:7.1f} s {megabytes:7.0f} MB", flush=True)
    return float(seconds), float(megabytes)


def main() -> int:
    """Run both sides in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--side")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--model")
    given = parser.parse_args()
    if given.side:
        seconds = {"bare": bare, "ours": ours}[given.side](given.folder, given.source, given.model)
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = train(folder, given.trees)
        large, small = folder / f"{given.rows}.parquet", folder / f"{given.rows // 10}.parquet"
        make(large, given.rows)
        make(small, given.rows // 10)
        few = measure("ours", folder, small, model)[1]
        sides = [
            (measure("bare", folder, large, model), measure("ours", folder, large, model)) for _ in range(given.rounds)
        ]
    ratio = statistics.median(mine[0] / theirs[0] for theirs, mine in sides)
    peak = max(mine[1] for _, mine in sides)
    print(f"  {given.rows / statistics.median(mine[0] for _, mine in sides):,.0f} rows/s, peak {peak:.0f} MB")
    return report(
        Figure("batch scoring against the bare model, time", ratio, 1 / MIN_THROUGHPUT, "times"),
        Figure("batch scoring, memory from a tenth of the rows to all", peak - few, MAX_GROWTH_MB, "MB"),
    )


if __name__ == "__main__":
    sys.exit(main())
