"""The runtime of another interpreter: the step runs in a process of its own on the worker.

Three processes: the worker's task, a guard, and the step. The task holds the guard's control pipe; when it is closed,
or the task dies, the guard ends the step and all that the step has started, and removes its temporary files.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from airflow_mlops.core.errors import MissingExtraError, SpecError
from airflow_mlops.core.extras import DISTRIBUTION
from airflow_mlops.core.training.process import Guarded
from airflow_mlops.runtimes.base import Job, Runtime
from airflow_mlops.runtimes.bundle import OLDEST_PYTHON, core_bundle
from airflow_mlops.runtimes.child import Relay, portable_spec, result_of, secrets_of
from airflow_mlops.runtimes.python_settings import PythonSettings, settings_of

#: What the interpreter runs. Any Python can read it, so that one which is too old can say so: its version is written
#: beside the report.
START = """
import sys
with open(sys.argv[-1] + ".python", "w") as file:
    file.write("%d.%d.%d" % tuple(sys.version_info[:3]))
if sys.version_info < {oldest}:
    sys.exit(1)
sys.path[:] = [folder for folder in sys.path if folder]
import runpy
runpy.run_module("airflow_mlops.core", run_name="__main__", alter_sys=True)
"""
_NO_MODULE = re.compile(r"[Nn]o module (?:named )?'([A-Za-z_]\w*)")


class PythonRuntime(Runtime):
    """Run a step in another interpreter on the worker, which needs the step's libraries and nothing of ours.

    :param runtime: see :class:`~airflow_mlops.runtimes.python_settings.PythonSettings`.
    :raises SpecError: for a setting that cannot be.
    """

    def __init__(self, runtime: dict[str, Any]) -> None:
        self.settings: PythonSettings = settings_of(runtime)
        self._child: Guarded | None = None
        self._cancelled = False

    def run(self, job: Job, log: logging.Logger) -> dict[str, Any]:
        """Run the step in the interpreter.

        :raises SpecError: if there is no such interpreter, it is too old, or a callable cannot go there.
        :raises MissingExtraError: if it lacks a library, with the command that installs it there.
        :raises StoppedError: if the process was ended by a signal.
        :raises CrashedError: if it ended without a report.
        """
        interpreter = self.settings.interpreter(job.code)
        spec = portable_spec(job.spec, job.ship)
        variables = self.settings.variables(job.variables, interpreter)
        secrets = secrets_of(variables, self.settings.private_environment)
        relay = Relay(log, secrets)
        scratch = Path(tempfile.mkdtemp(prefix="mlops-step-"))
        try:
            command = _prepare(scratch, spec, interpreter)
            folders = job.code if self.settings.code is None else map(os.path.expanduser, self.settings.code)
            path = [str(scratch / "core.zip"), *folders, variables.get("PYTHONPATH", "")]
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, path))
            if "TMPDIR" not in self.settings.environment:
                variables["TMPDIR"] = str(scratch / "tmp")
            log.info("The step runs in %s", interpreter)
            self._child = Guarded(
                command, cwd=Path.cwd(), environment=variables, subject=f"the step in {interpreter}", scratch=scratch
            )
            if self._cancelled:  # between this method's first line and here
                self._child.stop()
            code = self._child.follow(relay.line)
            _check_start(scratch, interpreter, code, relay.tail)
            report = _read(scratch / "report.json")
            return result_of(report, code, relay.tail, subject=self._child.subject, secrets=secrets)
        except MissingExtraError as error:
            raise _with_cure(error, interpreter) from None
        except SpecError as error:
            raise _with_module(error, interpreter) from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def cancel(self) -> None:
        """Stop the step with all that it has started."""
        self._cancelled = True
        if self._child is not None:
            with contextlib.suppress(OSError):
                self._child.stop()


def _prepare(scratch: Path, spec: dict[str, Any], interpreter: Path) -> list[str]:
    """Write what the process reads, and return its command line."""
    (scratch / "core.zip").write_bytes(core_bundle())
    (scratch / "tmp").mkdir()
    text = json.dumps(spec, ensure_ascii=False)
    (scratch / "spec.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    start = START.format(oldest=OLDEST_PYTHON)
    files = ["--spec", str(scratch / "spec.json"), "--report", str(scratch / "report.json")]
    return [str(interpreter), "-c", start, *files]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _check_start(scratch: Path, interpreter: Path, code: int, tail: tuple[str, ...]) -> None:
    """Raise if what has ended was no Python, or one that is too old; a signal may end any of them."""
    version = (_read(scratch / "report.json.python") or b"").decode()
    if not version and code >= 0:
        said = f" It said: {' | '.join(tail)}" if tail else ""
        raise SpecError(
            f"runtime['python']: {interpreter} does not start as Python does (exit code {code}); look "
            f"at what this says: {interpreter} -c 'print()'.{said}",
            python=str(interpreter),
        )
    if version and tuple(map(int, version.split("."))) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise SpecError(
            f"runtime['python']: {interpreter} is Python {version}, and a step needs at least {oldest}; make an "
            "environment of a newer Python, or run the step in a container: runtime={'image': ...}",
            python=str(interpreter),
            version=version,
        )


def _with_cure(error: MissingExtraError, interpreter: Path) -> MissingExtraError:
    """Return the error with the command that installs in that interpreter what the step's libraries are."""
    library = str(error.fields.get("library") or "")
    wanted = _requirements(error.fields.get("extra")) or [_distribution(library)]
    what = error.message.partition("; run: ")[0].replace("installed here", f"installed in {interpreter}")
    return MissingExtraError(f"{what}; run: {_pip(interpreter)} {' '.join(map(_quoted, wanted))}", **error.fields)


def _with_module(error: SpecError, interpreter: Path) -> SpecError:
    """Return the error of a module that is not there with the command that installs it, if it is a library."""
    found = _NO_MODULE.search(error.message)
    if found is None or str(interpreter) in error.message:
        return error
    install = f"{_pip(interpreter)} {_distribution(found[1])}"
    return SpecError(f"{error.message} (it runs in {interpreter}; if it is a library: {install})", **error.fields)


def _requirements(extra: Any) -> list[str]:
    """Return the requirements of one of our extras, those that Airflow is no part of."""
    from importlib import metadata

    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found: dict[str, str] = {}
    waiting, seen = [str(extra)], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for one in map(Requirement, lines):
            if one.marker is None or not one.marker.evaluate({"extra": name}) or one.marker.evaluate({"extra": ""}):
                continue
            if one.name == DISTRIBUTION:
                waiting += one.extras
            elif not one.name.startswith("apache-airflow"):
                found[one.name] = f"{one.name}{one.specifier}"
    return [found[name] for name in sorted(found)]


def _distribution(module: str) -> str:
    from airflow_mlops.core.training.provenance import DISTRIBUTIONS

    return DISTRIBUTIONS.get(module, module.replace("_", "-"))


def _pip(interpreter: Path) -> str:
    """Return the command that installs into an interpreter: its own pip, or uv where it has none."""
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('pip') is None)"
    try:
        has_pip = not subprocess.run([interpreter, "-Ic", probe], timeout=20, check=False).returncode
    except (OSError, subprocess.SubprocessError):
        has_pip = True
    return f"{interpreter} -m pip install" if has_pip else f"uv pip install --python {interpreter}"


def _quoted(requirement: str) -> str:
    return f"'{requirement}'" if re.search(r"[<>!=]", requirement) else requirement
