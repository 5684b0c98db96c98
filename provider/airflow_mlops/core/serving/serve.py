"""The process that owns the model servers of a machine: what ``airflow mlops serve`` runs."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.core.errors import ConflictError, MlopsError
from airflow_mlops.core.serving import places
from airflow_mlops.core.serving.gateway import Gateway, Settings
from airflow_mlops.core.serving.processes import GatewayProcess, ProcessFleet
from airflow_mlops.core.serving.reconcile import Reconciler
from airflow_mlops.core.serving.state import servers

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Seconds between two looks at the store when nothing is under way; one on S3 costs a request for each server.
IDLE_SECONDS = {"file": 0.5, "s3": 3.0}


def serve(
    context: StepContext,
    folder: Path,
    settings: Settings,
    *,
    stop: threading.Event,
    environment: dict[str, str] | None = None,
) -> None:
    """Own the model servers until ``stop`` is set: start what the desired state wants, and keep it so.

    :param folder: for the gateway's files, copies of models and logs; made if it is missing.
    :param environment: variables with credentials for the model servers, which capture to the store needs.
    :raises ConflictError: if another process owns them.
    :raises MissingExtraError: if HAProxy is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder / "lock", "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConflictError(
                f"another process owns the model servers in {folder} (process {lock.read().strip() or 'unknown'}); "
                "one is enough for all servers of a machine"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        gateway = Gateway(folder / "gateway", settings)
        fleet = ProcessFleet(context, folder, environment)
        process = GatewayProcess(gateway, lambda text: context.log.warning("%s", text))
        try:
            process.ensure()
            context.log.info("Model servers are at http://%s/<server>", settings.bind)
            _loop(context, folder, gateway, fleet, process, stop)
        finally:
            # The gateway first: it ends what is under way, while the models still answer.
            process.close()
            fleet.close()


def _loop(
    context: StepContext,
    folder: Path,
    gateway: Gateway,
    fleet: ProcessFleet,
    process: GatewayProcess,
    stop: threading.Event,
) -> None:
    idle = IDLE_SECONDS["s3" if context.store.uri.startswith("s3:") else "file"]
    drivers: dict[str, Reconciler] = {}
    beaten = looked = 0.0
    said: dict[str, str] = {}
    while not stop.is_set():
        pause = idle
        try:
            process.ensure()
            now = time.monotonic()
            if now - beaten > places.BEAT_SECONDS:
                places.beat(context.store, f"http://{gateway.settings.bind}", str(gateway.folder.resolve()))
                beaten = now
            if now - looked > idle or not drivers:
                for name in servers(context.store):
                    if name not in drivers:
                        drivers[name] = Reconciler(context, name, fleet, gateway, folder / "models")
                looked = now
        except MlopsError as error:
            _say(context, said, "", error)
        for name, driver in drivers.items():
            try:
                next_look = driver.advance()
                said.pop(name, None)
            except MlopsError as error:
                _say(context, said, name, error)
                continue
            pause = min(pause, idle if next_look is None else next_look)
        stop.wait(max(pause, 0.02))


def _say(context: StepContext, said: dict[str, str], name: str, error: MlopsError) -> None:
    """Log an error once, not at every look."""
    if said.get(name) != error.message:
        said[name] = error.message
        context.log.warning("%s%s; trying again", f"{name}: " if name else "", error.message)
