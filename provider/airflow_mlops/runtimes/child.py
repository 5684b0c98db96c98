"""What runtimes share that run a step in a process of its own: its spec, its lines, its end.

The process is ``python -m airflow_mlops.core --spec SPEC --report REPORT``, with the core's zip and the user's code on
``PYTHONPATH`` and credentials in its environment. What it writes goes to the task's log line by line, at the level
that the step gave it; its report is the result, or the error.
"""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from airflow_mlops.core.callables import portable
from airflow_mlops.core.errors import CrashedError, MlopsError, StoppedError, from_dict
from airflow_mlops.core.plain import clean
from airflow_mlops.core.training.process import Secrets

#: Lines that an error repeats, and characters of each.
TAIL, TAIL_LINE = 12, 300
#: Lines and characters that a step may print, beside what it logs as a warning or worse, until the rest is dropped.
MOST_LINES, MOST_CHARACTERS = 100_000, 20_000_000
#: As :mod:`airflow_mlops.core.__main__` begins each line that is a record of its log.
_RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)", re.DOTALL)


def portable_spec(spec: Mapping[str, Any], ship: Collection[Callable[..., Any]] = ()) -> dict[str, Any]:
    """Return a spec as plain JSON values, its callables named or shipped, so that another process can run it.

    :param ship: functions that go by their source: :attr:`airflow_mlops.runtimes.base.Job.ship`.
    :raises SpecError: for a callable that another process cannot have, with the cure.
    """
    plain: dict[str, Any] = clean({**spec, "args": portable(spec.get("args") or {}, ship)})
    return plain


def secrets_of(variables: Mapping[str, str], private: Iterable[str] = ()) -> Secrets:
    """Return what must not show in the log.

    :param variables: the process's environment.
    :param private: names of variables that are secret whatever they are called.
    """
    named = dict(variables)
    named.update({f"{name}_SECRET": variables[name] for name in private if name in variables})
    return Secrets(named)


class Relay:
    """Pass a process's lines on to the task's log, at their own level and without secrets, and keep the last ones.

    What is printed without end is cut, so that it fills no disk; warnings and errors of the log still go through.
    """

    def __init__(self, log: logging.Logger, secrets: Secrets) -> None:
        self.log = log
        self.secrets = secrets
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._lines = self._characters = 0

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines that were not empty."""
        return tuple(self._tail)

    def line(self, text: str) -> None:
        """Take one line."""
        level, text = level_of(self.secrets.hidden(text))
        if text.strip():
            self._tail.append(text[:TAIL_LINE])
        if level < logging.WARNING and self._left_out(len(text)):
            return
        self.log.log(level, "%s", text)

    def _left_out(self, characters: int) -> bool:
        """Count a line, and return whether it is one too many."""
        before = self._full
        self._lines += 1
        self._characters += characters
        if self._full and not before:
            self.log.warning(
                "The step has printed more than %s lines or %s characters: what it prints further is left out, "
                "warnings and errors of its log are not",
                f"{MOST_LINES:,}",
                f"{MOST_CHARACTERS:,}",
            )
        return self._full

    @property
    def _full(self) -> bool:
        return self._lines > MOST_LINES or self._characters > MOST_CHARACTERS


def level_of(line: str) -> tuple[int, str]:
    """Return a line's level and its text; one that the step printed is information."""
    record = _RECORD.fullmatch(line)
    if record is None:
        return logging.INFO, line
    return getattr(logging, record[1]), record[2]


def result_of(
    report: bytes | Mapping[str, Any] | None,
    exit_code: int | None,
    tail: Iterable[str] = (),
    *,
    subject: str = "the step's process",
    secrets: Secrets | None = None,
) -> dict[str, Any]:
    """Return the result that a process left, or raise its error.

    :param report: the report file, or what was read of it; None if there is none.
    :param exit_code: how the process ended; negative: the number of the signal that ended it. None: not known.
    :param tail: its last lines, without secrets.
    :param subject: what to call the process in messages.
    :raises MlopsError: the step's own error.
    :raises StoppedError: if a signal ended it.
    :raises CrashedError: if it left no report, or crashed.
    """
    found: Any = _read(report) if isinstance(report, bytes) else report
    lines = " | ".join(tail)
    last = f" Its last lines: {lines}" if lines else " It printed nothing."
    if isinstance(found, Mapping) and isinstance(found.get("error"), Mapping):
        error = from_dict(found["error"])
        if isinstance(error, CrashedError):
            error = CrashedError(f"{error.message}.{last}", **error.fields)
        raise hidden(error, secrets)
    if isinstance(found, Mapping) and exit_code == 0:
        return dict(found)
    if exit_code is not None and exit_code < 0:
        why = "usually because the machine ran out of memory" if exit_code == -9 else "from outside or by a crash"
        raise StoppedError(f"{subject} was ended by signal {-exit_code}, {why}.{last}", signal=-exit_code)
    raise CrashedError(
        f"{subject} ended with exit code {exit_code} and left no report of the step.{last}", exit_code=exit_code
    )


def hidden(error: MlopsError, secrets: Secrets | None) -> MlopsError:
    """Return the error with no secret in its message."""
    if secrets is not None:
        error.message = secrets.hidden(error.message)
        error.args = (error.message,)
    return error


def _read(report: bytes) -> Any:
    try:
        return json.loads(report)
    except ValueError:
        return None
