"""The process of a model server: ``python -m airflow_mlops.core.serving.server SERVER.json``.

It verifies that the model's files are those of the deployment, loads them, and serves MLflow's scoring protocol
(``/ping``, ``/invocations``...) with ``/metrics`` and ``/model`` beside it. The file holds ``{"model", "digest",
"identity", "capture", "store", "fd" or "bind", "guarded", "access"}``; ``guarded``: the process ends when its standard
input closes, so that it never outlives the one who started it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import IntegrityError, MlopsError
from airflow_mlops.core.extras import require, silence_telemetry
from airflow_mlops.core.serving.capture import Capture, RecordedModel, Recorder
from airflow_mlops.core.serving.measure import Figures, measured
from airflow_mlops.core.store import open_store

log = logging.getLogger("airflow_mlops.serving")

#: Longer than the gateway keeps an idle connection to a server, so that it is never the server that closes first.
KEEP_ALIVE_SECONDS = 120
#: Seconds that a thread may keep the interpreter while another waits for it: of Python's default of 5 ms a request,
#: which changes threads some times, would feel each.
SWITCH_SECONDS = 0.0005
#: Seconds that are left to write captured rows once the one who started the process is gone.
ORPHAN_SECONDS = 20


def main(file: str) -> None:
    """Serve until SIGTERM; requests that are under way are answered first."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    # Before the web server takes signals over, and after it has ended by one and raises it again.
    signal.signal(signal.SIGTERM, _end)
    if job.get("guarded"):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    silence_telemetry()
    try:
        with application(job) as app:
            _serve(app, job)
    except MlopsError as error:
        raise SystemExit(f"{type(error).__name__}: {error.message}") from None


@contextlib.contextmanager
def application(job: dict[str, Any]) -> Iterator[Any]:
    """Give the ASGI application that serves a model.

    :raises IntegrityError: if the model's files are not those of the deployment.
    """
    folder, digest = Path(job["model"]), str(job["digest"])
    found = models.digest_of(models.manifest_of(folder))
    if found != digest:
        raise IntegrityError(f"the model's files have the digest {found}, not {digest} as deployed; it is not served")
    require("mlflow", "serving a model")
    import mlflow.pyfunc

    from airflow_mlops.core.serving import scoring

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with models.quietly():
        model = mlflow.pyfunc.load_model(str(folder))
    figures = Figures(job["identity"])
    from airflow_mlops.core.s3 import S3Access

    access = S3Access.from_json(job["access"]) if job.get("access") else None
    recorder = Recorder(
        open_store(job["store"], access),
        Capture.of(job.get("capture")),
        job["identity"],
        figures,
        job.get("prefix"),
        model,
    )
    try:
        yield measured(scoring.application(RecordedModel(model, recorder, figures)), figures)
    finally:
        recorder.close()


def _serve(app: Any, job: dict[str, Any]) -> None:
    import uvicorn

    settings = uvicorn.Config(
        app,
        host=None if "fd" in job else str(job["bind"]).rpartition(":")[0],
        port=None if "fd" in job else int(str(job["bind"]).rpartition(":")[2]),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(job.get("grace") or 60),
    )
    server = uvicorn.Server(settings)
    known = job["identity"]
    version = f"/{known['version']}" if known.get("version") else ""
    sys.setswitchinterval(SWITCH_SECONDS)
    # What is loaded by now stays; looking through all of it for garbage would hold up requests again and again.
    gc.collect()
    gc.freeze()
    log.info("Deployment %s to %s serves %s%s", known["deployment"], known["server"], known["model"], version)
    server.run(sockets=[socket.socket(fileno=int(job["fd"]))] if "fd" in job else None)


def _end(*_: Any) -> None:
    raise SystemExit(0)


def _end_with_parent() -> None:
    # Not by ``sys.stdin``, whose lock the interpreter needs when it ends.
    while os.read(0, 1 << 10):
        pass
    # As if told to: what was captured is written.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_SECONDS)
    os._exit(3)


if __name__ == "__main__":
    main(sys.argv[1])
