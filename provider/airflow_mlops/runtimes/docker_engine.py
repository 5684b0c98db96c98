"""The Docker Engine of a task: its address, a client, and its errors in our words."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook

from airflow_mlops import backend
from airflow_mlops.core.errors import (
    CannotReachError,
    ConflictError,
    CredentialsError,
    MissingExtraError,
    MlopsError,
    NotFoundError,
    SpecError,
    UnsupportedError,
    did_you_mean,
)
from airflow_mlops.core.extras import DISTRIBUTION
from airflow_mlops.core.tracking import strip_credentials

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

DEFAULT_CONNECTION = "docker_default"
DEFAULT_URL = "unix:///var/run/docker.sock"
#: What a connection's extra may hold: Airflow's own keys of a registry's login, and those of the engine.
EXTRA = ("email", "reauth", "docker_url", "tls_ca_cert", "tls_client_cert", "tls_client_key", "tls_verify")
#: Seconds that a call of the engine may take.
CALL_TIMEOUT = 60


class OutOfMemoryError(MlopsError):
    """A step needs more memory than its container may have."""


class ContainerLostError(CannotReachError):
    """The container of a step was ended from outside, or is gone."""


@dataclass(frozen=True)
class Engine:
    """Where an engine is and how to log in to its registry.

    :param url: ``unix://`` or ``tcp://``.
    :param conn_id: the connection, for messages; None: the local engine of the environment.
    :param login: whether the connection names a registry and a login.
    """

    url: str
    conn_id: str | None = None
    tls: dict[str, Any] | bool = field(default=False, repr=False)
    login: bool = False

    @property
    def local(self) -> bool:
        """Whether the engine sees this machine's folders."""
        return self.url.startswith(("unix://", "/"))

    @property
    def name(self) -> str:
        """What messages call it."""
        via = f" (connection {self.conn_id!r})" if self.conn_id else ""
        return f"the Docker Engine at {strip_credentials(self.url)}{via}"

    def client(self, *, login: bool = False, timeout: float = CALL_TIMEOUT) -> Any:
        """Return a new client of the SDK's low level, made by Airflow's own hook.

        :param timeout: seconds that a call may take.
        :param login: log in to the connection's registry first, as a pull needs.
        """
        hook_class = _hook_class()
        from docker import TLSConfig

        tls: Any = TLSConfig(**self.tls) if isinstance(self.tls, dict) else self.tls
        with engine_errors(self):
            hook = hook_class(
                docker_conn_id=self.conn_id if login and self.login else None,
                base_url=self.url,
                version="auto",
                tls=tls,
                timeout=timeout,
            )
            return hook.api_client


def engine_of(conn_id: str | None) -> Engine:
    """Return the engine that a connection of type ``docker`` names.

    Without an id it is ``docker_default``. Where nobody defined that one, the embedded back end takes the engine of
    this machine, as the ``docker`` command does: ``DOCKER_HOST``, or the usual socket.

    :raises CannotReachError: if the connection cannot be had.
    :raises SpecError: if it is of another type, or has an extra field that is not known.
    """
    if conn_id is None and backend.name() == "embedded":
        try:
            connection = BaseHook.get_connection(DEFAULT_CONNECTION)
        except AirflowNotFoundException:
            return Engine(_default_url(), tls=_environment_tls())
        return _engine(connection, DEFAULT_CONNECTION)
    conn_id = conn_id or DEFAULT_CONNECTION
    return _engine(backend.connection(conn_id), conn_id)


def _engine(connection: Connection, conn_id: str) -> Engine:
    from airflow_mlops.hooks.mlflow import mask

    mask(connection.password)
    if connection.conn_type != "docker":
        raise SpecError(f"the connection {conn_id!r} has type {connection.conn_type!r}, expected 'docker'")
    extra = connection.extra_dejson
    for key in extra:
        if key not in EXTRA:
            raise SpecError(f"the connection {conn_id!r} has an extra field {key!r}{did_you_mean(key, EXTRA)}")
    url = str(extra.get("docker_url") or _default_url())
    if not url.startswith(("unix://", "tcp://", "http://", "https://", "ssh://")):
        raise SpecError(f"docker_url of the connection {conn_id!r} must begin with unix:// or tcp://, got {url!r}")
    files = {key: extra.get(f"tls_{key}") for key in ("ca_cert", "client_cert", "client_key")}
    tls: dict[str, Any] | bool = False
    if any(files.values()):
        if bool(files["client_cert"]) != bool(files["client_key"]):
            raise SpecError(f"the connection {conn_id!r} must have both tls_client_cert and tls_client_key, or none")
        verify = str(extra.get("tls_verify", True)).strip().lower() not in ("false", "0", "no")
        pair = (files["client_cert"], files["client_key"]) if files["client_cert"] else None
        missing = [path for path in files.values() if path and not os.path.isfile(path)]
        if missing:
            raise SpecError(f"the connection {conn_id!r} names TLS files that are not on this worker: {missing}")
        tls = {"ca_cert": files["ca_cert"], "client_cert": pair, "verify": verify}
    return Engine(url, conn_id, tls, login=bool(connection.host and connection.login))


def _default_url() -> str:
    return os.environ.get("DOCKER_HOST") or DEFAULT_URL


def _environment_tls() -> dict[str, Any] | bool:
    """Return what ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH`` say, as the ``docker`` command reads them."""
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return False
    folder = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    pair = (os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
    return {"ca_cert": os.path.join(folder, "ca.pem"), "client_cert": pair, "verify": True}


def _hook_class() -> Any:
    try:
        from airflow.providers.docker.hooks.docker import DockerHook
    except ImportError as error:
        raise MissingExtraError(
            "runtime={'image': ...} needs Airflow's provider for Docker, which is not installed here; "
            f"run: pip install '{DISTRIBUTION}[docker]'",
            library="apache-airflow-providers-docker",
            extra="docker",
        ) from error
    return DockerHook


@contextlib.contextmanager
def engine_errors(engine: Engine) -> Iterator[None]:
    """Turn what the SDK raises into our errors: an engine that does not answer is retryable, a refusal is not."""
    import docker.errors
    import requests.exceptions
    import urllib3.exceptions

    try:
        yield
    except MlopsError:
        raise
    except docker.errors.APIError as error:
        raise _refused(engine, error) from None
    except (
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        docker.errors.DockerException,
        AirflowException,
        OSError,
    ) as error:
        raise CannotReachError(
            f"{engine.name} does not answer ({type(error).__name__}); check that it runs (systemctl status docker), "
            f"that its address is right (docker_url in the extra of the connection, or DOCKER_HOST) and that this "
            "worker's user may open it (group docker)",
            engine=strip_credentials(engine.url),
        ) from None


def _refused(engine: Engine, error: Any) -> MlopsError:
    text = strip_credentials(str(error.explanation or error))
    status = error.status_code or 500
    if "could not select device driver" in text and "gpu" in text:
        return UnsupportedError(
            f"{engine.name} cannot give a container a GPU; install the NVIDIA driver and nvidia-container-toolkit on "
            "its machine (nvidia-ctk runtime configure --runtime=docker), or leave runtime['gpus'] out",
            engine=strip_credentials(engine.url),
        )
    if "executable file not found" in text or "no such file or directory: unknown" in text:
        return SpecError(
            f"the image has no such interpreter: {text}; give runtime['python'] the path of a Python of at least 3.10 "
            "in the image"
        )
    if "bind source path does not exist" in text:
        return SpecError(
            f"{engine.name} does not have a folder that is to be mounted: {text}. Where the worker is a container "
            "itself, mount the folder at the same path there and on the engine's machine; else use a store on S3 and "
            "an MLflow server"
        )
    if status == 404 and "network" in text:
        return NotFoundError(f"{engine.name}: {text}; give runtime['network'] one of `docker network ls`")
    if status == 404:
        return ContainerLostError(f"{engine.name} no longer has the container of this step: {text}")
    if status in (401, 403) or "unauthorized" in text.lower():
        return CredentialsError(
            f"{engine.name} or its registry refuses the credentials: {text}; check host, login and password of the "
            "connection"
        )
    if status == 409 and ("marked for removal" in text or "is dead" in text):
        return ContainerLostError(f"the container of this step was removed while it was in use: {text}; a retry helps")
    if status == 409:
        return ConflictError(f"{engine.name}: {text}")
    if status == 400 or "invalid" in text.lower():
        return SpecError(f"{engine.name} refuses the container: {text}")
    return CannotReachError(f"{engine.name} fails with {status}: {text}", engine=strip_credentials(engine.url))
