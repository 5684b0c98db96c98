"""``python -m airflow_mlops.core --spec SPEC.json --report REPORT.json``: run one step without Airflow.

Exit code 0: the step ended and REPORT holds its result (a gate's verdict may still be "not passed"). 1: it failed
for a known reason. 2: the command line is wrong, nothing was run. 70: it crashed. After 1 and 70 REPORT holds
``{"error": {"type", "message", "retryable", "fields"}}``; after a signal there is no REPORT.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import logging
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

from airflow_mlops.core.callables import revive
from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.plain import clean
from airflow_mlops.core.steps import run_step
from airflow_mlops.core.tracking import strip_credentials

KNOWN_FAILURE = 1
CRASH = 70


def main(argv: list[str] | None = None) -> int:
    """Run the step of a spec file and write its report file."""
    parser = argparse.ArgumentParser(prog="python -m airflow_mlops.core", description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, help="JSON file: step, args, store, tracking_uri, key")
    parser.add_argument("--report", required=True, help="where the result goes, as JSON")
    options = parser.parse_args(argv)
    report = Path(options.report)
    if not report.parent.is_dir():
        parser.error(f"--report {report}: the folder {report.parent} does not exist")
    report.unlink(missing_ok=True)
    _log_to_standard_error()
    try:
        spec = _read(options.spec)
        _write(report, run_step({**spec, "args": revive(spec.get("args"))}))
    except MlopsError as error:
        _write(report, {"error": error.to_dict()})
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return KNOWN_FAILURE
    except Exception as error:
        traceback.print_exc()
        text = strip_credentials(f"{type(error).__name__}: {error}")
        _write(report, {"error": {"type": type(error).__name__, "message": text, "retryable": False, "fields": {}}})
        return CRASH
    return 0


def _log_to_standard_error() -> None:
    """Write each record as ``DATE TIME LEVEL text``, each line of its text so: a runtime reads the level from it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_EachLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)


class _EachLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record)} {logging.getLevelName(10 * max(1, min(5, record.levelno // 10)))}"
        return "\n".join(f"{head} {line}" for line in super().format(record).splitlines() or [""])


def _read(path: str) -> dict[str, Any]:
    try:
        spec = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"the spec {path} cannot be read as JSON: {error}") from error
    if not isinstance(spec, dict):
        raise SpecError(f"the spec {path} must hold a JSON object")
    return spec


def _write(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(clean(value), ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(temporary, path)


def _leave(code: int) -> NoReturn:
    """End the process as Python does, but without taking the libraries' modules apart, which lasts up to a second."""
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as multiprocessing's children do
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
