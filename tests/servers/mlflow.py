"""An MLflow server of the tests' own, on SQLite, that keeps the artifacts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from servers.s3 import free_port


def start_mlflow(
    folder: Path, migrated: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> tuple[str, subprocess.Popen[Any]]:
    """Start a server and wait until it answers; :func:`stop_mlflow` ends it.

    :param migrated: an SQLite file that is set up already; it is copied.
    :param arguments: more of them for ``mlflow server``.
    """
    (folder / "mlflow.db").write_bytes(migrated.read_bytes())
    port = free_port()
    log = (folder / "log").open("w")
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")),
            *arguments,
        ],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", **(environment or {})},
        stdout=log,
        stderr=log,
        cwd=folder,
        start_new_session=True,
    )
    for _ in range(240):
        if server.poll() is not None:
            break
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            return f"http://127.0.0.1:{port}", server
        time.sleep(0.5)
    stop_mlflow(server)
    raise RuntimeError((folder / "log").read_text())


def stop_mlflow(server: subprocess.Popen[Any]) -> None:
    """End a server with its workers; one that waits for its clients is not waited for."""
    for sign, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 30)):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            server.wait(patience)
            return
