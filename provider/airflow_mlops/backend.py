"""Which back end serves a task: the embedded one, or connections. Read from ``[mlops]`` in Airflow's configuration."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, conf

from airflow_mlops.core.errors import CannotReachError, SpecError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

SECTION = "mlops"
BACKENDS = ("embedded", "connections")


@dataclass(frozen=True)
class Tracking:
    """Where MLflow is, and the environment variables that carry its credentials.

    :param ui_url: where people open MLflow in a browser, if not at ``tracking_uri``.
    :param source: for the log: ``embedded`` or the connection's id.
    """

    tracking_uri: str
    registry_uri: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    ui_url: str | None = None
    source: str = "embedded"


def name() -> str:
    """Return ``embedded`` or ``connections``.

    :raises SpecError: for another value.
    """
    value = str(conf.get(SECTION, "backend", fallback="embedded")).strip().lower()
    if value not in BACKENDS:
        raise SpecError(f"[{SECTION}] backend is {value!r}; it must be one of {', '.join(BACKENDS)}")
    return value


def runbook() -> str:
    """Return the address of the page where people read the runbook; empty: nobody said."""
    return str(conf.get(SECTION, "runbook_url", fallback="") or "").strip().rstrip("#")


def home() -> Path:
    """Return the folder of the embedded back end: ``[mlops] home``, by default ``mlops`` in Airflow's home.

    :raises SpecError: if an executor is configured whose workers may sit on several machines.
    """
    executors = conf.get("core", "executor", fallback="LocalExecutor")
    far = [e for e in _executor_names(executors) if e.rpartition(".")[2] not in ("LocalExecutor", "SequentialExecutor")]
    if far:
        raise SpecError(
            f"the embedded back end keeps files on one machine, but [core] executor is {executors!r}; set "
            f"[{SECTION}] backend = connections, with an mlflow connection and a store that all workers reach"
        )
    value = conf.get(SECTION, "home", fallback="").strip()
    airflow_home = os.environ.get("AIRFLOW_HOME") or os.path.expanduser("~/airflow")
    return Path(os.path.expandvars(os.path.expanduser(value or os.path.join(airflow_home, "mlops")))).absolute()


def connection(conn_id: str) -> Connection:
    """Return a connection that must exist.

    :raises CannotReachError: if it cannot be had. Airflow cannot tell one that is not defined from a secrets back end
        that is down, so this is for a retry, and never a reason to use another back end.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise CannotReachError(
            f"the connection {conn_id!r} cannot be had: either nobody defined it (airflow connections add {conn_id} "
            "...), or the secrets back end that holds it does not answer; the log at level DEBUG says which",
            conn_id=conn_id,
        ) from None


def _executor_names(value: str) -> list[str]:
    """Return the class names in an executor setting: ``team=A:alias,B;other=C`` has A, B and C."""
    names = []
    for part in value.replace(";", ",").split(","):
        part = part.strip().rpartition("=")[2]
        if part:
            classes = [p for p in part.split(":") if p.rpartition(".")[2].endswith("Executor")]
            names.append(classes[0] if classes else part)
    return names


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while and put back what was there."""
    before = {key: os.environ.get(key) for key in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
