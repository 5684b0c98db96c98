"""What ``airflow mlops serve`` does. Imported when it runs."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from typing import Any

from airflow_mlops import backend
from airflow_mlops.cli.session import command, session
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.serving.gateway import Settings
from airflow_mlops.core.serving.serve import serve as serve_models


@command
def serve(args: argparse.Namespace) -> None:
    """Own the model servers of this machine until SIGTERM or Ctrl-C."""
    # Raises where workers may sit on several machines.
    folder = backend.home() / "serving"
    if not 1 <= args.port <= 65535:
        raise SpecError(f"--port must be from 1 to 65535, got {args.port}")
    logger = logging.getLogger("airflow_mlops.serve")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    # The command's decorator silences the root logger.
    logger.handlers, logger.propagate, logger.disabled = [handler], False, False
    logger.setLevel(logging.INFO)
    logging.disable(logging.NOTSET)
    stop = threading.Event()

    def end(*_: Any) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with session(args) as context:
        import dataclasses

        from airflow_mlops.hooks.store import StoreHook

        serve_models(
            dataclasses.replace(context, log=logger, key=""),
            folder,
            Settings(bind=f"{args.host}:{args.port}", timeout=args.timeout, key=args.key),
            stop=stop,
            environment=dict(StoreHook(args.store_conn_id).environment),
        )
