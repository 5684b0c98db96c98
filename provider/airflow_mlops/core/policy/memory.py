"""What a policy remembers between two decisions. It grows with nothing: all of it is bounded."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.policy.signals import DATA, ENDED, WINDOWED, Signal

#: Ids that are remembered as counted, windows of each kind, retrainings, and task instances that decided.
MAX_SEEN, MAX_WINDOWS, MAX_RUNS, MAX_TASKS = 2048, 64, 256, 256
SCHEMA = 1
#: Where a performance report says how many labelled rows it measured.
_LABELS = ("labelled", "labels", "labelled_rows", "rows")


@dataclass(frozen=True)
class Run:
    """A retraining that was decided.

    :param hours: what it took, once that was told.
    """

    at: dt.datetime
    seq: int
    hours: float | None = None


@dataclass(frozen=True)
class Memory:
    """What is known before a decision.

    :param clock: the latest clock that a decision had; no later one is earlier.
    :param started: the clock of the first decision.
    :param runs: retrainings that were decided, in order.
    :param windows: the latest measured windows of each kind, by their end; of one window the latest report.
    :param rows: new rows since the last retraining; ``labels`` the same of labelled rows.
    :param data: what of each dataset was counted: start, end and rows.
    :param seen: ids of signals that were counted.
    :param tasks: which decision a task instance made.
    """

    clock: dt.datetime | None = None
    started: dt.datetime | None = None
    runs: tuple[Run, ...] = ()
    windows: dict[str, tuple[Signal, ...]] = field(default_factory=dict)
    rows: int = 0
    labels: int = 0
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    seen: dict[str, None] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)

    @property
    def last(self) -> dt.datetime | None:
        """When the last retraining was decided."""
        return self.runs[-1].at if self.runs else None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "schema": SCHEMA,
            "clock": self.clock.isoformat() if self.clock else None,
            "started": self.started.isoformat() if self.started else None,
            "runs": [{"at": run.at.isoformat(), "seq": run.seq, "hours": run.hours} for run in self.runs],
            "windows": {kind: [one.to_dict() for one in some] for kind, some in self.windows.items()},
            "rows": self.rows,
            "labels": self.labels,
            "data": self.data,
            "seen": list(self.seen),
            "tasks": self.tasks,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any] | None) -> Memory:
        """Read what :meth:`to_dict` wrote.

        :raises SpecError: if a newer version wrote it.
        """
        if not value:
            return cls()
        if value.get("schema", SCHEMA) > SCHEMA:
            raise SpecError("a newer version of airflow-provider-mlops wrote this memory: upgrade it where this runs")
        return cls(
            clock=_instant(value["clock"]),
            started=_instant(value["started"]),
            runs=tuple(Run(dt.datetime.fromisoformat(r["at"]), r["seq"], r["hours"]) for r in value["runs"]),
            windows={kind: tuple(map(Signal.from_dict, some)) for kind, some in value["windows"].items()},
            rows=value["rows"],
            labels=value["labels"],
            data=value["data"],
            seen=dict.fromkeys(value["seen"]),
            tasks=value["tasks"],
        )


def _instant(value: str | None) -> dt.datetime | None:
    return dt.datetime.fromisoformat(value) if value else None


def take_in(memory: Memory, signals: Iterable[Signal], keep: int = 0) -> tuple[Memory, int, int]:
    """Return the memory after signals, how many were counted, and how many had been counted before.

    Their order does not matter but where two reports on one window were made at one instant: then the later one holds.

    :param keep: so many windows of a kind are needed at least.
    """
    seen = dict(memory.seen)
    windows = {kind: {(one.start, one.end): one for one in some} for kind, some in memory.windows.items()}
    runs = {run.seq: run for run in memory.runs}
    data = dict(memory.data)
    rows, labels, counted, duplicates = memory.rows, memory.labels, 0, 0
    for one in signals:
        if one.id in seen:
            duplicates += 1
            continue
        seen[one.id] = None
        counted += 1
        if one.kind in WINDOWED:
            known = windows.setdefault(one.kind, {})
            before = known.get((one.start, one.end))
            labels += max(0, labels_of(one) - labels_of(before))
            if before is None or one.told >= before.told:
                known[one.start, one.end] = one
        elif one.kind in DATA:
            rows += _new_rows(data, one)
        elif one.kind == ENDED:
            _end(runs, one)
    most = max(MAX_WINDOWS, keep)
    return (
        replace(
            memory,
            windows={
                kind: tuple(sorted(some.values(), key=lambda one: (one.end, one.start))[-most:])
                for kind, some in windows.items()
            },
            runs=tuple(sorted(runs.values(), key=lambda run: run.seq)),
            rows=rows,
            labels=labels,
            data=data,
            seen=dict.fromkeys(list(seen)[-MAX_SEEN:]),
        ),
        counted,
        duplicates,
    )


def labels_of(signal: Signal | None) -> int:
    """Return how many labelled rows a performance report measured; 0 where it does not say."""
    if signal is None or signal.kind != "performance":
        return 0
    for name in _LABELS:
        value = signal.facts["metrics"].get(name)
        if isinstance(value, (int, float)) and value > 0:
            return int(value)
    return 0


def _new_rows(data: dict[str, dict[str, Any]], one: Signal) -> int:
    """Return the rows that were not counted before: a dataset that grows brings only what it grew by."""
    rows: int = one.facts["rows"]
    if one.kind != "dataset":
        return rows
    name, start, end = str(one.facts.get("name")), one.start.isoformat(), one.end.isoformat()
    before = data.get(name)
    if before is None or start >= before["end"] or end <= before["start"]:
        new, total = rows, rows + (before["rows"] if before else 0)
    else:
        new = max(0, rows - before["rows"])
        total = before["rows"] + new
    data[name] = {
        "start": min(start, before["start"]) if before else start,
        "end": max(end, before["end"]) if before else end,
        "rows": total,
    }
    return new


def _end(runs: dict[int, Run], one: Signal) -> None:
    """Write down what a retraining took."""
    seq, hours = one.facts.get("seq"), one.facts.get("hours")
    if isinstance(seq, int) and seq in runs and isinstance(hours, (int, float)) and hours >= 0:
        runs[seq] = replace(runs[seq], hours=float(hours))
