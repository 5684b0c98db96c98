"""Levels 3 and 4 of the demo: each month the champion scores and is watched, and what is seen drives what is done.

The DAGs trigger each other: each verdict of level 3 is an event that starts level 4, which decides, retrains, tests and
releases. Labels come a month late. After October somebody forces a model in that a gate had stopped; the probation of
the release takes it back once the labels of November have come.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import demo_level_2 as level_2
from airflow_home import ROOT, Airflow
from demo_control import Gain, context_of, mean_of, months_of
from demo_level_2 import champion
from demo_runs import ENDED, Run, look, outcome, table, trigger
from demo_serving import Serving

from airflow_mlops.core.errors import NotFoundError

WATCH, LOOP, MODEL = "mlops_level_3", "mlops_level_4", "flights_late"
#: The first month after those that the first champions were trained on, the last one, and the one with the bad release.
FIRST, LAST, FORCED_IN = 4, 12, 11
#: By when a person has approved the release of level 2: before anything is retrained.
RELEASED_IN = 7
NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Seconds that the runs of level 4 may take.
PATIENCE = 900
#: Of the canary: what a demo has time for.
CANARY = {"steps": [50], "interval": "2s", "min_requests": 20, "min_rows": 20, "max_latency_ratio": 1000}


def clock(month: int) -> str:
    """Return the day after a month: the present of the run that watches it."""
    return f"2013-{month + 1:02d}-01" if month < 12 else "2014-01-01"


@dataclass
class Loop:
    """One run of level 4.

    :param event: when what started it was told, and how long its first task took from then on.
    """

    run_id: str
    month: int
    tasks: dict[str, str] = field(default_factory=dict)
    run: Run | None = None
    latency: float | None = None

    @property
    def decided(self) -> bool:
        """Whether it is known if it retrains."""
        return self.run is not None or self.tasks.get("decide") in ENDED

    @property
    def retrains(self) -> bool:
        """Whether it does more than decide."""
        return self.tasks.get("data.window") != "skipped"


@dataclass
class Story:
    """What happened at levels 3 and 4."""

    champion: str
    watched: dict[int, Run] = field(default_factory=dict)
    versions: dict[int, str] = field(default_factory=dict)
    loops: list[Loop] = field(default_factory=list)
    forced: str = ""
    before_forced: str = ""


class Files:
    """The months' files: made once, and then landing one by one as if an airline's system dropped them.

    :param folder: where they wait.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = threading.Thread(target=self._make, daemon=True)

    def make(self) -> None:
        """Begin to make them."""
        self._thread.start()

    def _make(self) -> None:
        code = "import sys; from flights.source import land; land('2013-01-01', '2014-01-01', sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-c", code, str(self.folder / "making")], cwd=ROOT / "dags", capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"the months' files could not be made:\n{done.stderr}")
        (self.folder / "making").rename(self.folder / "made")

    def arrive(self, month: int, folder: Path) -> Path:
        """Have a month's file appear in a folder, whole."""
        self._thread.join()
        folder.mkdir(parents=True, exist_ok=True)
        name = f"flights-2013-{month:02d}.parquet"
        shutil.copy(self.made / name, folder / f"{name}.tmp")
        (folder / f"{name}.tmp").rename(folder / name)
        return folder / name

    @property
    def made(self) -> Path:
        """The folder that has all of them."""
        return self.folder / "made"


class Control:
    """The frozen model scores beside everything else, in a process of its own.

    :param airflow: whose home has the model.
    """

    def __init__(self, airflow: Airflow, files: Files) -> None:
        self.airflow, self.files, self.version = airflow, files, ""
        self.out = airflow.home / "frozen.parquet"
        self.process: subprocess.Popen[str] | None = None

    def begin(self, version: str) -> None:
        """Freeze a version."""
        self.version = version
        command = [sys.executable, str(ROOT / "scripts" / "demo_control.py"), str(self.airflow.home), version]
        self.process = subprocess.Popen(
            ["nice", *command, str(self.files.made), str(self.out)],
            env={**self.airflow.environment, "PYTHONPATH": str(ROOT / "dags"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def months(self) -> dict[str, Gain]:
        """Return the comparison of each month, once it has scored all."""
        assert self.process is not None
        _, said = self.process.communicate(timeout=PATIENCE)
        if self.process.returncode:
            raise RuntimeError(f"the frozen model could not score:\n{said}")
        return months_of(self.airflow.home, self.files.made, self.out)


def story(airflow: Airflow, files: Files, serving: Serving, commits: level_2.Story) -> Story:
    """Play the months from April to December.

    :param commits: of level 2, whose runs go on meanwhile; one of them is stopped at its gate.
    """
    for dag_id in (LOOP, WATCH):
        airflow.wait_for_dag(dag_id)
    told = Story(champion(airflow))
    for month in range(FIRST, LAST + 1):
        files.arrive(month, airflow.home / "flights")
        if month == FORCED_IN:
            stopped = commits.commits[2].run
            assert stopped is not None
            _force(airflow, told, stopped.results["model.train"])
        conf = {"start": f"2013-{month:02d}-01", "end": clock(month)}
        if month == RELEASED_IN:
            level_2.release(airflow, commits, serving)
        told.versions[month] = champion(airflow)
        run = trigger(
            airflow, WATCH, f"{NAMES[month - 1]}: scored by version {told.versions[month]}, and watched", conf
        )
        told.watched[month] = run
        if commits.again is not None:
            commits.again.done()
        _loop(airflow, told, month, serving)
    _until(airflow, told, serving, lambda: all(one.run for one in told.loops))
    return told


def _force(airflow: Airflow, told: Story, stopped: dict[str, Any]) -> None:
    """Have somebody put a model in that a gate had stopped."""
    from airflow_mlops.core.registry.register import register_model

    _until(airflow, told, None, lambda: all(one.run for one in told.loops))
    told.before_forced = champion(airflow)
    told.forced = str(register_model(context_of(airflow.home), model=stopped, model_name=MODEL)["version"])
    command = ["mlops", "promote", MODEL, told.forced, "--without-evidence", "--clock", clock(FORCED_IN - 1)]
    command += ["--reason", "in a hurry: it looked good on my machine", "--by", "somebody"]
    print(f"\n▶ Somebody registers the model that level 2 had stopped, and forces it in: airflow {' '.join(command)}")
    done = airflow.cli(*command)
    if done.returncode:
        raise RuntimeError(f"the bad release did not get in:\n{done.stdout}\n{done.stderr}")
    print("    done: nothing stops a person who waives the evidence, but the ledger says so", flush=True)


def _loop(airflow: Airflow, told: Story, month: int, serving: Serving) -> None:
    """Wait until each event of a month has its run, and nothing is retrained, or that is over."""
    run = told.watched[month]
    path = f"/assets/events?source_dag_id={WATCH}&source_run_id={quote(run.run_id, safe='')}"
    events: list[dict[str, Any]] = []
    mine: list[Loop] = []

    def over() -> bool:
        """Whether all is known: runs take turns, and one may read an event that came too late to start its own."""
        waiting = _queued(airflow)
        events[:] = airflow.api("GET", path)["asset_events"]
        for made in (one for event in events for one in event["created_dagruns"] if one["dag_id"] == LOOP):
            if made["run_id"] not in {one.run_id for one in told.loops}:
                mine.append(Loop(made["run_id"], month))
                told.loops.append(mine[-1])
        return bool(mine) and not waiting and all(one.run or (one.decided and not one.retrains) for one in mine)

    _until(airflow, told, serving, over)
    _measure(airflow, events, mine)


def _queued(airflow: Airflow) -> bool:
    """Whether an event is still to start a run of level 4."""
    try:
        return bool(airflow.api("GET", f"/dags/{LOOP}/assets/queuedEvents")["total_entries"])
    except urllib.error.HTTPError as error:
        if error.code != 404:  # Airflow's word for none
            raise
        return False


def _measure(airflow: Airflow, events: list[dict[str, Any]], loops: list[Loop]) -> None:
    """Note how long it took from the first event of a month to the first task of level 4."""
    first = min(events, key=lambda event: event["timestamp"])
    for one in loops:
        if one.run_id in {made["run_id"] for made in first["created_dagruns"]}:
            path = f"/dags/{LOOP}/dagRuns/{one.run_id}/taskInstances/clock"
            one.latency = _seconds(airflow.api("GET", path)["start_date"]) - _seconds(first["timestamp"])


def _seconds(instant: str) -> float:
    import datetime as dt

    return dt.datetime.fromisoformat(instant.replace("Z", "+00:00")).timestamp()


def _until(airflow: Airflow, told: Story, serving: Serving | None, done: Any) -> None:
    """Follow the runs of level 4 until something is the case."""
    end = time.monotonic() + PATIENCE
    while not done():
        for one in told.loops:
            if one.run is None:
                state = look(airflow, LOOP, one.run_id, one.tasks, f"level 4, {clock(one.month)}: ", quiet=("skipped",))
                if serving is not None and one.tasks.get("release.canary") == "running":
                    _ask(serving, airflow.home / "flights" / f"flights-2013-{one.month:02d}.parquet")
                if state in ("success", "failed"):
                    title = f"level 4 on {clock(one.month)}"
                    one.run = outcome(airflow, LOOP, one.run_id, title, state, 0.0, one.tasks)
                    _say(one.run)
        if time.monotonic() > end:
            raise RuntimeError(f"level 4 did not get on within {PATIENCE} s: {[one.tasks for one in told.loops]}")
        time.sleep(0.5)


def _say(run: Run) -> None:
    decision = run.results.get("decide") or {}
    print(f"    → {decision.get('reason', 'no decision')}")
    for name in ("model.test", "release.promote", "probation.rollback"):
        said = run.results.get(name) or {}
        if said.get("kind") in ("model_test", "refusal"):
            print(f"    → {said.get('summary') or said.get('reason')}")
        elif said.get("kind") not in (None, "no_rollback"):
            print(
                f"    → {said['action']}: version {said['version']} serves; before, version {said['previous_version']}"
            )
    sys.stdout.flush()


def _ask(serving: Serving, path: Path, rows: int = 40) -> None:
    """Ask the server for some flights, as its clients would."""
    import pandas as pd

    frame = pd.read_parquet(path).sample(rows).drop(columns=["late"])
    for place in range(rows):
        one = json.loads(frame.iloc[place : place + 1].to_json(orient="split", index=False, date_format="iso"))
        body = json.dumps({"dataframe_split": one}).encode()
        request = urllib.request.Request(f"{serving.address}/invocations", data=body, method="POST")
        request.add_header("Content-Type", "application/json")
        request.add_header("X-Key", str(frame["flight_id"].iloc[place]))  # the same flight meets the same server
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=10).read()


def points(airflow: Airflow, series: str) -> dict[str, Any]:
    """Return the points of a series by month."""
    from airflow_mlops.core.monitoring import history

    found = history.read(context_of(airflow.home).store, MODEL, kind=series)
    return {point.window["start"][:7]: point for point in found}


def summary(airflow: Airflow, told: Story, control: Control, months: dict[str, Gain]) -> None:
    """Print the timeline, what the loop gained, and what people were told."""
    drift, estimate, true = (points(airflow, name) for name in ("drift", "estimate", "performance"))
    rows = []
    for month in told.watched:
        key = f"2013-{month:02d}"
        measured, gain = true.get(key), months[key]
        low, high = (measured.facts.get("intervals", {}).get("roc_auc") or [None, None]) if measured else (None, None)
        text = "not known yet" if measured is None else f"{measured.figures['roc_auc']:.3f} ({low:.3f}–{high:.3f})"
        estimated = estimate[key].figures.get("roc_auc") if key in estimate else None
        version = told.versions.get(month) or "–"
        decisions = [one.run.results.get("decide") or {} for one in told.loops if one.month == month and one.run]
        acted = [one for one in decisions if one.get("action") != "wait"] or decisions
        rows.append(
            (
                NAMES[month - 1],
                f"{drift[key].figures['drifted_columns']:.0f}" if key in drift else "–",
                _late(control.files.made / f"flights-{key}.parquet"),
                "–" if estimated is None else f"{estimated:.3f}",
                text,
                f"{gain.frozen:.3f}" if measured else "",
                version,
                " ".join(_outcome(one) for one in told.loops if one.month == month) or "–",
                str((acted[-1] if acted else {}).get("reason", "")),
            )
        )
    print(
        "\nThe year: a month is scored by the version that serves, and measured when its labels have come (ROC AUC)\n"
    )
    heads = ("month", "drifted", "late", "estimated", "true (95 %)", "frozen", "version", "then level 4")
    table(heads, [row[:8] for row in rows])
    print("\nWhy\n")
    for row, month in zip(rows, told.watched, strict=True):
        print(f"  {clock(month)}  {row[8]}")
    for line in gained(told, control, months):
        print(line)
    delays = [one.latency for one in told.loops if one.latency is not None]
    print(
        f"\n  From an event of level 3 to the first task of level 4: {max(delays):.1f} s at most, "
        f"{sorted(delays)[len(delays) // 2]:.1f} s in the middle of {len(delays)}"
    )

    _people(airflow, told)


def _people(airflow: Airflow, told: Story) -> None:
    """Print what people were told of, and where the reports are."""
    from airflow_mlops.core.alerts.listing import incident_history

    print("\nWhat people were told of (airflow mlops history flights_late --incidents)\n")
    with contextlib.suppress(NotFoundError):
        for row in incident_history(context_of(airflow.home), MODEL):
            print(f"  {row['event']:<9} {row['severity']:<8} {row['summary']}")
    print("\nReports (in the UI: the buttons Report and Model card of each task)\n")
    runs = [one.run for one in told.loops if one.run]
    for run, name in [(run, "model.test") for run in runs] + [(run, "probation.compare") for run in runs]:
        if uri := (run.results.get(name) or {}).get("report_uri"):
            print(f"  {run.title}, {name}: {Path(unquote(urlsplit(uri).path)).relative_to(ROOT)}")


def _late(path: Path) -> str:
    import pandas as pd

    return f"{pd.read_parquet(path, columns=['late'])['late'].mean():.2f}"


def _outcome(one: Loop) -> str:
    """Return what came of a run of level 4, in a few words."""
    if one.run is None:
        return ""
    back, new = (one.run.results.get(name) or {} for name in ("probation.rollback", "release.promote"))
    words = [f"rolled back to {back['version']}."] if back.get("action") == "rollback" else []
    if new.get("action") == "promote":
        words.append(f"retrained: {new['version']} won.")
    elif new.get("kind") == "refusal":
        words.append(f"retrained: {new['version']} lost.")
    return " ".join(words)


def first_retraining(told: Story) -> int:
    """Return the first month that was scored after a retraining."""
    return min(one.month for one in told.loops if one.run and "model.train" in one.run.results) + 1


def gained(told: Story, control: Control, months: dict[str, Gain]) -> list[str]:
    """Return what the loop gained, in lines."""
    begin = first_retraining(told)
    whole = [month for month in range(begin, LAST) if month != FORCED_IN]
    found = [f"\nWhat the loop gained over version {control.version}, which nobody retrains, labels a month late\n"]
    for title, some in (
        (f"{NAMES[begin - 1]} to {NAMES[max(whole) - 1]}, after the first retraining", whole),
        (f"with {NAMES[FORCED_IN - 1]}, whose version was forced past the gate", [*whole, FORCED_IN]),
    ):
        mean = mean_of([months[f"2013-{month:02d}"] for month in some])
        low, high = mean.interval
        found.append(
            f"  {title}: {mean.loop:.3f} against {mean.frozen:.3f}, {mean.ahead:+.3f} ({low:+.3f} to {high:+.3f})"
        )
    return found


def check(airflow: Airflow, told: Story, months: dict[str, Gain]) -> list[str]:
    """Return what is not as it must be."""
    wrong = []
    verdicts = {key: point.severity for key, point in points(airflow, "performance").items()}
    if missing := {f"2013-{month:02d}" for month in range(FIRST, LAST)} - verdicts.keys():
        wrong.append(f"not measured: {', '.join(sorted(missing))}")
    if verdicts.get("2013-04") != "error":
        wrong.append(f"the loss of performance in April was told as {verdicts.get('2013-04')}")
    for run in [*told.watched.values(), *(one.run for one in told.loops if one.run)]:
        for name, state in run.tasks.items():
            if state not in (("success",) if run in told.watched.values() else ("success", "skipped")):
                wrong.append(f"{run.title}: {name} {state}")
        if run.state != "success":
            wrong.append(f"{run.title}: {run.state}")
    results = [one.run.results for one in told.loops if one.run]
    retrained = [one for one in results if "model.train" in one]
    won = [one["release.promote"] for one in retrained if one.get("release.promote", {}).get("action") == "promote"]
    lost = [one for one in retrained if one.get("release.promote", {}).get("kind") == "refusal"]
    if not won:
        wrong.append("no challenger won")
    if not lost:
        wrong.append("no challenger lost")
    if len(retrained) > 5:
        wrong.append(f"{len(retrained)} retrainings; at most 5 in 10 months")
    back = [one.get("probation.rollback") or {} for one in results]
    went = [(str(one["previous_version"]), str(one["version"])) for one in back if one.get("action") == "rollback"]
    if went != [(told.forced, told.before_forced)]:
        wrong.append(f"rollbacks {went}; expected one, from the forced {told.forced} to {told.before_forced}")
    begin = first_retraining(told) if retrained else LAST
    whole = [months[f"2013-{month:02d}"] for month in range(begin, LAST) if month != FORCED_IN]
    if not whole or mean_of(whole).interval[0] <= 0:
        wrong.append("the loop's champion did not beat the frozen model")
    delays = [one.latency for one in told.loops if one.latency is not None]
    if len(delays) != len(told.watched):
        wrong.append(f"{len(delays)} of {len(told.watched)} months were acted on")
    return wrong
