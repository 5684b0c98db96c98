"""What runs in the fresh process: load a model folder, predict its input example, time single rows.

``python -m airflow_mlops.core.evaluation.fresh_process JOB.json`` with ``{"model", "rows", "calls", "seconds",
"result"}``; the result file is JSON. Nothing of the task's process is here: neither its modules nor its path nor its
credentials. The process ends when its standard input closes, so that it never outlives the task.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_mlops.core.evaluation.outcome import without_values

WARM_UP = 20


def main(job_file: str) -> None:
    """Run the job of a file and write its result file; what the model does wrong is part of the result."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    result: dict[str, Any] = {"stage": "load"}
    try:
        _measure(job, result)
        result["stage"] = "done"
    except Exception as error:
        result["error"] = without_values(error, result.get("columns", []))
        if result["stage"] == "load":
            # A model that is loaded has seen no data yet; which module it misses is what the user needs.
            result["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    temporary = Path(job["result"] + ".tmp")
    temporary.write_text(json.dumps(result), encoding="utf-8")
    os.replace(temporary, job["result"])


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(3)


def _measure(job: dict[str, Any], result: dict[str, Any]) -> None:
    import mlflow.pyfunc

    began = time.perf_counter()
    model = mlflow.pyfunc.load_model(job["model"])
    result["load_seconds"] = round(time.perf_counter() - began, 3)
    result["stage"] = "example"
    example, source = _example(model, job)
    result["example"] = source
    if example is None:
        return
    result["columns"] = [str(name) for name in getattr(example, "columns", [])]
    result["rows"] = len(example) if hasattr(example, "__len__") else 1
    result["finite"] = finite(model.predict(example))
    if job.get("calls"):
        result["stage"] = "latency"
        result["latency"] = _latency(model, example, int(job["calls"]), float(job["seconds"]))


def _example(model: Any, job: dict[str, Any]) -> tuple[Any, str | None]:
    """Return the model's own input example, else rows of the dataset, and which of them it is."""
    try:
        example = model.metadata.load_input_example(job["model"])
    except Exception as error:
        raise ValueError(f"its input example cannot be read ({type(error).__name__})") from error
    if example is not None:
        return example, "own"
    if job.get("rows"):
        import pandas

        return pandas.read_parquet(job["rows"]), "dataset"
    return None, None


def finite(predicted: Any) -> bool:
    """Return whether predictions hold no NaN, infinity or null."""
    import numpy as np
    import pandas as pd

    if isinstance(predicted, dict):
        return all(finite(value) for value in predicted.values())
    frame = pd.DataFrame(np.asarray(predicted) if not isinstance(predicted, (pd.DataFrame, pd.Series)) else predicted)
    if frame.isna().to_numpy().any():
        return False
    numbers = frame.select_dtypes("number").to_numpy(dtype="float64")
    return bool(np.isfinite(numbers).all())


def _latency(model: Any, example: Any, calls: int, seconds: float) -> dict[str, Any]:
    """Return p50, p95 and the number of calls: ``calls`` of them, fewer if they take longer than ``seconds``."""
    rows = _single_rows(example)
    for _ in range(WARM_UP):
        model.predict(next(rows))
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < calls and (len(taken) < WARM_UP or time.perf_counter() < end):
        row = next(rows)
        began = time.perf_counter()
        model.predict(row)
        taken.append((time.perf_counter() - began) * 1000)
    taken.sort()
    return {
        "calls": len(taken),
        "p50_ms": round(taken[len(taken) // 2], 3),
        # Nearest rank: the smallest time that at least 95% of the calls kept to.
        "p95_ms": round(taken[-(-95 * len(taken) // 100) - 1], 3),
    }


def _single_rows(example: Any) -> Iterator[Any]:
    """Yield single-row inputs for ever, round and round the example; an input without rows is taken as it is."""
    import numpy as np
    import pandas as pd

    rows: list[Any]
    if isinstance(example, (pd.DataFrame, pd.Series)):
        rows = [example.iloc[[i]] for i in range(len(example))]
    elif isinstance(example, np.ndarray) and example.ndim > 1:
        rows = [example[i : i + 1] for i in range(len(example))]
    else:
        rows = [example]
    while True:
        yield from rows


if __name__ == "__main__":
    main(sys.argv[1])
