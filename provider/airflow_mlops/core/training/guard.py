"""Runs one command as a process group and lets nothing of it outlive whoever asked for it.

``python -IS -c <this source> STATUS_FD GRACE SCRATCH COMMAND...``: standard input is the control pipe. When it closes,
because it was closed or because its owner died, the command's group is sent SIGTERM and after GRACE seconds SIGKILL.
What it leaves running when it ends is killed too. SCRATCH, a folder or empty, is removed if the pipe is closed by
then. How it ended goes to STATUS_FD as JSON: ``{"returncode", "stopped"}``, or ``{"error"}`` if it could not be
started.

This file runs by itself: it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(status: int, grace: float, scratch: str, command: list[str]) -> None:
    """Run a command to its end, or until the control pipe closes.

    :param scratch: its folder of temporary files, or empty.
    """
    prctl = _prctl()
    # Orphans of the command become children of this process, so that they are found.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    except (OSError, ValueError) as error:
        _report(status, {"error": str(error)})
        return
    stopped = threading.Event()
    threading.Thread(target=_watch, args=(child, grace, stopped), daemon=True).start()
    code = child.wait()
    _end_descendants()
    if scratch and _closed():
        shutil.rmtree(scratch, ignore_errors=True)
    _report(status, {"returncode": code, "stopped": stopped.is_set()})


def _prctl() -> Callable[[int, int], int]:
    """Return Linux's ``prctl``; elsewhere what does nothing."""
    with contextlib.suppress(Exception):
        import ctypes

        return ctypes.CDLL(None).prctl
    return lambda *_: 0


def _watch(child: subprocess.Popen[bytes], grace: float, stopped: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    stopped.set()
    _signal(child.pid, signal.SIGTERM)
    end = time.monotonic() + grace
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    _signal(child.pid, signal.SIGKILL)


def _closed() -> bool:
    """Return whether the owner has closed the control pipe, or died."""
    look = select.poll()
    look.register(0, select.POLLHUP)
    return any(event & select.POLLHUP for _, event in look.poll(0))


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _end_descendants() -> None:
    """Kill what the command has left running, in whatever session it is."""
    for _ in range(100):
        left = _descendants()
        if not left:
            return
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    # The second field is a name in parentheses, which may hold anything.
                    parent = int(file.read().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _report(status: int, value: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        os.write(status, json.dumps(value).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:])
