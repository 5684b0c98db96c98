"""``airflow mlops serve`` of a test's Airflow."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from servers.docker_steps import wait_for
from servers.s3 import free_port


@contextlib.contextmanager
def served(airflow_test: Any) -> Iterator[int]:
    """Have models served by processes of this machine; yields the gateway's port."""
    port = free_port()
    log = airflow_test.home / "serve.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["airflow", "mlops", "serve", "--port", str(port)],
            env=airflow_test.environment,
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(lambda: process.poll() is not None or "Model servers are at" in log.read_text())
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0, log.read_text()
