"""What ``runtime={"image": ...}`` may hold, read and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.runtimes.settings import check_keys, read_folders, read_variables

PULL = ("missing", "always", "never")
AUTO_REMOVE = ("force", "success", "never")
_BYTES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Mount:
    """A folder of the engine's machine, or a named volume, inside the container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ContainerSettings:
    """A container, as the user wants it.

    :param image: its name, with a tag or digest.
    :param docker_conn_id: connection of type ``docker``; None: ``docker_default``.
    :param python: the interpreter in the image, a name on its ``PATH`` or a path.
    :param memory: bytes, or text such as ``"4g"``; what uses more is killed. Swap does not come on top.
    :param shm_size: size of ``/dev/shm``, in the same form; the engine's default is 64 MB.
    :param cpus: how many CPUs' time it may use, such as 1.5.
    :param gpus: ``"all"``, a number of GPUs, or a list of their ids.
    :param network: name of a network of the engine, ``"host"`` or ``"none"``; default: the engine's bridge.
    :param environment: variables; what a name such as ``..._PASSWORD`` gives away as secret is masked in logs.
    :param private_environment: variables whose values are all masked in logs.
    :param mounts: ``"source:target"``, ``"source:target:ro"`` or ``{"source", "target", "read_only"}``.
    :param code: folders that are copied in and put on ``PYTHONPATH``, instead of the DAG bundle's and the DAG file's.
    :param pull: ``missing``: pull the image if the engine does not have it; ``always``; ``never``.
    :param timeout: seconds, or text such as ``"2h"``, after which the container is killed.
    :param user: who runs in it; default: the worker's user if folders of this machine are mounted, else the image's.
    :param auto_remove: ``force``: always removed at the end; ``success``: kept if it failed; ``never``.
    """

    image: str
    docker_conn_id: str | None = None
    python: str = "python3"
    memory: int | None = None
    shm_size: int | None = None
    cpus: float | None = None
    gpus: str | int | tuple[str, ...] | None = None
    network: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    private_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    code: tuple[str, ...] | None = None
    pull: str = "missing"
    timeout: float | None = None
    user: str | None = None
    auto_remove: str = "force"

    def identity(self) -> dict[str, Any]:
        """Return what makes a container another one, without secrets: the values of variables are left out."""
        value = {one.name: getattr(self, one.name) for one in fields(self) if not one.name.endswith("environment")}
        value["mounts"] = [[m.source, m.target, m.read_only] for m in self.mounts]
        value["variables"] = sorted({*self.environment, *self.private_environment})
        return value


KEYS = tuple(one.name for one in fields(ContainerSettings))


def settings_of(runtime: Mapping[str, Any]) -> ContainerSettings:
    """Return the settings of ``runtime={"image": ..., ...}``. Numbers may be text, as templates render them.

    :raises SpecError: for an unknown key or a value that no container could have.
    """
    check_keys(runtime, KEYS)
    given = {key: value for key, value in runtime.items() if value is not None and value != ""}
    image = given.get("image")
    if not isinstance(image, str) or not image.strip() or re.search(r"\s", image.strip()):
        raise SpecError(f"runtime['image'] must be the name of an image, such as 'registry/team/ml:1.4', got {image!r}")
    for key in ("docker_conn_id", "python", "network"):
        if key in given and not isinstance(given[key], str):
            raise SpecError(f"runtime[{key!r}] must be text, got {given[key]!r}")
    found: dict[str, Any] = {**given, "image": image.strip()}
    for key, read in _READERS.items():
        if key in given:
            found[key] = read(given[key], key)
    for key, allowed in (("pull", PULL), ("auto_remove", AUTO_REMOVE)):
        if key in found and found[key] not in allowed:
            near = did_you_mean(found[key], allowed)
            raise SpecError(f"runtime[{key!r}] must be one of {', '.join(allowed)}, got {found[key]!r}{near}")
    return ContainerSettings(**found)


def _quantity(value: Any, key: str, units: Mapping[str, int], example: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]?)(?:i?[bB])?\s*", str(value))
    if isinstance(value, bool) or not match or match[2].lower() not in units or not float(match[1]):
        raise SpecError(f"runtime[{key!r}] must be {example}, got {value!r}")
    return float(match[1]) * units[match[2].lower()]


def _bytes(value: Any, key: str) -> int:
    found = int(_quantity(value, key, _BYTES, "a number of bytes, or text such as '512m' or '4g'"))
    if found < 6 << 20:
        raise SpecError(f"runtime[{key!r}] is {found} bytes, and an engine gives a container no less than 6 MB")
    return found


def _seconds(value: Any, key: str) -> float:
    return _quantity(value, key, _SECONDS, "seconds, or text such as '90m' or '2h'")


def _cpus(value: Any, key: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not 0.01 <= number < 100_000:
        raise SpecError(f"runtime[{key!r}] must be a number of CPUs such as 1.5, got {value!r}")
    return number


def _gpus(value: Any, key: str) -> str | int | tuple[str, ...]:
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, (str, int)) for one in value):
        return tuple(str(one) for one in value)
    if str(value).strip() == "all":
        return "all"
    if not isinstance(value, bool) and re.fullmatch(r"\s*[1-9]\d*\s*", str(value)):
        return int(value)
    raise SpecError(f"runtime[{key!r}] must be 'all', a number of GPUs or a list of their ids, got {value!r}")


def _mounts(value: Any, key: str) -> tuple[Mount, ...]:
    if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
        raise SpecError(f"runtime[{key!r}] must be a list such as ['/data:/data:ro'], got {value!r}")
    return tuple(_mount(one, key) for one in value)


def _mount(value: Any, key: str) -> Mount:
    known = ("source", "target", "read_only")
    if isinstance(value, Mapping):
        for name in value:
            if name not in known:
                raise SpecError(f"runtime[{key!r}]: a mount has no {name!r}{did_you_mean(name, known)}")
        found = Mount(str(value.get("source") or ""), str(value.get("target") or ""), bool(value.get("read_only")))
    else:
        parts = str(value).split(":")
        if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
            raise SpecError(f"runtime[{key!r}]: a mount is 'source:target' or 'source:target:ro', got {value!r}")
        found = Mount(parts[0], parts[1], parts[2:] == ["ro"])
    if not found.source or not found.target.startswith("/") or found.target.strip("/") == "":
        raise SpecError(f"runtime[{key!r}]: a mount needs a source, and an absolute target that is not '/'; {value!r}")
    return found


def _user(value: Any, key: str) -> str:
    return str(value)


_READERS: dict[str, Any] = {
    "memory": _bytes,
    "shm_size": _bytes,
    "timeout": _seconds,
    "cpus": _cpus,
    "gpus": _gpus,
    "environment": read_variables,
    "private_environment": read_variables,
    "mounts": _mounts,
    "code": read_folders,
    "user": _user,
}
