"""What a policy remembers between two decisions. It grows with nothing: all of it is bounded."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.policy.signals import DATA, ENDED, WINDOWED, Signal
from airflow_mlops.core.policy.volume import new_rows

#: Ids that are remembered as counted, windows of each kind, retrainings, and task instances that decided.
MAX_SEEN, MAX_WINDOWS, MAX_RUNS, MAX_TASKS = 2048, 64, 256, 256
#: Reports on one window that are remembered: of several monitors, each about a subject of its own.
MAX_SUBJECTS = 8
SCHEMA = 1
#: Of a report that measured fewer rows than one before it: how many that one did.
_MOST = "most_labelled"
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
    :param windows: the reports on the latest measured windows of each kind, by their end; of one window and subject
        the latest report.
    :param rows: new rows since the last retraining; ``labels`` the same of labelled rows.
    :param data: what of each dataset was counted: its periods with their rows.
    :param seen: ids of signals that were counted, those that were told last at the end.
    :param tasks: which decision a task instance made.
    """

    clock: dt.datetime | None = None
    started: dt.datetime | None = None
    runs: tuple[Run, ...] = ()
    windows: dict[str, tuple[Signal, ...]] = field(default_factory=dict)
    rows: int = 0
    labels: int = 0
    data: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
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
            # The first version knew one period of a dataset.
            data={name: some if isinstance(some, list) else [some] for name, some in value["data"].items()},
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
    windows = {kind: {one.place: one for one in some} for kind, some in memory.windows.items()}
    runs = {run.seq: run for run in memory.runs}
    data = dict(memory.data)
    labelled = _labelled(one for some in memory.windows.values() for one in some)
    rows, labels, counted, duplicates = memory.rows, memory.labels, 0, 0
    for one in signals:
        known_id = one.id in seen
        # To the end: what an inlet holds is told again and again, and must not be forgotten before it is gone there.
        seen.pop(one.id, None)
        seen[one.id] = None
        if known_id:
            duplicates += 1
            continue
        counted += 1
        if one.kind in WINDOWED:
            known = windows.setdefault(one.kind, {})
            most = max(labels_of(one), labelled.get((one.start, one.end), 0))
            labels += most - labelled.get((one.start, one.end), 0)
            labelled[one.start, one.end] = most
            before = known.get(one.place)
            if before is None or one.told >= before.told:
                known[one.place] = replace(one, facts={**one.facts, _MOST: most}) if most > labels_of(one) else one
        elif one.kind == "dataset":
            name = str(one.facts.get("name"))
            new, data[name] = new_rows(data.get(name, []), one.start, one.end, one.facts["rows"])
            rows += new
        elif one.kind in DATA:
            rows += int(one.facts["rows"])
        elif one.kind == ENDED:
            _end(runs, one)
    kept = max(MAX_WINDOWS, keep)
    return (
        replace(
            memory,
            windows={kind: _latest(some.values(), kept) for kind, some in windows.items()},
            runs=tuple(sorted(runs.values(), key=lambda run: run.seq)),
            rows=rows,
            labels=labels,
            data=data,
            seen=dict.fromkeys(list(seen)[-max(MAX_SEEN, counted + duplicates) :]),
        ),
        counted,
        duplicates,
    )


def by_window(reports: Iterable[Signal]) -> list[list[Signal]]:
    """Return the reports on each window together, by the windows' ends."""
    found: dict[tuple[dt.datetime, dt.datetime], list[Signal]] = {}
    for one in sorted(reports, key=lambda one: (one.end, one.start, one.told)):
        found.setdefault((one.start, one.end), []).append(one)
    return list(found.values())


def _latest(reports: Iterable[Signal], most: int) -> tuple[Signal, ...]:
    return tuple(one for some in by_window(reports)[-most:] for one in some[-MAX_SUBJECTS:])


def _labelled(reports: Iterable[Signal]) -> dict[tuple[dt.datetime, dt.datetime], int]:
    """Return the most labelled rows that any report on a window told of."""
    found: dict[tuple[dt.datetime, dt.datetime], int] = {}
    for one in reports:
        most = max(labels_of(one), int(one.facts.get(_MOST, 0)))
        found[one.start, one.end] = max(most, found.get((one.start, one.end), 0))
    return found


def labels_of(signal: Signal) -> int:
    """Return how many labelled rows a performance report measured; 0 where it does not say."""
    if signal.kind != "performance":
        return 0
    for name in _LABELS:
        value = signal.facts["metrics"].get(name)
        if isinstance(value, (int, float)) and value > 0:
            return int(value)
    return 0


def _end(runs: dict[int, Run], one: Signal) -> None:
    """Write down what a retraining took."""
    seq, hours = one.facts.get("seq"), one.facts.get("hours")
    if isinstance(seq, int) and seq in runs and isinstance(hours, (int, float)) and 0 <= hours < math.inf:
        runs[seq] = replace(runs[seq], hours=float(hours))
