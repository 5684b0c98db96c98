"""The fresh process, seen from the task: start it, wait for it, read what it found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import airflow_mlops

if TYPE_CHECKING:
    import pandas

#: Calls that the p95 is taken over, and the seconds after which fewer must do.
CALLS = 300
CALL_SECONDS = 20.0
#: What the process gets of the task's environment: how to run, none of its credentials.
KEPT = (
    "CUDA_VISIBLE_DEVICES", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LOGNAME", "MKL_NUM_THREADS",
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION",
)  # fmt: skip


def environment(scratch: Path) -> dict[str, str]:
    """Return the environment of the fresh process: its path holds the provider and what is installed."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {
        "PYTHONPATH": str(Path(airflow_mlops.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/none.db",
    }


def run(
    model: Path,
    *,
    rows: pandas.DataFrame | None,
    measure: Collection[str],
    batch: int,
    timeout: float,
    scratch: Path,
) -> dict[str, Any]:
    """Load a model folder in a fresh process and return what it found.

    :param model: the verified copy.
    :param rows: rows to predict if the model has no input example of its own.
    :param measure: what to find out: ``latency``, ``throughput``, ``server``, ``contract``, ``http``, ``requests``.
    :param batch: rows of one batch of the throughput.
    :param timeout: seconds after which the process is killed.
    :param scratch: an empty folder for the job's files, which is also the working directory.
    :return: ``stage`` (``load``, ``example``, ``done``), ``error`` where it ended before ``done``, ``load_seconds``,
        ``example`` (``own``, ``dataset`` or None), ``rows``, ``finite``, ``memory``, and of what was measured a dict
        each, with an ``error`` where that went wrong.
    """
    job = {
        "model": str(model), "measure": sorted(measure), "batch": batch, "calls": CALLS, "seconds": CALL_SECONDS,
    }  # fmt: skip
    return {"stage": "load", **answer("airflow_mlops.core.evaluation.fresh_process", job, rows, scratch, timeout)}


def answer(
    module: str, job: dict[str, Any], rows: pandas.DataFrame | None, scratch: Path, timeout: float
) -> dict[str, Any]:
    """Run ``python -m MODULE JOB.json`` and return its result; ``{"error"}`` if it died, or took too long.

    :param job: what the module knows to do; it is given ``rows``, a Parquet file or None, and ``result`` too.
    :param timeout: seconds after which the process is killed with all that it started.
    :param scratch: an empty folder for the job's files, which is also the working directory.
    """
    result = scratch / "result.json"
    job = {**job, "rows": None, "result": str(result)}
    if rows is not None:
        rows.to_parquet(scratch / "rows.parquet")
        job["rows"] = str(scratch / "rows.parquet")
    (scratch / "job.json").write_text(json.dumps(job), encoding="utf-8")
    with open(scratch / "output.txt", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(scratch / "job.json")],
            stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=scratch, env=environment(scratch),
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return {"error": f"it did not answer within {timeout:g} seconds"}
        finally:
            _end(process)
    if not result.exists():
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return {"error": f"the process died ({how})"}
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        process.stdin.close()
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
