"""Model servers as containers of a Docker Engine, which keeps them up by itself: across crashes, and its own restarts.

A container holds all that it needs: the core, the model's verified files, and who it is. It has no credentials but, if
it captures to a store on S3, the access to that, in a file that only its user can read.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import socket
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.bundle import core_bundle
from airflow_mlops.core.errors import CannotReachError, MlopsError, NotFoundError, SpecError
from airflow_mlops.core.extras import require
from airflow_mlops.core.s3 import STORE
from airflow_mlops.core.serving.capture import Capture, folder_of
from airflow_mlops.core.serving.fleet import LAST_LINES, Fleet, Instance, identity, verified_copy
from airflow_mlops.core.serving.gateway import Gateway
from airflow_mlops.core.serving.places import Place
from airflow_mlops.core.serving.reconcile import Reconciler
from airflow_mlops.core.serving.state import Deployment
from airflow_mlops.core.store import LocalStore, Store

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

FOLDER, CAPTURED = "/mlops", "/mlops-captured"
SERVER, DEPLOYMENT, OWNER = "airflow_mlops.server", "airflow_mlops.deployment", "airflow_mlops.store"
#: The port that a server listens at inside.
PORT = 8080
#: Ports of the engine's machine that are tried where there is no shared network.
PORTS = range(20000, 30000)
#: Seconds that a server may take to answer what is under way.
GRACE_SECONDS = 60
CALL_TIMEOUT = 120
ATTEMPTS = 8
#: So much of a server's log stays on the engine's disk.
_LOG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


class ContainerFleet(Fleet):
    """Model servers on one engine.

    :param client: of the SDK's low level.
    :param copies: local folder for verified copies of models on their way into containers.
    """

    def __init__(self, context: StepContext, place: Place, client: Any, copies: Path) -> None:
        self.context, self.place, self.client, self.copies = context, place, client, copies
        # Several Airflows may share an engine: each sees its own servers only.
        self.owner = owner_of(context.store)

    def ensure(self, deployment: Deployment) -> Instance:  # noqa: D102
        found = self._inspect(self._name(deployment))
        if found is None:
            self._create(deployment)
            found = self._inspect(self._name(deployment))
        if found is None:
            raise CannotReachError(f"the container {self._name(deployment)} is gone as soon as it was made")
        if found["State"]["Status"] == "created":
            found = self._started(deployment)
        return self._instance(deployment, found)

    def revive(self, deployment: Deployment) -> Instance:  # noqa: D102
        instance = self.ensure(deployment)
        found = self._inspect(self._name(deployment))
        # The engine itself starts one that crashed; this is one that somebody stopped.
        if found is not None and found["State"]["Status"] in ("exited", "dead"):
            with self._errors():
                self.client.start(self._name(deployment))
        return instance

    def running(self, server: str) -> list[int]:  # noqa: D102
        labels = [f"{SERVER}={server}", f"{OWNER}={self.owner}"]
        with self._errors():
            found = self.client.containers(all=True, filters={"label": labels})
        return sorted(int(one["Labels"][DEPLOYMENT]) for one in found)

    def alive(self, server: str, seq: int) -> bool:  # noqa: D102
        found = self._inspect(self._named(server, seq))
        return found is not None and found["State"]["Status"] in ("running", "paused")

    def remove(self, server: str, seq: int) -> None:  # noqa: D102
        from docker.errors import NotFound

        name = self._named(server, seq)
        with self._errors():
            try:
                self.client.stop(name, timeout=GRACE_SECONDS)
                self.client.remove_container(name, force=True, v=True)
            except NotFound:
                pass

    def _named(self, server: str, seq: int) -> str:
        return f"mlops-{server}-{seq}-{self.owner}"

    def _name(self, deployment: Deployment) -> str:
        return self._named(deployment.server, deployment.seq)

    def _inspect(self, name: str) -> dict[str, Any] | None:
        from docker.errors import NotFound

        with self._errors():
            try:
                found: dict[str, Any] = self.client.inspect_container(name)
            except NotFound:
                return None
        return found

    def _instance(self, deployment: Deployment, found: dict[str, Any]) -> Instance:
        address = f"{self._name(deployment)}:{PORT}"
        if not self.place.network:
            (bound,) = found["HostConfig"]["PortBindings"][f"{PORT}/tcp"]
            address = f"{bound['HostIp'] or '127.0.0.1'}:{bound['HostPort']}"
        state = found["State"]
        if state["Status"] == "running" and not found.get("RestartCount"):
            return Instance(address, "running")
        how = "the machine ran out of memory" if state.get("OOMKilled") else f"exit code {state.get('ExitCode')}"
        return Instance(address, "ended", f"its container ended ({how}). Its last lines: {self._lines(deployment)}")

    def _lines(self, deployment: Deployment) -> str:
        with self._errors():
            text = self.client.logs(self._name(deployment), tail=LAST_LINES).decode("utf-8", "replace")
        return " | ".join(line.strip()[:300] for line in text.splitlines() if line.strip()) or "none"

    def _create(self, deployment: Deployment) -> None:
        from docker.errors import APIError

        self._check_image()
        binds = {}
        where, prefix = self.context.store.uri, folder_of(deployment.server)
        if isinstance(self.context.store, LocalStore) and Capture.of(deployment.intent["capture"]).sample > 0:
            # Its own part of the store and nothing else of it: what is in the container is the model's code.
            own = self.context.store.path_of(prefix)
            own.mkdir(parents=True, exist_ok=True)
            binds[str(own)] = {"bind": CAPTURED, "mode": "rw"}
            where, prefix = f"file://{CAPTURED}", ""
        job = {
            "model": f"{FOLDER}/model",
            "digest": deployment.digest,
            "identity": identity(deployment),
            "capture": deployment.intent["capture"],
            "store": where,
            "prefix": prefix,
            "bind": f"0.0.0.0:{PORT}",
            "grace": GRACE_SECONDS,
            "access": os.environ.get(STORE) if where.startswith("s3:") else None,
        }
        ports = None if self.place.network else {PORT: ("127.0.0.1", _port())}
        host = self.client.create_host_config(
            # What a model's code starts and leaves behind is waited for by somebody.
            init=True,
            restart_policy={"Name": "unless-stopped"},
            port_bindings=ports,
            network_mode=self.place.network or None,
            binds=binds,
            log_config=_LOG,
            mem_limit=self.place.memory or None,
            memswap_limit=self.place.memory or None,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        name = self._name(deployment)
        with self._errors():
            try:
                self.client.create_container(
                    self.place.image,
                    name=name,
                    entrypoint=["python3", "-u", "-m", "airflow_mlops.core.serving.server"],
                    command=[f"{FOLDER}/server.json"],
                    labels={
                        SERVER: deployment.server,
                        DEPLOYMENT: str(deployment.seq),
                        OWNER: self.owner,
                        "airflow_mlops.digest": deployment.digest,
                    },
                    environment={
                        "PYTHONPATH": f"{FOLDER}/core.zip",
                        "PYTHONDONTWRITEBYTECODE": "1",
                        "MLFLOW_DISABLE_TELEMETRY": "true",
                        "DO_NOT_TRACK": "true",
                        "HOME": "/tmp",  # noqa: S108 - the container's own
                    },
                    user=self.place.user or None,
                    ports=[PORT],
                    working_dir="/tmp",  # noqa: S108 - the container's own
                    host_config=host,
                )
            except APIError as error:
                if error.status_code != 409:
                    raise
                return  # an earlier try has made it
        copy = verified_copy(self.context, deployment, self.copies)
        with self._errors(), tempfile.TemporaryFile() as archive:
            _pack(archive, copy, job, self.place.user)
            archive.seek(0)
            self.client.put_archive(name, "/", archive)

    def _started(self, deployment: Deployment) -> dict[str, Any]:
        """Start a container that was made; one whose files are not all there, or whose port is taken, is made anew."""
        from docker.errors import APIError

        name = self._name(deployment)
        for _ in range(ATTEMPTS):
            with self._errors():
                if self._is_whole(name):
                    try:
                        self.client.start(name)
                        found: dict[str, Any] = self.client.inspect_container(name)
                        return found
                    except APIError as error:
                        if "port is already allocated" not in str(error) and "address already in use" not in str(error):
                            raise
                self.client.remove_container(name, force=True, v=True)
            self._create(deployment)
        raise CannotReachError(f"no free port for the container {name} was found; a later try may succeed")

    def _is_whole(self, name: str) -> bool:
        """Return whether all files came into a container; the last one of the archive says so."""
        from docker.errors import NotFound

        try:
            self.client.get_archive(name, f"{FOLDER}/whole")
        except NotFound:
            return False
        return True

    def _check_image(self) -> None:
        from docker.errors import ImageNotFound

        with self._errors():
            try:
                self.client.inspect_image(self.place.image)
            except ImageNotFound:
                raise NotFoundError(
                    f"the engine has no image {self.place.image!r}; build it (BuildImageOperator, docker build) or "
                    "pull it there",
                    image=self.place.image,
                ) from None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import docker.errors
        import requests.exceptions

        try:
            yield
        except MlopsError:
            raise
        except docker.errors.APIError as error:
            text = str(error.explanation or error)
            if error.status_code == 400 or "no such network" in text.lower() or "bind source path" in text:
                raise SpecError(f"the Docker Engine refuses a model's container: {text}") from None
            raise CannotReachError(f"the Docker Engine fails with {error.status_code}: {text}") from None
        except (requests.exceptions.RequestException, docker.errors.DockerException, OSError) as error:
            raise CannotReachError(
                f"the Docker Engine does not answer ({type(error).__name__}); its containers go on serving. Check that "
                "it runs (systemctl status docker) and that this user may open it"
            ) from None


def owner_of(store: Store) -> str:
    """Return what the containers of servers, whose desired state is in a store, have as their label of it."""
    return digests.hex_of(digests.of_bytes(store.uri.encode()))[:12]


def _port() -> int:
    """Return a port of this machine that nobody listens at now; one that was taken meanwhile shows at the start."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", port))
                return port
    raise CannotReachError(f"no port between {PORTS.start} and {PORTS.stop} is free on this machine")


def _pack(archive: Any, model: Path, job: dict[str, Any], user: str) -> None:
    """Write what goes into a container as a tar file, all of it its user's own."""
    uid, _, gid = user.partition(":")

    def own(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid, entry.gid = int(uid) if uid.isdigit() else 0, int(gid) if gid.isdigit() else 0
        entry.uname = entry.gname = ""
        return entry

    def add(name: str, data: bytes, mode: int) -> None:
        entry = own(tarfile.TarInfo(f"{FOLDER[1:]}/{name}"))
        entry.size, entry.mode, entry.mtime = len(data), mode, int(time.time())
        tar.addfile(entry, io.BytesIO(data))

    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(model, f"{FOLDER[1:]}/model", filter=own)
        add("core.zip", core_bundle(), 0o444)
        add("server.json", json.dumps(job).encode(), 0o400)
        add("whole", b"", 0o444)


@contextlib.contextmanager
def container_driver(context: StepContext, server: str, place: Place) -> Iterator[Callable[[], float | None]]:
    """Give what does the next step of a server's deployments to containers."""
    require("docker", "serving models in containers")
    import docker

    tls = place.engine.get("tls") or False
    if isinstance(tls, dict):
        tls = docker.tls.TLSConfig(**{**tls, "client_cert": tuple(tls["client_cert"] or ()) or None})
    if not Path(place.gateway).is_dir():
        raise SpecError(
            f"the gateway's folder {place.gateway} is not there: start the gateway first, and mount its folder where "
            "this runs"
        )
    with tempfile.TemporaryDirectory(prefix="mlops-serving-") as folder:
        try:
            client = docker.APIClient(
                base_url=place.engine.get("url") or None, version="auto", timeout=CALL_TIMEOUT, tls=tls
            )
        except docker.errors.DockerException as error:
            raise CannotReachError(f"the Docker Engine at {place.engine.get('url')} does not answer: {error}") from None
        try:
            fleet = ContainerFleet(context, place, client, Path(folder) / "models")
            yield Reconciler(context, server, fleet, Gateway(place.gateway), Path(folder) / "models").advance
        finally:
            client.close()
