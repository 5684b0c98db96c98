"""One container of one step: its name and labels, its start, what it says, how it ended."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.runtimes import docker_archive
from airflow_mlops.runtimes.docker_engine import ContainerLostError, Engine, engine_errors
from airflow_mlops.runtimes.docker_settings import ContainerSettings, Mount

#: What the names of all labels begin with, and of all containers.
LABEL, PREFIX = "airflow_mlops.", "airflow-mlops-"
KEY, SPEC = f"{LABEL}key", f"{LABEL}spec"
#: Lines of what was said before that a task is shown which comes to a container that runs already.
HISTORY = 1000
#: What an engine keeps of what a container says.
_LOG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
#: Seconds that the last wish of a task which is being killed may take: Airflow gives it five.
_LAST_WISH = 4


@dataclass(frozen=True)
class Identity:
    """Which task a container belongs to, and what it runs.

    :param key: digest of the store and the task instance: another Airflow on the same engine has others.
    :param spec: digest of all that makes the outcome: spec, code, core, image, settings.
    """

    key: str
    spec: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The container's name; an engine has it once."""
        task = re.sub(r"[^A-Za-z0-9_.-]+", "_", self.labels.get(f"{LABEL}task", ""))[:40]
        return f"{PREFIX}{task}-{self.key}-{self.spec}"


def identity_of(spec: Mapping[str, Any], facts: Mapping[str, Any]) -> Identity:
    """Return the identity of a step's container.

    :param facts: what its outcome depends on beside the step and its arguments.
    """
    run = spec.get("run") or {}
    key = digests.hex_of(digests.of_json([spec.get("store"), spec.get("key")]))[:12]
    outcome = {name: spec.get(name) for name in ("step", "args", "store", "tracking_uri", "registry_uri")}
    digest = digests.hex_of(digests.of_json([outcome, facts]))[:12]
    labels = {
        f"{LABEL}dag": str(run.get("dag_id") or ""),
        f"{LABEL}run": str(run.get("run_id") or ""),
        f"{LABEL}task": str(run.get("task_id") or ""),
        f"{LABEL}map_index": str(run.get("map_index", -1)),
        f"{LABEL}step": str(spec.get("step") or ""),
        f"{LABEL}store": str(spec.get("store") or ""),
        KEY: key,
        SPEC: digest,
    }
    return Identity(key, digest, labels)


@dataclass(frozen=True)
class State:
    """What an engine says of a container.

    :param status: ``created``, ``running``, ``paused``, ``restarting``, ``exited``, ``dead``...
    :param created: when it was made, as the engine writes it; so are ``started`` and ``finished``.
    """

    status: str
    code: int
    oom: bool
    error: str
    created: str
    started: str
    finished: str

    @property
    def alive(self) -> bool:
        """Whether it may still say something."""
        return self.status in ("running", "paused", "restarting")


@dataclass(frozen=True)
class Outcome:
    """How the container of a step ended.

    :param report: what the step left; None if it left nothing.
    :param ended: what the first process in it saw: ``returncode``, ``timed_out``, ``oom_kills``, ``peak_bytes``...
    """

    state: State
    report: dict[str, Any] | None
    ended: dict[str, Any]


class Container:
    """A container by its id or name. Each call is one of the engine's, and raises what :func:`engine_errors` says."""

    def __init__(self, engine: Engine, client: Any, name: str) -> None:
        self.engine = engine
        self.client = client
        self.name = name
        self._seen = ""

    @property
    def seen(self) -> str:
        """When the last line that was read was said, as the engine writes it."""
        return self._seen

    @seen.setter
    def seen(self, value: str) -> None:
        self._seen = value

    def state(self) -> State | None:
        """Return what the engine says of it, or None if there is none."""
        from docker.errors import NotFound

        with engine_errors(self.engine):
            try:
                whole = self.client.inspect_container(self.name)
            except NotFound:
                return None
        found = whole["State"]
        return State(
            status=str(found.get("Status") or ""),
            code=int(found.get("ExitCode") or 0),
            oom=bool(found.get("OOMKilled")),
            error=str(found.get("Error") or ""),
            created=str(whole.get("Created") or ""),
            started=str(found.get("StartedAt") or ""),
            finished=str(found.get("FinishedAt") or ""),
        )

    def poll(self) -> tuple[list[str], State]:
        """Return the lines that were said since the last time, and the state, which is not younger than they are.

        :raises ContainerLostError: if the container is gone.
        """
        state = self.state()
        if state is None:
            raise ContainerLostError(
                f"the container {self.name} was removed while its step ran, not by this task; a retry starts it again"
            )
        return self._lines(), state

    def _lines(self) -> list[str]:
        since = {"since": _seconds(self._seen)} if self._seen else {"tail": HISTORY}
        with engine_errors(self.engine):
            text = self.client.logs(self.name, stdout=True, stderr=True, timestamps=True, **since)
        found = []
        for line in text.decode("utf-8", errors="replace").split("\n"):
            # The engine's times are all of one length, so they can be compared as text.
            said, _, words = line.partition(" ")
            if said > self._seen:
                found.append(words)
                last = said
        if found:
            self._seen = last
        return found

    def outcome(self, state: State) -> Outcome:
        """Return how it ended."""
        from docker.errors import NotFound

        with engine_errors(self.engine):
            try:
                blocks, _ = self.client.get_archive(self.name, docker_archive.OUT)
            except NotFound:
                return Outcome(state, None, {})
            files = docker_archive.unpack(blocks)
        return Outcome(state, files.get("report.json"), files.get("ended.json") or {})

    def start(self, message: Mapping[str, Any]) -> None:
        """Start it and give its first process a message, which no configuration and no file has."""
        line = json.dumps(message).encode() + b"\n"
        with engine_errors(self.engine):
            stream = self.client.attach_socket(self.name, params={"stdin": 1, "stream": 1})
            try:
                self.client.start(self.name)
                _send(stream, line)
            finally:
                _close(stream)

    def remove(self, *, force: bool = True) -> None:
        """Remove it with its anonymous volumes; it is no error if it is gone.

        :param force: end it first, if it runs; else one that runs stays.
        """
        from docker.errors import APIError, NotFound

        with engine_errors(self.engine):
            try:
                self.client.remove_container(self.name, force=force, v=True)
            except NotFound:
                pass
            except APIError as error:
                # Somebody else is removing it, or it runs.
                if error.status_code != 409:
                    raise

    def keep(self) -> str:
        """Give an ended container a name under which no task finds it, and return that name."""
        name = f"{self.name.removeprefix('/')}-kept-{dt.datetime.now(dt.timezone.utc):%Y%m%d%H%M%S%f}"
        with engine_errors(self.engine):
            self.client.rename(self.name, name)
        return name


def _seconds(stamp: str) -> float:
    """Return the engine's time in seconds, rounded down a little: what comes twice is left out by its text."""
    return max(instant(stamp).timestamp() - 0.001, 0.001)


def instant(stamp: str) -> dt.datetime:
    """Return a time as an engine writes it, with up to nine digits of a second."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    base = dt.datetime.fromisoformat(whole).replace(tzinfo=dt.timezone.utc)
    return base + dt.timedelta(microseconds=int(fraction[:6].ljust(6, "0")))


def is_kept(name: str) -> bool:
    """Say whether a container's name is one that :meth:`Container.keep` gave."""
    return re.search(r"-kept-\d{20}$", name) is not None


def _send(stream: Any, data: bytes) -> None:
    raw = getattr(stream, "_sock", stream)
    raw.sendall(data) if hasattr(raw, "sendall") else stream.write(data)


def _close(stream: Any) -> None:
    """Close a connection that the SDK has taken over from HTTP, so that the container's input ends."""
    raw = getattr(stream, "_sock", stream)
    with contextlib.suppress(OSError, AttributeError):
        raw.shutdown(socket.SHUT_WR)
    for one in (stream, raw, getattr(stream, "_response", None)):
        if one is not None:
            with contextlib.suppress(Exception):
                one.close()


def create(
    engine: Engine,
    client: Any,
    identity: Identity,
    settings: ContainerSettings,
    mounts: list[Mount],
    visible: Mapping[str, str],
    archive: IO[bytes],
) -> Container:
    """Make a step's container, with all that it needs inside, and do not start it.

    :param visible: variables that stand in the container's configuration.
    :raises ConflictError: if there is one of that name: another try of the task has just made it.
    """
    from docker.types import DeviceRequest

    host = client.create_host_config(
        network_mode=settings.network,
        log_config=_LOG,
        shm_size=settings.shm_size,
        mem_limit=settings.memory,
        memswap_limit=settings.memory,
        nano_cpus=int(settings.cpus * 1e9) if settings.cpus else None,
        device_requests=[DeviceRequest(**_gpus(settings.gpus))] if settings.gpus is not None else None,
    )
    host["Mounts"] = [_mount(one) for one in mounts]
    with engine_errors(engine):
        client.create_container(
            settings.image,
            entrypoint=[settings.python, "-u", f"{docker_archive.FOLDER}/inside.py"],
            command=[docker_archive.FOLDER],
            name=identity.name,
            labels=dict(identity.labels),
            environment=dict(visible),
            user=settings.user,
            stdin_open=True,
            host_config=host,
            working_dir=docker_archive.FOLDER,
        )
    container = Container(engine, client, identity.name)
    try:
        with engine_errors(engine):
            client.put_archive(identity.name, "/", archive)
    except MlopsError:
        with contextlib.suppress(MlopsError):
            container.remove()
        raise
    return container


def _gpus(wanted: Any) -> dict[str, Any]:
    if isinstance(wanted, tuple):
        return {"device_ids": list(wanted), "capabilities": [["gpu"]]}
    return {"count": -1 if wanted == "all" else int(wanted), "capabilities": [["gpu"]]}


def _mount(one: Mount) -> dict[str, Any]:
    # What is mounted by this form must exist: the older form makes an empty folder that belongs to root.
    kind = "bind" if one.source.startswith("/") else "volume"
    return {"Type": kind, "Source": one.source, "Target": one.target, "ReadOnly": one.read_only}


def others(engine: Engine, client: Any, identity: Identity) -> list[Container]:
    """Return the containers that earlier tries of the task left, which would not do what this one is to do."""
    with engine_errors(engine):
        found = client.containers(all=True, filters={"label": f"{KEY}={identity.key}"})
    names = [str(one["Names"][0]).lstrip("/") for one in found if one.get("Names")]
    return [Container(engine, client, n) for n in names if n != identity.name and not is_kept(n)]


def end_quickly(engine: Engine, name: str) -> None:
    """Kill and remove a container from a signal handler; never raises."""
    with contextlib.suppress(Exception):
        client = engine.client(timeout=_LAST_WISH)
        try:
            Container(engine, client, name).remove()
        finally:
            client.close()
