"""An image from a folder: its base images, its context as an archive, and the build itself, line by line."""

from __future__ import annotations

import io
import logging
import os
import re
import tarfile
import tempfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import CannotReachError, MlopsError, NotFoundError, SpecError, did_you_mean
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.training.process import Secrets
from airflow_mlops.runtimes.docker_engine import Engine, engine_errors
from airflow_mlops.runtimes.docker_image import image_id
from airflow_mlops.runtimes.docker_settings import ContainerSettings

#: Labels of our images beside those of the Open Container Initiative.
BUILD, CONTENT, DIRTY = "airflow_mlops.build", "airflow_mlops.context_digest", "airflow_mlops.dirty"
REVISION, SOURCE = "org.opencontainers.image.revision", "org.opencontainers.image.source"
#: A step may be silent for as long as this.
SILENCE_SECONDS = 6 * 3600
_IN_MEMORY = 32 << 20
_TAIL = 15
_FROM = re.compile(r"^\s*FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE)
_ARG = re.compile(r"^\s*ARG\s+(\w+)(?:=(.*?))?\s*$", re.IGNORECASE)


class BuildFailedError(MlopsError):
    """A step of a Dockerfile failed."""


@dataclass(frozen=True)
class Build:
    """An image that is to be.

    :param folder: the context on this machine.
    :param tag: the image's name.
    :param dockerfile: path in the folder.
    :param arguments: of the Dockerfile's ``ARG`` lines.
    :param labels: the user's own.
    :param sha: commit that the folder is; None: of no commit.
    :param source: where the commit is from.
    :param dirty: whether the folder differs from the commit.
    :param leave_out: files of the folder that the commit does not have.
    """

    folder: Path
    tag: str
    dockerfile: str = "Dockerfile"
    arguments: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    network: str | None = None
    sha: str | None = None
    source: str | None = None
    dirty: bool = False
    leave_out: frozenset[str] = frozenset()


def build(engine: Engine, wanted: Build, log: logging.Logger, *, reuse: bool = True, pull: str = "missing") -> Any:
    """Return what the engine says of the image, and whether it was there already.

    :param reuse: take an image that was made of the same content, Dockerfile, arguments and base images.
    :param pull: of base images: ``missing``, ``always`` or ``never``.
    :raises SpecError: if there is no Dockerfile, or one that no engine could read.
    :raises BuildFailedError: if a step fails; it names the step and what it said last.
    :raises NotFoundError: if a base image cannot be had.
    """
    text = _dockerfile(wanted)
    client = engine.client(timeout=SILENCE_SECONDS)
    try:
        bases = [
            image_id(engine, client, ContainerSettings(image=name, pull=pull), log)
            for name in bases_of(text, wanted.arguments)
        ]
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as archive:
            content = pack(wanted, archive)
            identity = digests.of_json(
                [
                    *(content, wanted.sha, wanted.dockerfile, wanted.target, bases),
                    *(sorted(wanted.arguments.items()), sorted(wanted.labels.items())),
                ]
            )
            found = _made_before(engine, client, identity) if reuse else None
            if found is None:
                archive.seek(0)
                labels = labels_of(wanted, content, identity)
                _run(engine, client, wanted, archive, labels, log, cache=reuse)
                crash_point("image.built")
                found = _made_before(engine, client, identity)
                if found is None:
                    raise CannotReachError(f"{engine.name} built {wanted.tag!r}, and does not have it now")
                return found, False
        if wanted.tag not in (found.get("RepoTags") or []):
            from docker.utils import parse_repository_tag

            name, version = parse_repository_tag(wanted.tag)
            with engine_errors(engine):
                client.tag(found["Id"], name, version or "latest", force=True)
                found = client.inspect_image(found["Id"])
        log.info("The image %s was made of this before: taking it as %s", found["Id"], wanted.tag)
        return found, True
    finally:
        client.close()


def _dockerfile(wanted: Build) -> str:
    path = (wanted.folder / wanted.dockerfile).resolve()
    if not path.is_relative_to(wanted.folder.resolve()):
        raise SpecError(f"dockerfile must be a path inside the context, got {wanted.dockerfile!r}")
    if not path.is_file():
        near = did_you_mean(wanted.dockerfile, [one.name for one in wanted.folder.iterdir()])
        raise SpecError(f"the context has no {wanted.dockerfile}{near or '; add one, or name it by dockerfile='}")
    return path.read_text(encoding="utf-8")


def bases_of(dockerfile: str, arguments: Mapping[str, str]) -> list[str]:
    """Return the images that a Dockerfile builds on, in its order, without its own stages.

    :param arguments: of the build; else what the ``ARG`` lines before the first ``FROM`` give.
    :raises SpecError: if it builds on nothing.
    """
    values: dict[str, str] = {}
    stages: set[str] = {"scratch"}
    bases: list[str] = []
    froms = 0
    for line in re.sub(r"\\\n", " ", dockerfile).splitlines():
        if not froms and (arg := _ARG.match(line)):
            values[arg[1]] = arguments.get(arg[1], (arg[2] or "").strip("'\""))
        if found := _FROM.match(line):
            froms += 1
            name = re.sub(
                r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))", lambda m: values.get(m[1] or m[3]) or m[2] or "", found[1]
            )
            if not name:
                raise SpecError(f"the Dockerfile's {line.strip()!r} names no image: give the ARG by build_args")
            if name.lower() not in stages and name not in bases:
                bases.append(name)
            if found[2]:
                stages.add(found[2].lower())
    if not froms:
        raise SpecError("the Dockerfile has no FROM line, and so no image to build on")
    return bases


def pack(wanted: Build, archive: IO[bytes]) -> str:
    """Write the context, without what ``.dockerignore`` names and without ``.git``, and return its digest.

    Times and owners are left out, so the same content is the same archive, and the engine's cache holds.
    """
    from docker.utils.build import exclude_paths

    ignored = wanted.folder / ".dockerignore"
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.is_file() else []
    patterns = [one.strip() for one in lines if one.strip() and not one.startswith("#")]
    names = sorted(exclude_paths(str(wanted.folder), [*patterns, ".git"], dockerfile=wanted.dockerfile))
    if wanted.leave_out:
        # A commit has no empty folders.
        files = [n for n in names if n not in wanted.leave_out and not os.path.isdir(wanted.folder / n)]
        names = sorted({*files, *(str(above) for n in files for above in Path(n).parents if str(above) != ".")})
    parts: list[Any] = []
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            path = wanted.folder / name
            entry: Any = tar.gettarinfo(str(path), arcname=name)
            if entry is None:
                continue  # a socket
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            if entry.isfile():
                # A second name of a file would be written as a link to the first.
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", os.path.getsize(path)
                with open(path, "rb") as file:
                    tar.addfile(entry, file)
                parts.append([name, entry.mode & 0o111 != 0, digests.of_file(path)])
            else:
                tar.addfile(entry, io.BytesIO())
                parts.append([name, entry.type.decode(), entry.linkname])
    return digests.of_json(parts)


def labels_of(wanted: Build, content: str, identity: str) -> dict[str, str]:
    """Return the labels of an image: where it comes from, and of what it is made."""
    # All of them, for what is left out would be that of the base image.
    return {
        **wanted.labels,
        REVISION: wanted.sha or "",
        SOURCE: strip_credentials(wanted.source or ""),
        CONTENT: content,
        BUILD: identity,
        DIRTY: str(wanted.dirty).lower(),
    }


def _made_before(engine: Engine, client: Any, identity: str) -> dict[str, Any] | None:
    with engine_errors(engine):
        for one in client.images(filters={"label": f"{BUILD}={identity}"}):
            return dict(client.inspect_image(one["Id"]))
    return None


def _run(
    engine: Engine,
    client: Any,
    wanted: Build,
    archive: Any,
    labels: dict[str, str],
    log: logging.Logger,
    *,
    cache: bool,
) -> None:
    """Have the engine build it, and pass on what it says."""
    secrets = Secrets(dict(wanted.arguments))
    tail: deque[str] = deque(maxlen=_TAIL)
    step = ""
    with engine_errors(engine):
        said = client.build(
            fileobj=archive,
            custom_context=True,
            tag=wanted.tag,
            dockerfile=wanted.dockerfile,
            buildargs=dict(wanted.arguments),
            labels=labels,
            target=wanted.target,
            network_mode=wanted.network,
            nocache=not cache,
            rm=True,
            forcerm=True,
            decode=True,
        )
        for one in said:
            if "error" in one:
                raise _failed(str(one["error"]), step, tail, secrets)
            for line in str(one.get("stream") or "").splitlines():
                shown = secrets.hidden(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)).rstrip()
                if not shown:
                    continue
                if re.match(r"Step \d+/\d+ : ", shown):
                    step = shown
                    tail.clear()
                else:
                    tail.append(shown[:300])
                log.info("| %s", shown[:2000])


def _failed(error: str, step: str, tail: deque[str], secrets: Secrets) -> MlopsError:
    text = secrets.hidden(error)
    output = [line for line in tail if not line.startswith((" ---> ", "Removing intermediate", "The command"))]
    said = f" It said: {' | '.join(output[-6:])}" if output else ""
    if "requires BuildKit" in text:
        return SpecError(f"{step or 'the Dockerfile'}: {text}; images are built here by the engine's classic builder")
    if re.search(r"pull access denied|manifest .* not found|manifest unknown", text):
        return NotFoundError(f"{step}: {text}")
    where = step or "the Dockerfile"
    return BuildFailedError(f"{where} failed: {text}.{said}"[:2000], step=step, error=text[:500])
