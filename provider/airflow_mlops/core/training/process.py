"""The user's own process, seen from the step: start it, pass its lines on, stop it, say how it ended."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

from airflow_mlops.core.errors import SpecError, StoppedError
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.training import guard

#: Seconds between SIGTERM and SIGKILL when the process is stopped. Airflow gives a task five.
GRACE = 3.0
#: Characters of a line that are passed on, and lines that an error repeats.
LINE, TAIL = 2000, 12
#: Variables of the worker that the user's process has no use for: Airflow's own, and the access to our store.
_KEPT_BACK = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "_AIRFLOW", "MLOPS_")
_SECRET_NAME = re.compile(r"PASSW|TOKEN|SECRET|CREDENTIAL|(^|_)KEY$|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
#: Values shorter than this would blot out half of a log.
_SECRET_LENGTH = 6

_running: set[Guarded] = set()


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    :param code: its exit code; negative: the number of the signal that ended it.
    :param tail: its last lines.
    """

    code: int
    tail: tuple[str, ...]


class Guarded:
    """One command under its guard; see :mod:`airflow_mlops.core.training.guard`.

    :param command: the program and its arguments.
    :param cwd: the folder it runs in.
    :param subject: what to call it in messages; default: after the program.
    :param scratch: a folder that is removed with its content if the process is stopped or its owner dies.
    :raises SpecError: from :meth:`wait`, if it cannot be started.
    """

    def __init__(
        self,
        command: list[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        subject: str | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.command = command
        self.subject = subject or f"the command {os.path.basename(command[0])}"
        self.stopped = False
        control, self._control = os.pipe()
        self._status, status = os.pipe()
        source = inspect.getsource(guard)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-IS", "-c", source, str(status), str(GRACE), str(scratch or ""), *command],
                stdin=control,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(environment),
                pass_fds=(status,),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._control)
            os.close(self._status)
            raise
        finally:
            os.close(control)
            os.close(status)
        _running.add(self)

    def stop(self) -> None:
        """Stop the process and all that it started: SIGTERM, then SIGKILL. Safe in a signal handler."""
        self.stopped = True
        self._release()

    def _release(self) -> None:
        control, self._control = self._control, -1
        if control >= 0:
            os.close(control)

    def wait(self, log: logging.Logger, secrets: Secrets) -> Ended:
        """Pass lines on to the log until the process has ended, and return how it did, with its last lines.

        :raises SpecError: if it could not be started.
        :raises StoppedError: if it was stopped.
        """
        tail: deque[str] = deque(maxlen=TAIL)

        def show(line: str) -> None:
            shown = secrets.hidden(line)
            log.info("| %s", shown)
            if shown.strip():
                tail.append(shown[:300])

        return Ended(self.follow(show), tuple(tail))

    def follow(self, show: Callable[[str], None]) -> int:
        """Give each line to a function until the process has ended, and return its exit code.

        :raises SpecError: if it could not be started.
        :raises StoppedError: if it was stopped.
        """
        try:
            assert self.process.stdout is not None
            for line in lines(self.process.stdout.fileno(), self._status):
                show(line)
            with os.fdopen(os.dup(self._status), "rb") as file:
                text = file.read()
        finally:
            self.close()
        found = json.loads(text) if text else {}
        if self.stopped or found.get("stopped"):
            raise StoppedError(f"{self.subject} was stopped before it ended: the task was cancelled")
        if "error" in found:
            raise SpecError(f"{self.subject} cannot be started: {found['error']}", command=self.command[0])
        if not found:
            raise StoppedError(f"the process that watches {self.subject} was killed, and with it what it watched")
        return int(found["returncode"])

    def close(self) -> None:
        """End the process if it still runs, and wait for that."""
        self._release()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process.wait()
        if self._status >= 0:
            os.close(self._status)
            self._status = -1
        _running.discard(self)


def stop_all() -> None:
    """Stop every process that runs for a step in this process. Safe in a signal handler."""
    for one in list(_running):
        one.stop()


def lines(descriptor: int, last: int | None = None) -> Iterator[str]:
    """Yield the lines of a pipe as they come, until it closes.

    Of a line that is written over and over, as progress bars are, what stands there at its end; one without an end is
    cut.

    :param last: another pipe; when it has something to read or closes, nobody is left whose lines are waited for, even
        if some process holds the first pipe open.
    """
    rest = b""
    while block := _block(descriptor, last):
        *whole, rest = (rest + block).split(b"\n")
        yield from map(_text, whole)
        if len(rest) > 65536:
            rest = rest[-4 * LINE :]
    if rest:
        yield _text(rest)


def _block(descriptor: int, last: int | None) -> bytes:
    if last is not None:
        ready = select.poll()
        for one in (descriptor, last):
            ready.register(one, select.POLLIN)
        if descriptor not in dict(ready.poll()):
            return b""
    return os.read(descriptor, 65536)


def _text(line: bytes) -> str:
    text = line.decode("utf-8", errors="replace").rstrip("\r")
    text = text.rpartition("\r")[2]
    # Colours and cursor movements are for terminals.
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return text if len(text) <= LINE else f"{text[:LINE]} ... ({len(text):,} characters)"


class Secrets:
    """What must not show in the log: values of variables that are named like secrets, in every form."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        values: set[str] = set()
        for name, value in variables.items():
            if name.startswith("MLOPS_S3") and value.startswith("{"):
                values |= {str(v) for k, v in json.loads(value).items() if k in ("secret", "token") and v}
            elif _SECRET_NAME.search(name):
                values.add(value.strip())
            values |= set(re.findall(r"://[^/\s:@]*:([^/\s@]+)@", value))
        # A log is read line by line, and a key in PEM form has many.
        values |= {line.strip() for value in values for line in value.splitlines()}
        long = {value for value in values if len(value) >= _SECRET_LENGTH}
        forms = {form for value in long for form in (value, quote(value, safe=""), quote_plus(value))}
        self._pattern = re.compile("|".join(sorted(map(re.escape, forms), key=len, reverse=True))) if forms else None

    def hidden(self, text: str) -> str:
        """Return the text without them, and without the user part of URLs."""
        text = strip_credentials(text)
        return self._pattern.sub("***", text) if self._pattern else text


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the user's process: the worker's, without what is Airflow's or the store's.

    ``python`` on its path is the interpreter that the step runs in.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_KEPT_BACK)}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", "MPLBACKEND": kept.get("MPLBACKEND", "Agg"), **more}


def run(
    command: list[str], *, cwd: Path, variables: Mapping[str, str], log: logging.Logger, secrets: Secrets | None = None
) -> Ended:
    """Run a command to its end; its output goes to the log line by line, without secrets.

    :param variables: added to the environment.
    :raises SpecError: if it cannot be started.
    :raises StoppedError: if it was stopped from outside.
    """
    given = environment(variables)
    with _sigterm_stops():
        return Guarded(command, cwd=cwd, environment=given).wait(log, secrets or Secrets({**os.environ, **given}))


@contextlib.contextmanager
def _sigterm_stops() -> Iterator[None]:
    """Let SIGTERM stop what runs, which may then clean up, where it would end this process at once."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: stop_all())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
