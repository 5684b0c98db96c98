"""How each part dies, while a task is held at a point of its work."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.parts import Parts


def task(parts: Parts, pid: int) -> None:
    """The task's process dies, as one that took too much memory; its supervisor sees it at once."""
    os.kill(pid, signal.SIGKILL)


def worker(parts: Parts, pid: int) -> None:
    """The worker dies with its task: nobody tells Airflow, whose heartbeat timeout finds it."""
    supervisor = _parent(pid)
    os.kill(supervisor, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def supervisor(parts: Parts, pid: int) -> None:
    """The worker dies, and the task works on that nobody hears any more, beside its own next try."""
    os.kill(_parent(pid), signal.SIGKILL)


def scheduler(parts: Parts, pid: int) -> None:
    """The scheduler's process dies; its workers go on with what they have."""
    parts.kill("scheduler")
    parts.start("scheduler")


def machine(parts: Parts, pid: int) -> None:
    """The scheduler dies with its workers and their tasks, as a container or a machine does."""
    parts.kill("scheduler", group=True)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    parts.start("scheduler")


def triggerer(parts: Parts, pid: int) -> None:
    """The triggerer dies."""
    parts.kill("triggerer")
    parts.start("triggerer")


KINDS: dict[str, Callable[[Parts, int], None]] = {
    "scheduler": scheduler,
    "triggerer": triggerer,
    "worker": worker,
    "task": task,
    "machine": machine,
    "supervisor": supervisor,
}


def disturb(parts: Parts, plan: list[tuple[str, str, str, str]], over: Callable[[], Any]) -> list[str]:
    """Kill at each stage, in whatever order the tasks come to them, until the loop is over.

    :param plan: what dies at which stage: kind, DAG, task and point.
    :return: the stages at which there was a kill, as they came.
    """
    kinds = {parts.arm(*stage): kind for kind, *stage in plan}
    waiting = {parts.held(dag, task): f"{dag}.{task} at {point}" for _, dag, task, point in plan}
    done: list[str] = []

    def held() -> Path | bool:
        return next((file for file in waiting if file.exists()), None) or bool(over())

    while waiting and isinstance(file := parts.until(held, f"a kill at {list(waiting.values())}"), Path):
        file.with_suffix(".armed").unlink(missing_ok=True)
        pid = int(file.read_text())
        if Path(f"/proc/{pid}").exists():
            KINDS[kinds[file]](parts, pid)
        done.append(waiting.pop(file))
        file.unlink()
    return done


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
