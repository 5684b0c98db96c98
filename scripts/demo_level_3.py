"""Level 3 of the demo: the champion scores month after month, and people hear of the one that deserves it.

Labels come a month late, so each month is measured by the run of the month after it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from airflow_home import Airflow
from demo_runs import Run, table, trigger

DAG, MODEL = "mlops_level_3", "flights_late"
#: The first month after those that the champion was trained on, and the one after the last.
FIRST, AFTER = 4, 9
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September")


@dataclass
class Story:
    """What happened at level 3."""

    runs: list[Run]
    series: dict[str, dict[str, dict[str, Any]]]
    incidents: list[dict[str, Any]]


def story(airflow: Airflow) -> Story:
    """Score and watch month after month."""
    airflow.wait_for_dag(DAG)
    runs = []
    folder = str(airflow.home / "flights_in_production")  # where no broken April lies
    for month in range(FIRST, AFTER):
        conf = {"start": f"2013-{month:02d}-01", "end": f"2013-{month + 1:02d}-01", "folder": folder}
        runs.append(trigger(airflow, DAG, f"{MONTHS[month - 1]}: scored and watched", conf))
    series = {
        name: {point["start"][:7]: point for point in _history(airflow, "--series", name)}
        for name in ("drift", "estimate", "performance")
    }
    return Story(runs, series, _history(airflow, "--incidents"))


def _history(airflow: Airflow, *words: str) -> list[dict[str, Any]]:
    done = airflow.cli("mlops", "history", MODEL, *words, "--output", "json")
    if done.returncode:
        raise RuntimeError(f"airflow mlops history failed:\n{done.stdout}\n{done.stderr}")
    text = done.stdout
    found: list[dict[str, Any]] = json.loads(text[text.index("[") : text.rindex("]") + 1])
    return found


def summary(told: Story) -> None:
    """Print all windows in one table, and what people were told."""
    rows = []
    for month in range(FIRST, AFTER):
        key = f"2013-{month:02d}"
        points = {name: points.get(key) for name, points in told.series.items()}
        rows.append(
            (
                MONTHS[month - 1],
                _figure(points["drift"], "drifted_columns", "{:.0f}"),
                _figure(points["estimate"], "roc_auc", "{:.3f}"),
                _figure(points["performance"], "roc_auc", "{:.3f}"),
                (points["performance"] or {}).get("severity") or "labels are not there yet",
            )
        )
    print("\nLevel 3: what happened, month by month\n")
    table(("month", "drifted columns", "estimated ROC AUC", "measured ROC AUC", "verdict on the performance"), rows)
    print("\nWhat people were told of (airflow mlops history flights_late --incidents)\n")
    for incident in told.incidents:
        print(f"  {incident['event']:<9} {incident['severity']:<8} {incident['summary']}")
    if not told.incidents:
        print("  nothing")


def _figure(point: dict[str, Any] | None, name: str, form: str) -> str:
    value = ((point or {}).get("figures") or {}).get(name)
    return "–" if value is None else form.format(value)


def check(told: Story) -> list[str]:
    """Return what is not as it must be."""
    wrong = [
        f"{run.title}: {task} {state}" for run in told.runs for task, state in run.tasks.items() if state != "success"
    ]
    verdicts = {key: point["severity"] for key, point in told.series["performance"].items()}
    expected = {"2013-04": "error", **{f"2013-{month:02d}": "ok" for month in range(FIRST + 1, AFTER - 1)}}
    if verdicts != expected:
        wrong.append(f"verdicts on the performance: {verdicts}; expected {expected}")
    missing = {f"2013-{month:02d}" for month in range(FIRST, AFTER)} - told.series["drift"].keys()
    if missing:
        wrong.append(f"no verdict on drift in {', '.join(sorted(missing))}")
    opened = [one for one in told.incidents if one["event"] == "opened" and one["severity"] == "error"]
    if len(opened) != 1 or "roc_auc" not in opened[0]["summary"]:
        wrong.append(f"{len(opened)} alarms; expected one, of April's loss of performance")
    return wrong
