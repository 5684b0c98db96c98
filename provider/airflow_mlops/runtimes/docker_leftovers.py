"""The containers of steps that an engine has, and which of them nobody will come back for."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from airflow_mlops.runtimes.docker_container import KEY, LABEL, Container, instant, is_kept
from airflow_mlops.runtimes.docker_engine import Engine, engine_errors

#: Longer than a retry is put off: until then it may come for what it left.
GRACE = dt.timedelta(days=1)


@dataclass(frozen=True)
class StepContainer:
    """A container of a step, running or not.

    :param since: when it ended; of one that runs, or was never started, when it was made.
    :param kept: whether ``runtime["auto_remove"]`` left it for people to look at.
    :param labels: the task: ``dag``, ``run``, ``task``, ``map_index``, and ``step``.
    """

    name: str
    state: str
    since: dt.datetime
    kept: bool
    labels: dict[str, str]

    @property
    def runs(self) -> bool:
        """Whether it still does something."""
        return self.state not in ("created", "exited", "dead")

    def spared(self, grace: dt.timedelta, *, running: bool, kept: bool, now: dt.datetime) -> str | None:
        """Return why it stays; None: nobody needs it.

        :param running: whether one that runs is left over too, once it is older than ``grace``.
        :param kept: whether one that was kept for people is.
        """
        if self.runs and not running:
            return "it runs"
        if self.kept and not kept:
            return "kept for people"
        if now - self.since < grace:
            return "too young"
        return None


def step_containers(engine: Engine, client: Any, dag: str | None = None) -> list[StepContainer]:
    """Return the containers of steps on an engine, the oldest first.

    :param dag: of this DAG alone.
    """
    from docker.errors import NotFound

    labels = [KEY, *([f"{LABEL}dag={dag}"] if dag else [])]
    found = []
    with engine_errors(engine):
        for row in client.containers(all=True, filters={"label": labels}):
            try:
                one = client.inspect_container(row["Id"])
            except NotFound:
                continue
            name = one["Name"].lstrip("/")
            state = one["State"]["Status"]
            ended = one["State"]["FinishedAt"] if state in ("exited", "dead") else ""
            since = instant(ended if ended > "0002" else one["Created"])
            known = {k.removeprefix(LABEL): v for k, v in one["Config"]["Labels"].items() if k.startswith(LABEL)}
            found.append(StepContainer(name, state, since, is_kept(name), known))
    return sorted(found, key=lambda one: one.since)


def remove(engine: Engine, client: Any, one: StepContainer) -> None:
    """Remove a container; one that did not run, and has been started since, stays."""
    Container(engine, client, one.name).remove(force=one.runs)
