"""Airflow's own policies, as ``airflow_local_settings``: hold one try of one task where the harness asks for it.

The harness writes ``faults/DAG.TASK.armed``: ``{"point", "file"}``. The next try of that task takes it and holds at the
point: ``start``, ``end`` (the step is done, Airflow does not know it yet), or a crash point of the step.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from airflow_mlops.core.faults import HOLD_VARIABLE, hold

FAULTS = Path(os.environ["AIRFLOW_HOME"]) / "faults"

if "scheduler" in sys.argv:
    # Tasks are forked from here: what is imported once need not be imported by each.
    for name in ("mlflow.sklearn", "pandas", "pyarrow.parquet", "scipy.stats", "sklearn.ensemble", "skops.io"):
        importlib.import_module(name)


def task_policy(task: Any) -> None:
    """Retry soon and often, and ask before and after the work whether to hold."""
    import datetime as dt

    task.retries = 8
    task.retry_delay = dt.timedelta(seconds=1)
    task._pre_execute_hook = functools.partial(_before)
    task._post_execute_hook = functools.partial(_after)


def _before(context: Any) -> None:
    asked = _asked(context)
    if asked is None or asked["point"] == "end":
        return
    if asked["point"] == "start":
        _take(context, asked)
    else:
        # Whoever comes to the point first takes it: a try may be over without.
        os.environ[HOLD_VARIABLE] = f"{asked['point']}:{asked['file']}"


def _after(context: Any, result: Any = None) -> None:
    asked = _asked(context)
    if asked is not None and asked["point"] == "end":
        _take(context, asked)


def _armed(context: Any) -> Path:
    ti = context["ti"]
    return FAULTS / f"{ti.dag_id}.{ti.task_id}.armed"


def _asked(context: Any) -> dict[str, Any] | None:
    try:
        asked: dict[str, Any] = json.loads(_armed(context).read_text())
    except FileNotFoundError:
        return None
    return asked


def _take(context: Any, asked: dict[str, Any]) -> None:
    """Hold, unless another try of the task does."""
    try:
        _armed(context).unlink()
    except FileNotFoundError:
        return
    hold(Path(asked["file"]))
