"""Level 2 of the demo: commits to a real git repository, and what becomes of each.

The repository holds the example project. The first push improves the model, and is released once a person has approved
it; the second commit breaks the project's own tests and stops there; the third makes the model worse and stops at the
gate. Then the release is rolled back. The commits are tested beside what the champion does meanwhile, and the person
takes their time.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from airflow_home import ROOT, Airflow
from demo_control import context_of
from demo_runs import Aside, Run, look, outcome, table, trigger
from demo_serving import Serving

DAG, MODEL = "mlops_level_2", "flights_late"
APPROVE = "release.approve"
#: Seconds that a commit may take to become a run, and a run to end.
NOTICE, PATIENCE = 300, 1800


class Project:
    """The example project in a repository of its own: a working copy, and the place that it is pushed to.

    :param folder: for both.
    """

    def __init__(self, folder: Path) -> None:
        self.work, self.remote = folder / "work", folder / "project.git"
        if self.remote.exists():
            return
        self.work.mkdir(parents=True)
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(self.remote))
        self._git("init", "--quiet", "--initial-branch=main", ".")
        shutil.copytree(ROOT / "dags" / "flights", self.work / "flights", ignore=shutil.ignore_patterns("__pycache__"))

    def _git(self, *arguments: str) -> str:
        names = {
            f"GIT_{who}_{what}": "demo@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        done = subprocess.run(
            ["git", *arguments], cwd=self.work, env={**inherited, **names}, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, subject: str) -> str:
        """Commit what has changed, and return the sha."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", subject)
        return self._git("rev-parse", "HEAD")

    def push(self) -> None:
        """Push the branch."""
        self._git("push", "--quiet", str(self.remote), "main")

    def edit(self, file: str, before: str, after: str) -> None:
        """Replace text that must be there."""
        path = self.work / "flights" / file
        text = path.read_text()
        if before not in text:
            raise RuntimeError(f"{path} no longer has {before!r}: mend the demo")
        path.write_text(text.replace(before, after))


@dataclass
class Commit:
    """A commit and the run that acts on it."""

    title: str
    sha: str
    run_id: str = ""
    tasks: dict[str, str] = field(default_factory=dict)
    begun: float = 0.0
    answers: int = 0
    run: Run | None = None

    def watch(self, airflow: Airflow) -> None:
        """Show what has ended since, and note how the run came out."""
        if self.run is None:
            state = look(airflow, DAG, self.run_id, self.tasks, f"{self.sha[:7]} ")
            if state in ("success", "failed"):
                seconds = time.monotonic() - self.begun
                self.run = outcome(airflow, DAG, self.run_id, self.title, state, seconds, self.tasks)

    @property
    def stopped_at(self) -> str:
        """The first task that failed, or a dash."""
        return next((name for name, state in self.tasks.items() if state == "failed"), "–")


@dataclass
class Story:
    """What happened at level 2."""

    commits: list[Commit]
    champion_before: str
    champion_released: str = ""
    champion_after: str = ""
    served: str = ""
    served_after: str = ""
    asked: threading.Event = field(default_factory=threading.Event)
    runs: Aside | None = None
    again: Aside | None = None


def environment(project: Project) -> dict[str, str]:
    """Return what Airflow must know of the repository."""
    known = {"MLOPS_REPOSITORY": str(project.remote), "MLOPS_REF": "main", "MLOPS_POLL_SECONDS": "2"}
    # How fast a busy machine answers says nothing of the model.
    known["MLOPS_P95_MS"] = "60000"
    return known


def push(airflow: Airflow, project: Project, title: str, subject: str, known: list[Commit]) -> Commit:
    """Commit and push, and wait until the watcher has started a run."""
    sha = project.commit(subject)
    print(f"\n▶ git push: {title} ({sha[:7]} {subject!r})", flush=True)
    project.push()
    made = Commit(title, sha, begun=time.monotonic())
    end = time.monotonic() + NOTICE
    while time.monotonic() < end:
        for run in airflow.api("GET", f"/dags/{DAG}/dagRuns?order_by=-run_after")["dag_runs"]:
            if run["dag_run_id"] not in {one.run_id for one in known}:
                made.run_id = run["dag_run_id"]
                return made
        for one in known:
            one.watch(airflow)
        time.sleep(0.5)
    raise RuntimeError(f"the push of {sha[:7]} started no run within {NOTICE} s; see {airflow.log}")


def approve(airflow: Airflow, commit: Commit) -> None:
    """Answer the question whether the model may be released, if it is asked now."""
    if commit.tasks.get(APPROVE) not in ("deferred", "awaiting_input"):
        return
    # A person takes longer: before its scheduler has seen that the worker is done, Airflow 3.3 takes a task that goes
    # on for lost, and asks anew when it is tried again.
    done = f"TaskInstance Finished: .*task_id={re.escape(APPROVE)}, run_id={re.escape(str(commit.run_id))}"
    if len(re.findall(done, airflow.log.read_text(errors="replace"))) <= commit.answers:
        return
    path = f"/dags/{DAG}/dagRuns/{commit.run_id}/taskInstances/{APPROVE}/-1/hitlDetails"
    asked = airflow.api("GET", path)
    if asked["response_received"]:
        return
    print(f"    {commit.sha[:7]} asks: {asked['subject']}", flush=True)
    answer = {"chosen_options": ["Approve"], "params_input": {"reason": "better on the same days; report read"}}
    airflow.api("PATCH", path, answer)
    commit.answers += 1
    print(f"    {commit.sha[:7]} approved through the REST API", flush=True)


def champion(airflow: Airflow) -> str:
    """Return the version that serves, by the ledger."""
    from airflow_mlops.core.registry.ledger import Ledger, last_done

    entry = last_done(Ledger(context_of(airflow.home).store, MODEL).entries(), "champion")
    return str(entry.version) if entry else "–"


def begin(airflow: Airflow, project: Project) -> Story:
    """Push the commits; their runs go on beside what follows."""
    told = Story([], champion(airflow))
    commits = told.commits
    project.commit("The project as level 1 has it")
    project.edit("trainer.py", "max_iter: int = 100", "max_iter: int = 150")
    project.edit("trainer.py", "learning_rate: float = 0.1", "learning_rate: float = 0.03")
    commits.append(push(airflow, project, "improves the model", "Learn more slowly, for longer", commits))
    project.edit("features.py", "// 100 * 60 +", "// 100 * 100 +")
    commits.append(push(airflow, project, "breaks the project's tests", "Tidy up the clock times", commits))
    project.edit("features.py", "// 100 * 100 +", "// 100 * 60 +")
    project.edit("trainer.py", ".fit(X, y)", ".fit(X[:1500], y[:1500])")
    commits.append(push(airflow, project, "makes the model worse", "Train in no time, on a sample", commits))
    told.runs = Aside(lambda: _wait(airflow, told))
    return told


def release(airflow: Airflow, told: Story, serving: Serving) -> None:
    """Have a person approve the first commit, then take the release back; it is deployed again beside what follows."""
    assert told.runs is not None
    told.asked.set()
    told.runs.done()
    told.champion_released, told.served = champion(airflow), serving.served()
    print(f"\n▶ Something is wrong in production: airflow mlops rollback {MODEL}", flush=True)
    done = airflow.cli("mlops", "rollback", MODEL, "--reason", "the demo's way back")
    print("    " + (done.stdout.strip() or done.stderr.strip()).replace("\n", "\n    "), flush=True)
    told.champion_after = champion(airflow)
    told.again = Aside(lambda: _deploy_again(airflow, told, serving))


def _deploy_again(airflow: Airflow, told: Story, serving: Serving) -> None:
    if serving.possible:
        airflow.wait_for_dag(f"{DAG}_serve")
        trigger(airflow, f"{DAG}_serve", "What is the champion is deployed again", {}, "level 2: ")
        told.served_after = serving.served()


def _wait(airflow: Airflow, told: Story) -> None:
    end = time.monotonic() + PATIENCE
    while any(one.run is None for one in told.commits):
        for one in told.commits:
            one.watch(airflow)
        if told.asked.is_set():
            approve(airflow, told.commits[0])
        if time.monotonic() > end:
            raise RuntimeError(f"level 2 did not end within {PATIENCE} s: {[one.tasks for one in told.commits]}")
        time.sleep(1)


def check(told: Story, serving: Serving) -> list[str]:
    """Return what is not as it must be."""
    wrong = []
    for commit, state, stopped in zip(
        told.commits, ("success", "failed", "failed"), ("–", "ci.tests", "model.test"), strict=True
    ):
        assert commit.run is not None
        if (commit.run.state, commit.stopped_at) != (state, stopped):
            wrong.append(f"the commit that {commit.title}: {commit.run.state} at {commit.stopped_at}, not at {stopped}")
        if commit.run.results.get("ci.checkout", {}).get("sha") != commit.sha:
            wrong.append(f"the commit that {commit.title}: its run acted on another commit")
    first, broken, worse = (one.run for one in told.commits)
    assert first is not None
    assert broken is not None
    assert worse is not None
    if (first.results.get("model.train", {}).get("code") or {}).get("git_sha") != told.commits[0].sha:
        wrong.append("the model does not carry the sha of its commit")
    if first.results.get("release.approve", {}).get("decision") != "approved":
        wrong.append("nobody approved the release")
    if told.champion_released != first.version or told.champion_released == told.champion_before:
        wrong.append(f"version {first.version} was not released: version {told.champion_released} serves")
    if told.champion_after != told.champion_before:
        wrong.append(f"the rollback brought version {told.champion_after}, not version {told.champion_before}")
    if serving.possible and (told.served, told.served_after) != (told.champion_released, told.champion_after):
        wrong.append(f"version {told.served} was served after the release, {told.served_after} after the rollback")
    if broken.version != "–" or worse.version != "–":
        wrong.append("a commit that must not was registered")
    return wrong


def summary(told: Story, serving: Serving) -> None:
    """Print what became of each commit."""
    print("\nLevel 2: what became of each commit\n")
    heads = ("commit", "that", "its tests", "model test", "version", "ROC AUC", "champion's", "outcome", "time")
    rows = []
    for one in told.commits:
        run = one.run
        assert run is not None
        passed = "passed" if one.tasks.get("ci.tests") == "success" else "FAILED"
        ended = "released" if run.state == "success" else f"stopped at {one.stopped_at}"
        figures = (run.verdict("model.test"), run.version, run.metric("roc_auc"), run.metric("champion_roc_auc"))
        rows.append((one.sha[:7], one.title, passed, *figures, ended, f"{run.seconds:.0f} s"))
    table(heads, rows)
    print(
        f"\n  champion: version {told.champion_before} before, {told.champion_released} after the release, "
        f"{told.champion_after} after the rollback"
    )
    if serving.possible:
        print(f"  the server answered as version {told.served}, then as version {told.served_after}, {serving.how}")
