"""Which of this machine's folders a step's container needs, and what it could not reach from there."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.core.data.sql_connection import VARIABLE as DATABASE
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.tracking import sqlite_file
from airflow_mlops.runtimes.docker_engine import Engine
from airflow_mlops.runtimes.docker_settings import ContainerSettings, Mount

#: Arguments of steps that may name files.
_FILES = (
    *("dataset", "test_dataset", "source", "reference", "current", "predictions", "labels"),
    *("notebook", "cwd", "command", "expectations", "model", "champion"),
)
_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104


@dataclass(frozen=True)
class Folder:
    """A file or folder of this machine.

    :param what: what it is, for messages.
    :param written: whether the step writes there.
    """

    path: str
    what: str
    written: bool


def needed(spec: Mapping[str, Any], variables: Mapping[str, str]) -> list[Folder]:
    """Return the local folders and files that a spec and its variables name, those that are written first."""
    found: list[Folder] = []
    for name, what in (("store", "the store"), ("tracking_uri", "MLflow"), ("registry_uri", "MLflow's registry")):
        path = _database_folder(str(spec.get(name) or "")) or _local(str(spec.get(name) or ""), exists=False)
        if path:
            found.append(Folder(path, what, written=True))
    args = spec.get("args") or {}
    for name in _FILES:
        for path in _paths(args.get(name)):
            found.append(Folder(path, f"the argument {name!r}", written=False))
    database = sqlite_file(variables.get(DATABASE) or "")
    if database is not None and database.is_absolute():
        found.append(Folder(str(database), "the database", written=False))
    return found


def _database_folder(uri: str) -> str | None:
    file = sqlite_file(uri)
    return str(file.parent) if file else None


def _local(text: str, *, exists: bool = True) -> str | None:
    """Return the path behind an absolute path or ``file://`` URI; of a glob, the folder above its first wildcard.

    :param exists: whether something must be there already.
    """
    if text.startswith("file:"):
        text = unquote(urlsplit(text).path)
    if not text.startswith("/") or "\n" in text or len(text) > 4000:
        return None
    if exists and glob.has_magic(text) and not os.path.exists(text):
        parts = text.split("/")
        text = "/".join(parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])
    path = os.path.normpath(text)
    return path if path.strip("/") and (os.path.exists(path) or not exists) else None


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        path = _local(value)
        if path:
            yield path
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _paths(one)


def mounts_of(
    spec: Mapping[str, Any],
    variables: Mapping[str, str],
    settings: ContainerSettings,
    engine: Engine,
    code: list[str],
) -> list[Mount]:
    """Return the mounts of a step's container: the user's, and what the step needs, at the same paths as here.

    :param variables: those with credentials, which may name a database that is a file.
    :param code: folders that are copied.
    :raises SpecError: if the engine is another machine, which has none of these folders, naming them and the cure.
    """
    mounts = list(settings.mounts)
    for folder in needed(spec, variables):
        if any(_below(folder.path, mount.target) for mount in mounts if folder.written <= (not mount.read_only)):
            continue
        if not engine.local:
            if not folder.written and any(_below(folder.path, one) for one in code):
                continue
            raise SpecError(
                f"{engine.name} is another machine, and {folder.what} is on this one: {folder.path}. Use a store on S3 "
                "and an MLflow server ([mlops] backend = connections), and data on S3; or name a mount that holds it: "
                f"runtime['mounts'] = ['/path/there:{folder.path}']"
            )
        if folder.written:
            os.makedirs(folder.path, exist_ok=True)
        mounts.append(Mount(folder.path, folder.path, read_only=not folder.written))
    # What is inside a mounted folder needs no mount of its own.
    own = mounts[len(settings.mounts) :]
    kept = [one for one in own if not any(o is not one and _covers(o, one) for o in own)]
    return [*settings.mounts, *dict.fromkeys(kept)]


def _covers(outer: Mount, inner: Mount) -> bool:
    return outer != inner and _below(inner.target, outer.target) and outer.read_only <= inner.read_only


def _below(path: str, folder: str) -> bool:
    folder = os.path.normpath(folder)
    return path == folder or path.startswith(folder + "/")


def check_addresses(spec: Mapping[str, Any], variables: Mapping[str, str], settings: ContainerSettings) -> None:
    """Refuse servers on ``localhost``, which in a container is the container.

    :raises SpecError: naming the server and the cure.
    """
    if settings.network == "host":
        return
    servers = {"MLflow": spec.get("tracking_uri"), "MLflow's registry": spec.get("registry_uri")}
    for name, value in variables.items():
        if name.startswith("MLOPS_S3") and value.startswith("{"):
            servers["the S3 server"] = json.loads(value).get("endpoint_url")
    servers["the database"] = variables.get(DATABASE)
    for what, uri in servers.items():
        address = urlsplit(str(uri or ""))
        if address.scheme != "sqlite" and (address.hostname or "") in _HERE:
            raise SpecError(
                f"{what} is at {address.scheme}://{address.netloc.rpartition('@')[2]}, and in a container "
                f"{address.hostname} is the container itself; set runtime['network'] = 'host' where the engine is on "
                "this machine, or give the connection an address that is reached from the container"
            )
