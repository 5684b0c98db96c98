"""The first process of a step's container: it starts the step, hides secrets in what it says, and ends it in time.

``python inside.py FOLDER``. Standard input is one line, a JSON object: ``variables`` for the step's environment,
``private`` (names of those that are secret whatever their name) and ``timeout`` (seconds, or null). They come that way
because whatever stands in a container's configuration can be read by all who may use the engine. How the step ended
goes to ``out/ended.json``, its report to ``out/report.json``.

The step is a child of this process, not this process itself: the first process of a container gets no signal that it
did not ask for, and when the kernel kills the step for its memory somebody must be left to say so. When this process
ends, the kernel ends all others in the container.

This file is copied into the image. It reads no Airflow, and up to the check of its version any Python 3 can run it.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

#: Seconds between SIGTERM and SIGKILL.
GRACE = 5
#: The oldest Python that runs the core.
OLDEST = (3, 10)
#: Exit codes: no variables came; the time was up.
UNFED, LATE = 75, 124


def main(folder: str) -> int:
    """Run the step of a folder and return its exit code."""
    out = os.path.join(folder, "out")
    if sys.version_info < OLDEST:
        _refuse(out, "the image's Python is {}.{}; a step needs at least 3.10".format(*sys.version_info[:2]))
        return 1
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        print("the worker was gone before it had sent the step's variables")
        return UNFED
    given = json.loads(line.decode("utf-8"))
    started = time.time()
    ended = {"timed_out": False, "stopped": False, "timeout": given["timeout"]}
    kills = _oom_kills()
    child = subprocess.Popen(
        [sys.executable, "-m", "airflow_mlops.core", *_paths(folder, out)],
        cwd=os.path.join(folder, "work"),
        env=_environment(folder, given["variables"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def stop(why: str) -> None:
        ended[why] = True
        _signal(child, signal.SIGTERM)
        timer = threading.Timer(GRACE, _signal, (child, signal.SIGKILL))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, lambda *_: stop("stopped"))
    if given["timeout"]:
        limit = threading.Timer(given["timeout"], stop, ("timed_out",))
        limit.daemon = True
        limit.start()
    reader = threading.Thread(target=_pass_on, args=(child.stdout, folder, given), daemon=True)
    reader.start()
    code = child.wait()
    # What the step has left running may hold the pipe open for ever.
    reader.join(2)
    _write(
        os.path.join(out, "ended.json"),
        {
            "returncode": code,
            "seconds": round(time.time() - started, 3),
            "oom_kills": _oom_kills() - kills,
            "peak_bytes": _peak(),
            **ended,
        },
    )
    sys.stdout.flush()
    return LATE if ended["timed_out"] else code if code >= 0 else 128 - code


def _paths(folder: str, out: str) -> Any:
    return ["--spec", os.path.join(folder, "spec.json"), "--report", os.path.join(out, "report.json")]


def _environment(folder: str, variables: Any) -> Any:
    """Return the container's environment with the variables, the core and the code."""
    found = dict(os.environ, **variables)
    with open(os.path.join(folder, "path.json"), encoding="utf-8") as file:
        path = json.load(file)
    found["PYTHONPATH"] = os.pathsep.join([*path, *filter(None, [found.get("PYTHONPATH")])])
    # Where the container runs as a user that the image does not know, libraries find no home and no name.
    if not os.access(found.get("HOME") or "/nowhere", os.W_OK):
        found["HOME"] = os.path.join(folder, "work")
    found.setdefault("USER", "mlops")
    found.setdefault("PYTHONUNBUFFERED", "1")
    found.setdefault("MPLBACKEND", "Agg")
    return found


def _pass_on(pipe: Any, folder: str, given: Any) -> None:
    """Write the step's lines to standard output, without secrets."""
    with open(os.path.join(folder, "path.json"), encoding="utf-8") as file:
        sys.path[:0] = json.load(file)[:1]
    from airflow_mlops.core.training.process import Secrets, lines

    named = {**os.environ, **given["variables"]}
    named.update({name + "_SECRET": given["variables"][name] for name in given["private"]})
    secrets = Secrets(named)
    for line in lines(pipe.fileno()):
        sys.stdout.write(secrets.hidden(line) + "\n")
        sys.stdout.flush()


def _oom_kills() -> int:
    """Return how many processes of the container the kernel has killed for its memory."""
    for name in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            with open(name) as file:
                found = re.search(r"^oom_kill (\d+)$", file.read(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found.group(1))
    return 0


def _peak() -> int:
    """Return the bytes of the largest process."""
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _signal(child: Any, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.pid, number)


def _refuse(out: str, message: str) -> None:
    error = {"type": "SpecError", "message": message, "retryable": False, "fields": {}}
    _write(os.path.join(out, "report.json"), {"error": error})


def _write(path: str, value: Any) -> None:
    with open(path + ".tmp", "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".tmp", path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
