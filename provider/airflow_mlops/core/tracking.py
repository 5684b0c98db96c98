"""MLflow: the client, experiments, and its errors in our words.

Credentials are never in a URI here; MLflow reads them from ``MLFLOW_TRACKING_USERNAME``, ``..._PASSWORD`` and
``..._TOKEN``, which the runtime sets.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from airflow_mlops.core.errors import (
    CannotReachError,
    ConflictError,
    CredentialsError,
    MlopsError,
    NotFoundError,
    SpecError,
    UnsupportedError,
)
from airflow_mlops.core.extras import require
from airflow_mlops.core.local_files import cure

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from airflow_mlops.core.steps import StepContext

SQLITE = "sqlite:///"


def strip_credentials(text: str) -> str:
    """Return text with the user part of every URL removed."""
    return re.sub(r"(?<=://)[^/\s'\"@]*(?:@(?=[^/\s'\"]))", "", text)


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a ``sqlite:///`` URI, or None for another back end."""
    return Path(unquote(uri[len(SQLITE) :].partition("?")[0])) if uri.startswith(SQLITE) else None


def sqlite_uri(path: str | os.PathLike[str]) -> str:
    """Return the tracking URI of an SQLite file."""
    return SQLITE + quote(os.path.abspath(path))


#: MLflow's codes for answers that say who may do what, and their HTTP status.
_REFUSED = {"CUSTOMER_UNAUTHORIZED": 401, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}


@contextlib.contextmanager
def mlflow_errors(uri: str | None) -> Iterator[None]:
    """Turn MLflow's exceptions into ours: what cannot be reached is retryable, what is wrong is not."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlopsError:
        raise
    except MlflowException as error:
        raise translated(error, uri) from None
    except OSError as error:
        if type(error).__module__.startswith(("requests", "urllib3")) or isinstance(error, ConnectionError):
            # Files come and go without MLflow's own exceptions.
            status = getattr(getattr(error, "response", None), "status_code", None)
            why = f"HTTP {status}" if status else type(error).__name__
            raise _refused(uri, status) or _unreachable(uri, why) from None
        raise


def _unreachable(uri: str | None, why: str) -> MlopsError:
    server = strip_credentials(uri or "MLflow")
    return CannotReachError(
        f"the MLflow server at {server} cannot be reached or cannot answer now ({why}); "
        "check that it runs and that the connection's host and port are right",
        uri=server,
    )


def _refused(uri: str | None, status: int | None) -> MlopsError | None:
    """Return the error for an answer that says who may do what, or None for another answer."""
    server = strip_credentials(uri or "MLflow")
    if status == 403:
        return CredentialsError(
            f"the MLflow server at {server} does not permit this to the user of the connection's credentials; have the "
            "right given there, on the experiment or the registered model, or use another connection",
            uri=server,
        )
    if status != 401:
        return None
    used = (os.environ.get(name, "") for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"))
    return CredentialsError(
        f"the MLflow server at {server} refuses the credentials; check login, password or token of the connection"
        + ("" if "".join(used).isascii() else " (MLflow's own login takes only ASCII where files are transferred)"),
        uri=server,
    )


def translated(error: Any, uri: str | None) -> MlopsError:
    """Return our error for an ``MlflowException``, without credentials and at most 500 characters of its text."""
    server = strip_credentials(uri or "MLflow")
    text = strip_credentials(str(getattr(error, "message", error)))
    code = str(getattr(error, "error_code", ""))
    status = _http_status(error)
    if code in _REFUSED:
        status = _REFUSED[code]
    if refused := _refused(uri, status):
        return refused
    if "not in a valid JSON format" in text or (status == 404 and "error_code" not in getattr(error, "json", {})):
        return NotFoundError(
            f"something answers at {server}, but not as an MLflow server does; check host, port and path", uri=server
        )
    if code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"):
        return NotFoundError(f"MLflow at {server}: {text[:500]}", uri=server)
    if code in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_CONFLICT"):
        return ConflictError(f"MLflow at {server}: {text[:500]}", uri=server)
    if re.search(r"out-of-date database schema|Can't locate revision", text):
        from mlflow import __version__

        return UnsupportedError(
            f"the MLflow database {server} is of another version of MLflow than the {__version__} of {sys.executable}; "
            "install that version there, or use an MLflow server, which clients of many versions can talk to",
            uri=server,
            mlflow=__version__,
        )
    if full := re.search(r"\[Errno (28|122)\] [^'\n]*('[^'\n]+')?", text):
        # The server is well: it is where its files go that is not.
        where = full[0].partition("] ")[2]
        return CannotReachError(f"MLflow's files cannot be written: {where}{cure(OSError(int(full[1]), ''))}")
    if re.search(r"IntegrityError|UniqueViolation|Duplicate entry", text):
        # MLflow looks whether a row is there and then inserts it; another process came between.
        return ConflictError(f"MLflow at {server}: {text[:500]}", uri=server)
    if code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "FEATURE_DISABLED"):
        return SpecError(f"MLflow at {server}: {text[:500]}", uri=server)
    for pattern, why in (
        (r"[Tt]imed? ?out|timeout", "no answer in time"),
        (r"refused", "connection refused"),
        (r"resolve|Name or service", "the host name is unknown"),
        (r"SSL|certificate", "TLS certificate not accepted"),
        (r"too many 5\d\d|error code 5\d\d|50\d", "it answers with a server error"),
        (r"database is locked", "its database is locked"),
    ):
        if re.search(pattern, text):
            return _unreachable(uri, why)
    return _unreachable(uri, text[:300])


def _http_status(error: BaseException) -> int | None:
    """Return the HTTP status behind an MLflow exception, or None.

    MLflow drops it where the body is JSON without an error code of its own, as a proxy's is; it still stands in the
    frame that raised.
    """
    named = re.search(r"failed with error code (\d{3})|\b(401|403) Client Error", str(error))
    if named:
        return int(named[1] or named[2])
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "verify_rest_response":
            status = getattr(trace.tb_frame.f_locals.get("response"), "status_code", None)
            return int(status) if status is not None else None
        trace = trace.tb_next
    return None


def client(context: StepContext, purpose: str) -> MlflowClient:
    """Return an MLflow client for the context's servers, with the fluent API pointed at the same ones.

    An SQLite back end is set up on first use under a file lock, so that any number of first uses at once agree.

    :raises MissingExtraError: if MLflow is not installed.
    :raises SpecError: if the spec has no tracking URI.
    """
    if not context.tracking_uri:
        raise SpecError(f"{purpose} needs MLflow: the spec has no 'tracking_uri'")
    # MLflow would try for minutes; Airflow's own retries are the better place for that.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow = require("mlflow", purpose)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with mlflow_errors(context.tracking_uri):
        mlflow.set_tracking_uri(context.tracking_uri)
        mlflow.set_registry_uri(context.registry_uri or context.tracking_uri)
        with _first_use(context.tracking_uri):
            made = mlflow.MlflowClient(context.tracking_uri, context.registry_uri or context.tracking_uri)
            if sqlite_file(context.tracking_uri):
                made.get_experiment("0")  # builds the engine and runs the migrations while the lock is held
        return made


@contextlib.contextmanager
def _first_use(uri: str) -> Iterator[None]:
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file.with_name(file.name + ".lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def experiment_id(mlflow_client: MlflowClient, context: StepContext, name: str) -> str:
    """Return the id of an experiment, made if it is missing.

    On SQLite its artifacts go to ``artifacts/`` beside the database file, never under the working directory.

    :raises SpecError: if the experiment was deleted in MLflow.
    """
    from mlflow.exceptions import MlflowException

    with mlflow_errors(context.tracking_uri):
        found = mlflow_client.get_experiment_by_name(name)
        if found is None:
            file = sqlite_file(context.tracking_uri or "")
            location = (file.parent / "artifacts" / quote(name, safe="")).absolute().as_uri() if file else None
            try:
                return str(mlflow_client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = mlflow_client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise SpecError(f"the experiment {name!r} was deleted in MLflow; restore it or name another one")
        return str(found.experiment_id)
