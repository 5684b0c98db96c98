"""`make demo`: MLOps levels 1 to 4 on real flights, under a real scheduler, ending with what happened.

Level 1: three runs of ``dags/mlops_level_1.py`` and two releases by hand. The schedule starts the first run, on January
and February 2013, whose model is promoted from the command line; with March a second one is trained and tested against
the champion, and promoted by the promotion DAG; an April file with broken columns must stop at validation.

Level 2: three commits to a git repository; see :mod:`demo_level_2`.

Levels 3 and 4: what serves then is watched, month after month, and what is seen drives retraining, testing and release;
see :mod:`demo_level_4`. A model that nobody retrains is the control; see :mod:`demo_control`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import demo_level_2 as level_2
import demo_level_4 as level_4
from airflow_home import ROOT, Airflow, stop_group
from demo_runs import Aside, Run, scheduled, table, trigger
from demo_serving import Serving

DEMO = ROOT / ".demo"
HOME = DEMO / "airflow"
PROJECT = DEMO / "project"
LANDING = HOME / "flights"  # the DAG's own default
DAG = "mlops_level_1"
MODEL = "flights_late"


def window(start: str, end: str) -> dict[str, Any]:
    """Return the parameters of a run of level 1."""
    return {"start": start, "end": end, "folder": str(LANDING), "model_name": MODEL}


def corrupt_april(files: level_4.Files) -> Path:
    """Land an April whose supplier renamed a column and sends temperatures as text, where nobody else reads it."""
    import pandas as pd

    path = files.arrive(4, HOME / "flights_of_another_supplier")
    frame = pd.read_parquet(path).rename(columns={"distance": "dist_miles"})
    frame["temp"] = frame["temp"].map(lambda value: f"{value} F")
    frame.to_parquet(path, index=False)
    return path.parent


def promote_by_hand(airflow: Airflow, version: str) -> None:
    """Release a version as a person would, from the command line."""
    command = ["mlops", "promote", MODEL, version, "--reason", "first model, report read"]
    print(f"\n▶ A person releases it: airflow {' '.join(command)}", flush=True)
    done = airflow.cli(*command)
    if done.returncode:
        raise RuntimeError(f"promotion failed:\n{done.stdout}\n{done.stderr}")
    print("    done", flush=True)


@dataclass
class Story:
    """What happened at level 1: its runs, that of the promotion DAG, and one that goes on beside what follows."""

    runs: list[Run]
    release: Run
    third: Aside | None = None


def story(airflow: Airflow, files: level_4.Files) -> Story:
    """Play level 1."""
    for month in (1, 2):
        files.arrive(month, LANDING)
    for dag_id in (DAG, f"{DAG}_promote", level_2.DAG):
        airflow.wait_for_dag(dag_id)
    first = scheduled(airflow, DAG, "January and February: a first model, started by the schedule")
    if first.state != "success":
        return Story([first], first)
    promote_by_hand(airflow, first.version)
    files.arrive(3, LANDING)
    second = trigger(
        airflow,
        DAG,
        "With March: a challenger, tested on rows that neither has seen",
        window("2013-01-01", "2013-04-01"),
    )
    conf = {"model_name": MODEL, "version": int(second.version), "reason": "passed against the champion"}
    release = trigger(airflow, f"{DAG}_promote", "A person releases it: the promotion DAG", conf)
    conf = {**window("2013-04-01", "2013-05-01"), "folder": str(corrupt_april(files))}
    title = "April of another supplier, who renamed a column and retyped one"
    return Story([first, second], release, Aside(lambda: trigger(airflow, DAG, title, conf, "level 1, April: ")))


def check(runs: list[Run], release: Run) -> list[str]:
    """Return what is not as it must be; an empty list is a demo that worked."""
    wrong = []
    expected = [("success", "1"), ("success", "2"), ("failed", "–")]
    for run, (state, version) in zip(runs, expected, strict=False):
        if (run.state, run.version) != (state, version):
            wrong.append(f"{run.title}: {run.state}, version {run.version}; expected {state}, version {version}")
    if len(runs) != len(expected):
        wrong.append(f"only {len(runs)} of {len(expected)} runs took place")
        return wrong
    skews = {failure.get("skew") for failure in (runs[2].results.get("data.validate") or {}).get("failures", [])}
    if runs[2].tasks.get("data.validate") != "failed" or "schema" not in skews:
        wrong.append("the corrupted month was not stopped at validation with a schema error")
    if runs[2].tasks.get("model.train") != "upstream_failed":
        wrong.append("training ran on the corrupted month")
    if runs[1].results.get("model.test", {}).get("champion_version") != 1:
        wrong.append("the second model was not tested against the champion")
    if release.state != "success" or release.results.get("promote", {}).get("version") != 2:
        wrong.append("version 2 was not promoted")
    return wrong


def summary(airflow: Airflow, runs: list[Run], seconds: float) -> None:
    """Print what happened, for somebody who has never seen the project."""
    heads = ("run", "validation", "model test", "version", "ROC AUC", "champion's", "time")
    rows = [
        (
            run.title.partition(":")[0].partition(",")[0],
            run.verdict("data.validate"),
            run.verdict("model.test"),
            run.version,
            run.metric("roc_auc"),
            run.metric("champion_roc_auc"),
            f"{run.seconds:.0f} s",
        )
        for run in runs
    ]
    print("\nLevel 1: what happened\n")
    table(heads, rows)
    print("\nWho released what (airflow mlops history flights_late)\n")
    print("  " + airflow.cli("mlops", "history", MODEL).stdout.strip().replace("\n", "\n  "))
    print("\nReports\n")
    for run in runs:
        for name, result in run.results.items():
            if result.get("report_uri"):
                path = Path(unquote(urlsplit(result["report_uri"]).path))
                print(f"  {name:<14} {result['summary']}\n  {'':<14} {path.relative_to(ROOT)}")
    print(f"\nLevel 1 took {seconds:.0f} s.")


def up(airflow: Airflow, serving: Serving) -> None:
    """Run Airflow, and MLflow's own UI beside it, until Ctrl-C."""
    mlflow = None
    database = HOME / "mlops" / "mlflow.db"
    try:
        serving.recall()
        with airflow.running(), serving.running():
            if database.exists():
                command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}"]
                command += ["--host", "127.0.0.1", "--port", str(airflow.ports["mlflow"]), "--workers", "1"]
                mlflow = subprocess.Popen(
                    command,
                    env={**airflow.environment, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            user, password = airflow.password
            print(f"Airflow: {airflow.url}  user {user}, password {password}")
            print(f"MLflow:  {airflow.mlflow_url}" if mlflow else "MLflow:  nothing there yet; run make demo first")
            print(f"Models:  {serving.told()}")
            print("Ctrl-C stops all of it.", flush=True)
            assert airflow.process is not None
            airflow.process.wait()
    except KeyboardInterrupt:
        print("\nstopping", flush=True)
    finally:
        stop_group(mlflow)


def play(airflow: Airflow, project: level_2.Project, serving: Serving, files: level_4.Files) -> list[str]:
    """Play all levels, print what happened, and return what is not as it must be."""
    begun = time.monotonic()
    one = story(airflow, files)
    if one.third is None:
        return check(one.runs, one.release)
    control = level_4.Control(airflow, files)
    control.begin(one.runs[1].version)
    serving.decide()
    with serving.running():
        two = level_2.begin(airflow, project)
        one.runs.append(one.third.done())
        summary(airflow, one.runs, time.monotonic() - begun)
        wrong = check(one.runs, one.release)
        if wrong:
            return wrong
        loop = level_4.story(airflow, files, serving, two)
    level_2.summary(two, serving)
    months = control.months()
    level_4.summary(airflow, loop, control, months)
    return [*level_2.check(two, serving), *level_4.check(airflow, loop, months)]


def main() -> int:
    """Run the demo, or keep the UI up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser.add_argument("--up", action="store_true", help="keep Airflow's UI running until Ctrl-C")
    options = parser.parse_args()
    if not options.up:
        shutil.rmtree(DEMO, ignore_errors=True)
    airflow = Airflow(HOME, ROOT / "dags")
    project = level_2.Project(PROJECT)
    airflow.environment.update(level_2.environment(project), MLOPS_CANARY=json.dumps(level_4.CANARY))
    serving = Serving(airflow)
    if options.up:
        up(airflow, serving)
        return 0
    serving.forget()
    serving.look()
    begun = time.monotonic()
    print("Starting Airflow (api-server, scheduler, dag-processor, triggerer) in .demo/airflow …", flush=True)
    files = level_4.Files(DEMO / "months")
    files.make()
    with airflow.running():
        print(f"  up after {time.monotonic() - begun:.0f} s at {airflow.url}", flush=True)
        wrong = play(airflow, project, serving, files)
    print(f"\nAll in {time.monotonic() - begun:.0f} s. See it in Airflow's UI, and have the champion answer: make up")
    for line in wrong:
        print(f"✗ {line}")
    print("" if wrong else "✓ Everything went as it must.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
