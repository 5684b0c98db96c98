"""What runs in the fresh process: load a model folder, predict its input example, serve it, take its measure.

``python -m airflow_mlops.core.evaluation.fresh_process JOB.json`` with ``{"model", "rows", "measure", "calls",
"seconds", "batch", "result"}``; the result file is JSON. Nothing of the task's process is here: neither its modules nor
its path nor its credentials. The process ends when its standard input closes, so that it never outlives the task.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from airflow_mlops.core.evaluation import fresh_server
from airflow_mlops.core.evaluation.outcome import without_values

WARM_UP = 20
#: Batches that the throughput is measured on, and the seconds after which fewer must do.
BATCHES = 20
BATCH_SECONDS = 2.0


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
    wanted = job.get("measure", [])
    if "latency" in wanted:
        _part(result, "latency", lambda: _latency(model, example, int(job["calls"]), float(job["seconds"])))
    if "throughput" in wanted:
        _part(result, "throughput", lambda: _throughput(model, example, int(job["batch"])))
    if {"server", "contract", "http", "requests"} & set(wanted):
        _part(result, "server", lambda: _serve(model, example, job, result))
    result["memory"] = _memory()


def _part(result: dict[str, Any], name: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Keep what one measure found, or why it found nothing; the others go on."""
    try:
        result[name] = measure()
    except Exception as error:
        result[name] = {"error": without_values(error, result.get("columns", []))}


def _serve(model: Any, example: Any, job: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Ask the model behind MLflow's scoring server."""
    calls, seconds = int(job["calls"]), float(job["seconds"])
    body = fresh_server.body_of(example)
    with fresh_server.ScoringServer(model) as server, fresh_server.Client(server.port) as client:
        found = fresh_server.serve(client, body)
        if found["invocations"] != 200:
            return found
        if "contract" in job["measure"]:
            schema = model.metadata.get_input_schema()
            _part(result, "contract", lambda: fresh_server.contract(client, body, schema))
        if "http" in job["measure"]:
            _part(result, "http", lambda: percentiles(fresh_server.latency(client, body, calls, seconds, WARM_UP)))
        if "requests" in job["measure"]:

            def requests() -> dict[str, Any]:
                each = fresh_server.requests_per_second(server.port, body, 2 * calls, seconds)
                return {"requests_per_second": round(each, 1), "clients": fresh_server.CLIENTS}

            _part(result, "requests", requests)
    return found


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
    """Time single rows: ``calls`` of them, fewer if they take longer than ``seconds``."""
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
    return percentiles(taken)


def percentiles(taken: list[float]) -> dict[str, Any]:
    """Return the number of times and their percentiles, by nearest rank: that many of them are not longer."""
    ordered = sorted(taken)
    ranks = {f"p{share}_ms": -(-share * len(ordered) // 100) - 1 for share in (50, 95, 99)}
    return {"calls": len(ordered), **{name: round(ordered[rank], 3) for name, rank in ranks.items()}}


def _throughput(model: Any, example: Any, batch: int) -> dict[str, Any]:
    """Return how many rows a second are predicted in batches: the median of some, for two seconds at most or so."""
    rows = _repeated(example, batch)
    model.predict(rows)
    taken: list[float] = []
    end = time.perf_counter() + BATCH_SECONDS
    while len(taken) < BATCHES and (not taken or time.perf_counter() < end):
        began = time.perf_counter()
        model.predict(rows)
        taken.append(time.perf_counter() - began)
    middle = sorted(taken)[len(taken) // 2]
    return {"batch": len(rows), "batches": len(taken), "rows_per_second": round(len(rows) / max(middle, 1e-9), 1)}


def _repeated(example: Any, count: int) -> Any:
    """Return rows of the example again and again, so many.

    :raises ValueError: if it has none.
    """
    import numpy as np
    import pandas as pd

    if not isinstance(example, (pd.DataFrame, pd.Series, np.ndarray, list)) or not len(example):
        raise ValueError("the input example is no table, so it cannot be made longer")
    places = np.arange(count) % len(example)
    if isinstance(example, (pd.DataFrame, pd.Series)):
        return example.iloc[places].reset_index(drop=True)
    return [example[place] for place in places] if isinstance(example, list) else example[places]


def _memory() -> dict[str, Any] | None:
    """Return the memory of this process in MB of 10^6 bytes, at its peak and now; None where the system tells neither.

    The peak is the kernel's for this program alone: that of ``getrusage`` would have the task's process in it.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = dict(re.findall(r"^(VmHWM|VmRSS):\s+(\d+) kB", status, re.MULTILINE))
    if len(found) < 2:
        return None
    return {"peak_mb": round(int(found["VmHWM"]) * 1024 / 1e6, 1), "now_mb": round(int(found["VmRSS"]) * 1024 / 1e6, 1)}


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
