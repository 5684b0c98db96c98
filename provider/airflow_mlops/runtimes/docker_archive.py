"""What is copied into a container before it starts, and what is read out of it when it has ended."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import IO, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.plain import clean

#: The step's folder in the container.
FOLDER = "/airflow-mlops"
OUT = f"{FOLDER}/out"
#: Code beyond this many bytes is no code.
CODE_LIMIT = 64 << 20
#: What a code folder has that is no code. So are all whose names begin with a dot, and virtual environments.
_NO_CODE = {"__pycache__", "node_modules"}
_IN_MEMORY = 8 << 20


@dataclass(frozen=True)
class CodeFile:
    """One file of the user's code: where it is on the worker, and its path in the container, which is the same."""

    source: str
    path: str
    size: int
    executable: bool


def code_files(folders: Iterable[str], leave_out: Collection[str] = ()) -> list[CodeFile]:
    """Return the files of code folders, sorted by path.

    :param leave_out: folders and files that are mounted, and so need no copy.
    :raises SpecError: if they are more than 64 MB.
    """
    found: dict[str, CodeFile] = {}
    total = 0
    for folder in folders:
        for file in _walk(os.path.abspath(folder), set(map(os.path.abspath, leave_out))):
            if file.path in found:
                continue
            found[file.path] = file
            total += file.size
            if total > CODE_LIMIT:
                raise SpecError(
                    f"the code folder {folder} has more than {CODE_LIMIT >> 20} MB, which would be copied into each "
                    "container; name the folders with code in runtime['code'] ([] for none, where the image has the "
                    "code), and mount data by runtime['mounts']"
                )
    return [found[path] for path in sorted(found)]


def _walk(root: str, leave_out: set[str]) -> Iterator[CodeFile]:
    seen: set[str] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or "pyvenv.cfg" in files or (folder in leave_out):
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in _NO_CODE)
        for name in sorted(files):
            path = os.path.join(folder, name)
            if path in leave_out or name.endswith((".pyc", ".pyo")) or not os.path.isfile(path):
                continue
            status = os.stat(path)
            yield CodeFile(path, path, status.st_size, bool(status.st_mode & 0o100))


def digest_of(files: Iterable[CodeFile]) -> str:
    """Return the digest of the files' paths and content."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(json.dumps([file.path, digests.of_file(file.source), file.executable]).encode())
    return whole.hexdigest()


def pack(spec: dict[str, Any], core: bytes, code: Iterable[CodeFile], path: Iterable[str], owner: int) -> IO[bytes]:
    """Return a tar archive, to be unpacked at the container's root; the caller closes it.

    :param spec: the step's, without credentials.
    :param core: the zip with the core.
    :param code: the user's files.
    :param path: folders of code, in the order in which they are searched.
    :param owner: user id that the files get.
    """
    made: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder, mode in ((FOLDER, 0o755), (OUT, 0o777), (f"{FOLDER}/work", 0o777)):
            archive.addfile(_entry(folder, owner, mode, kind=tarfile.DIRTYPE))
        inside = resources.files("airflow_mlops.runtimes").joinpath("docker_inside.py").read_bytes()
        for name, data in (
            ("inside.py", inside),
            ("core.zip", core),
            ("spec.json", _json(spec)),
            ("path.json", _json([f"{FOLDER}/core.zip", *path])),
        ):
            archive.addfile(_entry(f"{FOLDER}/{name}", owner, 0o644, len(data)), io.BytesIO(data))
        for file in code:
            with open(file.source, "rb") as source:
                # One that is written to meanwhile must not break the archive.
                size = os.fstat(source.fileno()).st_size
                mode = 0o755 if file.executable else 0o644
                archive.addfile(_entry(file.path, owner, mode, size), source)
    made.seek(0)
    return made


def _json(value: Any) -> bytes:
    return json.dumps(clean(value), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _entry(path: str, owner: int, mode: int, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type, entry.mode, entry.size = kind, mode, size
    entry.uid = entry.gid = owner
    return entry


def unpack(blocks: Iterable[bytes]) -> dict[str, Any]:
    """Return the JSON files of an archive that came out of a container, by name; what is no whole JSON is left out."""
    found: dict[str, Any] = {}
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        for block in blocks:
            file.write(block)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            for entry in archive:
                data = archive.extractfile(entry) if entry.isfile() and entry.name.endswith(".json") else None
                if data is not None:
                    try:
                        found[os.path.basename(entry.name)] = json.load(data)
                    except ValueError:
                        continue
    return found
