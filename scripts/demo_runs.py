"""What a demo does with an Airflow: start runs, show their tasks as they end, and read what came of them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_home import Airflow

ENDED = ("success", "failed", "upstream_failed", "up_for_retry", "skipped")


@dataclass
class Run:
    """One DAG run as it came out."""

    title: str
    state: str
    seconds: float
    tasks: dict[str, str]
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    run_id: str = ""

    def metric(self, name: str) -> str:
        """Return a figure of the model test, or a dash."""
        value = (self.results.get("model.test") or {}).get("metrics", {}).get(name)
        return f"{value:.3f}" if isinstance(value, float) else "–"

    def verdict(self, task_id: str) -> str:
        """Return ``passed``, ``failed`` or ``not run`` for a gate."""
        report = self.results.get(task_id)
        return "not run" if not report else "passed" if report["passed"] else "FAILED"

    @property
    def version(self) -> str:
        """The registered version, or a dash."""
        return str((self.results.get("model.register") or {}).get("version") or "–")


def trigger(airflow: Airflow, dag_id: str, title: str, conf: dict[str, Any], label: str = "") -> Run:
    """Trigger a DAG, show its tasks as they end, and return what came of it."""
    print(f"\n▶ {title}", flush=True)
    run = airflow.api("POST", f"/dags/{dag_id}/dagRuns", {"conf": conf, "logical_date": None})
    return follow(airflow, dag_id, run["dag_run_id"], title, label)


class Aside(threading.Thread):
    """Something that goes on beside the story; :meth:`done` waits for it, and raises what went wrong in it."""

    def __init__(self, what: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.what = what
        self.found: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Do it."""
        try:
            self.found = self.what()
        except BaseException as error:
            self.error = error

    def done(self) -> Any:
        """Return what came of it."""
        self.join()
        if self.error is not None:
            raise self.error
        return self.found


def scheduled(airflow: Airflow, dag_id: str, title: str, timeout: float = 120) -> Run:
    """Follow the run that the schedule makes as soon as a DAG is unpaused.

    :raises RuntimeError: if there is none in time.
    """
    print(f"\n▶ {title}", flush=True)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        runs = airflow.api("GET", f"/dags/{dag_id}/dagRuns?run_type=scheduled")["dag_runs"]
        if runs:
            return follow(airflow, dag_id, runs[0]["dag_run_id"], title)
        time.sleep(0.5)
    raise RuntimeError(f"the schedule made no run of {dag_id} within {timeout:.0f} s; see {airflow.log}")


def follow(airflow: Airflow, dag_id: str, run_id: str, title: str, label: str = "") -> Run:
    """Show a run's tasks as they end, and return what came of it."""
    begun = time.monotonic()
    tasks: dict[str, str] = {}
    while (state := look(airflow, dag_id, run_id, tasks, label)) not in ("success", "failed"):
        time.sleep(0.5)
    return outcome(airflow, dag_id, run_id, title, state, time.monotonic() - begun, tasks)


def look(
    airflow: Airflow,
    dag_id: str,
    run_id: str,
    tasks: dict[str, str],
    label: str = "",
    quiet: tuple[str, ...] = (),
) -> str:
    """Show what has ended since the last look, note each task's state, and return the run's."""
    path = f"/dags/{dag_id}/dagRuns/{run_id}"
    state: str = airflow.api("GET", path)["state"]
    for task in airflow.api("GET", f"{path}/taskInstances")["task_instances"]:
        name, now = task["task_id"], task["state"]
        if now != tasks.get(name) and now in ENDED and now not in quiet:
            print(f"    {label}{name:<16} {now:<16} {task['duration'] or 0:5.1f} s", flush=True)
        tasks[name] = now
    return state


def outcome(
    airflow: Airflow, dag_id: str, run_id: str, title: str, state: str, seconds: float, tasks: dict[str, str]
) -> Run:
    """Return a run with what its tasks returned."""
    run = Run(title, state, seconds, tasks, run_id=run_id)
    path = f"/dags/{dag_id}/dagRuns/{run_id}"
    for name in tasks:
        entries = airflow.api("GET", f"{path}/taskInstances/{name}/xcomEntries")["xcom_entries"]
        if any(entry["key"] == "return_value" for entry in entries):
            entry = airflow.api("GET", f"{path}/taskInstances/{name}/xcomEntries/return_value?deserialize=false")
            value = entry["value"]
            value = json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value
            if isinstance(value, dict):
                run.results[name] = value
    return run


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print rows under their heads."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    for row in (heads, tuple("─" * width for width in widths), *rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
