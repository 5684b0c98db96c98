"""Where model servers run, and who carries deployments out there.

``processes``: ``airflow mlops serve`` on this machine owns the servers and the gateway; a task writes what it wants and
waits. ``docker``: containers of an engine, which keeps them up by itself; the task carries its deployment out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import CannotReachError, SpecError, did_you_mean
from airflow_mlops.core.serving.state import ServerState
from airflow_mlops.core.store import Store
from airflow_mlops.core.vocabulary import SCHEMA, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

BACKENDS = ("processes", "docker")
#: Where the process that owns the servers says that it is there.
HEARTBEAT = "serving/reconciler.json"
#: Seconds between two of these, and after which it counts as gone.
BEAT_SECONDS, GONE_SECONDS = 5.0, 45.0
#: Seconds between two looks at what that process does.
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Place:
    """Where servers run.

    :param backend: ``processes`` or ``docker``.
    :param gateway: of ``docker``: the gateway's folder as this process sees it.
    :param url: how clients reach the gateway, such as ``http://127.0.0.1:8600``; of ``processes`` the process that
        owns it says so.
    :param image: of ``docker``: the image that the models run in; it has MLflow and what they import.
    :param network: of ``docker``: the network that gateway and servers share, where they know each other by name;
        empty: each server listens at a port of the engine's machine, on loopback.
    :param engine: of ``docker``: ``{"url", "tls"}``.
    :param user: of ``docker``: the user that servers run as; empty: this process's.
    :param memory: of ``docker``: the most that a server may take, such as ``"2g"``.
    """

    backend: str = "processes"
    gateway: str = ""
    url: str = ""
    image: str = ""
    network: str = ""
    engine: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    user: str = ""
    memory: str = ""

    @classmethod
    def of(cls, value: Mapping[str, Any] | None) -> Place:
        """Read a dict of the fields.

        :raises SpecError: for what no place could be.
        """
        names = [one.name for one in dataclasses.fields(cls)]
        for key in value or {}:
            if key not in names:
                raise SpecError(f"a place of servers has no {key!r}{did_you_mean(key, names)}")
        found = cls(**{key: one for key, one in (value or {}).items() if one is not None})
        if found.backend not in BACKENDS:
            raise SpecError(f"backend must be 'processes' or 'docker', got {found.backend!r}")
        if found.backend == "docker" and not (found.gateway and found.image):
            raise SpecError("backend 'docker' needs the gateway's folder and the image that models run in")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that :meth:`of` reads."""
        return {**vars(self), "engine": dict(self.engine)}

    @property
    def identity(self) -> dict[str, Any]:
        """What of it makes a deployment another one."""
        return {"backend": self.backend, "image": self.image, "network": self.network, "memory": self.memory}

    def check(self, store: Store) -> None:
        """Make sure that somebody will carry a deployment out.

        :raises CannotReachError: if nobody does.
        """
        if self.backend == "processes":
            alive(store)

    def address(self, store: Store, server: str) -> str | None:
        """Return where clients reach a server."""
        url = self.url or (heartbeat(store) or {}).get("url") or ""
        return f"{url.rstrip('/')}/{server}" if url else None


def beat(store: Store, url: str, gateway: str = "") -> None:
    """Say that this process carries out deployments to processes.

    :param gateway: the gateway's folder.
    """
    import os

    store.put_json(
        HEARTBEAT,
        {
            "schema": SCHEMA,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "url": url,
            "gateway": gateway,
            "at": utc_now(),
            "t": time.time(),
        },
    )


def heartbeat(store: Store) -> dict[str, Any] | None:
    """Return what the process that carries out deployments said last, or None."""
    return store.find_json(HEARTBEAT)


def alive(store: Store) -> dict[str, Any]:
    """Return the heartbeat of the process that carries out deployments.

    :raises CannotReachError: if there is none, or not any more.
    """
    found = heartbeat(store)
    if found is None or time.time() - float(found["t"]) > GONE_SECONDS:
        when = f" (it was last seen at {found['at']} on {found['host']})" if found else ""
        raise CannotReachError(
            f"nobody serves models here: `airflow mlops serve` does not run{when}. Start it on this machine, with the "
            "same configuration, and keep it running; or use containers: a connection of type model_server with "
            '"backend": "docker" in its extra, named by server_conn_id'
        )
    return found


@contextlib.contextmanager
def driver_of(context: StepContext, server: str, place: Place) -> Iterator[Callable[[], float | None]]:
    """Give what does the next step of a server's deployments, and returns seconds until there is another."""
    if place.backend == "processes":

        def look() -> float | None:
            alive(context.store)
            return LOOK_SECONDS if ServerState(context.store, server).open() else None

        yield look
        return
    from airflow_mlops.core.serving.containers import container_driver

    with container_driver(context, server, place) as advance:
        yield advance
