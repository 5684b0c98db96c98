"""The rounds: one loop undisturbed, then one for each part that is killed at every stage; and the table of it."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.fingerprint import fingerprint, of_airflow
from faults.kills import KINDS, disturb
from faults.loop import Loop
from faults.parts import Parts


@dataclass
class Round:
    """One loop, and how it came out.

    :param killed: the stages at which there was a kill, in their order.
    :param missed: the stages that no task came to.
    :param differs: what is unlike the undisturbed loop: ``{what: [undisturbed, disturbed]}``.
    :param wrong: what Airflow left that neither succeeded nor was skipped.
    """

    kind: str
    seconds: float = 0.0
    killed: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    differs: dict[str, Any] = field(default_factory=dict)
    wrong: list[Any] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether there were kills, at every stage, and all is as if there had been none."""
        return not (self.differs or self.wrong or self.missed)


def rounds(loop: type[Loop], plans: dict[str, dict[str, str]], folder: Path) -> Iterator[Round]:
    """Run a loop undisturbed, then once for each plan, in one Airflow; yield the disturbed rounds as they end.

    :param plans: by name, what dies at which task: ``{task: kind}``; ``{"": kind}``: at every one.
    """
    dags = folder / "dags"
    dags.mkdir(parents=True)
    parts = Parts(folder / "home", dags)
    migrated = subprocess.run(["airflow", "db", "migrate"], env=parts.environment, capture_output=True, check=False)
    assert migrated.returncode == 0, migrated.stderr.decode()[-2000:]
    (parts.home / "mlops").mkdir(exist_ok=True)
    plans = {"none": {}, **plans}
    loops = {name: loop(f"loop{number}x", parts.home, dags) for number, name in enumerate(plans)}
    first = loops["none"].first()
    for one in loops.values():
        one.release(first)
    with parts.running():
        wanted = sum(len(one.dags) for one in loops.values())
        parts.until(lambda: parts.rows("select count(*) from dag where not is_paused")[0][0] >= wanted, "the DAGs")
        undisturbed = _round(parts, loops.pop("none"), "none", {})
        assert undisturbed.passed, undisturbed
        assert undisturbed.state["aliases"] == {"champion": 2}, undisturbed.state
        for name, one in loops.items():
            found = _round(parts, one, name, plans[name])
            found.differs = {
                what: [undisturbed.state[what], found.state[what]]
                for what in undisturbed.state
                if undisturbed.state[what] != found.state[what]
            }
            yield found


def _round(parts: Parts, loop: Loop, name: str, kinds: dict[str, str]) -> Round:
    begun = time.monotonic()
    found = Round(name)
    asked = [(kinds.get(task, kinds.get("")), dag, task, point) for dag, task, point in loop.stages]
    plan = [(kind, dag, task, point) for kind, dag, task, point in asked if kind]
    loop.begin(parts)
    try:
        found.killed = disturb(parts, plan, lambda: loop.over(parts))
        parts.until(lambda: loop.over(parts), "the end of the loop")
    except AssertionError as error:
        found.wrong.append(str(error)[-3000:])
    found.missed = [one for _, dag, task, point in plan if (one := f"{dag}.{task} at {point}") not in found.killed]
    found.seconds = time.monotonic() - begun
    found.wrong += of_airflow(parts, list(loop.dags))["wrong"]
    state = json.dumps(fingerprint(loop.context, loop.name)).replace(loop.name, "NAME")
    found.state = json.loads(state)
    for names in (found.killed, found.missed):
        names[:] = [name.replace(f"{loop.name}_", "") for name in names]
    print(f"{name}: {len(found.killed)} kills, {found.missed=}, {found.wrong=}, {found.seconds:.0f} s", flush=True)
    return found


def table(title: str, rounds: list[Round], missing: list[str]) -> str:
    """Return what came out, as Markdown.

    :param missing: rounds that did not take place.
    """
    today = dt.datetime.now(dt.timezone.utc).date()
    lines = [f"### {title}", "", f"Last run on {today}, Python {sys.version.split()[0]}.", ""]
    lines += ["| killed | at stages | ended as undisturbed | time |", "| --- | --- | --- | --- |"]
    for one in rounds:
        said = (
            "yes" if one.passed else "**no**: " + ", ".join([*one.differs, *map(str, one.missed), *map(str, one.wrong)])
        )
        lines.append(f"| {one.kind} | {len(one.killed)} | {said.replace('|', '/')[:400]} | {one.seconds:.0f} s |")
    lines += [f"| {name} | | not run | |" for name in missing]
    stages = list(dict.fromkeys(name for one in rounds for name in [*one.killed, *one.missed]))
    lines += ["", "Stages: " + ", ".join(f"`{name}`" for name in stages) + ".", ""]
    return "\n".join(lines)


MEANING = {kind: (one.__doc__ or "").splitlines()[0] for kind, one in KINDS.items()}
