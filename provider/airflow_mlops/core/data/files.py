"""Files behind a path, folder, glob or URI (``file://``, ``s3://``): which there are, and of what format."""

from __future__ import annotations

import glob
import os
import stat
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.core import s3
from airflow_mlops.core.data.places import is_s3, name_of, open_input
from airflow_mlops.core.errors import MissingSourceError, SpecError, UnsupportedError, did_you_mean

#: File name ending -> format. Each may be followed by ``.gz`` but Parquet, which compresses by itself.
FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}


@dataclass(frozen=True)
class FileState:
    """One file as it was at a certain moment.

    :param path: absolute, or ``s3://bucket/key``.
    :param version: the inode of a local file, the entity tag of an object.
    """

    path: str
    size: int
    mtime_ns: int
    version: int | str

    @classmethod
    def of(cls, path: str) -> FileState:
        """Look at a local file now."""
        found = os.stat(path)
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ino)

    def in_manifest(self) -> list[Any]:
        """Return what stands for the file in a manifest: path, size, and what changes with its bytes."""
        return [self.path, self.size, self.version if is_s3(self.path) else self.mtime_ns]


def pattern_of(source: str) -> str:
    """Return a source as an absolute path or glob, or as an ``s3://`` URI.

    :raises UnsupportedError: for a URI of another scheme than ``file`` and ``s3``.
    """
    if is_s3(source):
        s3.split_uri(source)
        return source
    parts = urlsplit(source)
    if parts.scheme == "file":
        return os.path.abspath(unquote(parts.path))
    if "://" in source:
        raise UnsupportedError(
            f"{parts.scheme}:// is not read: give an s3:// URI, or a path or glob that the worker sees, such as a "
            "mounted folder"
        )
    if not source.strip():
        raise SpecError("the source is empty; give a path, glob, file:// or s3:// URI")
    return os.path.abspath(os.path.expanduser(source))


def look(patterns: tuple[str, ...], *, partitions: bool = False) -> tuple[FileState, ...]:
    """Look at the files that paths, folders, globs and URIs stand for; sorted by path, each once.

    :param partitions: whether folders called ``column=value`` may stand below a folder, which no reader here reads.
    :raises MissingSourceError: if one of them matches nothing.
    """
    from airflow_mlops.core.data import s3_files  # which needs FileState

    found: dict[str, FileState] = {}
    for pattern in patterns:
        states = (
            s3_files.look(pattern, partitions=partitions)
            if is_s3(pattern)
            else map(FileState.of, _expand_one(pattern, partitions))
        )
        found.update((one.path, one) for one in states)
    return tuple(found[path] for path in sorted(found))


def _expand_one(pattern: str, partitions: bool) -> list[str]:
    if os.path.isdir(pattern):
        found = _below(pattern, partitions)
    elif os.path.exists(pattern) or not glob.has_magic(pattern):
        found = [pattern] if os.path.exists(pattern) else []
    else:
        found = [path for path in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(path)]
    if not found:
        raise MissingSourceError(f"no file matches {pattern}{_nearest(pattern)}", source=pattern)
    for path in found:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnsupportedError(f"{path} is not a regular file")
    return found


def _below(folder: str, partitions: bool) -> list[str]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        if not partitions and any("=" in name for name in folders):
            raise UnsupportedError(
                f"{parent} is partitioned by folder names ({folders[0]}): columns that stand only there are not read. "
                "Give a glob to the files of one partition, or to all of them if the columns are in the files too"
            )
        found += [os.path.join(parent, name) for name in files if name[0] not in "._"]
    return sorted(found)


def _nearest(pattern: str) -> str:
    """Return what is there instead: the sibling with the nearest name, or the folder that is missing."""
    folder, name = os.path.split(pattern)
    while glob.has_magic(folder):
        folder, name = os.path.split(folder)
    if not os.path.isdir(folder):
        while folder and not os.path.isdir(folder):
            folder, missing = os.path.split(folder)
        return f": there is no {missing!r} in {folder}{did_you_mean(missing, _listing(folder))}"
    near = did_you_mean(name, _listing(folder))
    if near:
        return near
    some = _listing(folder)[:5]
    return f"; {folder} has {', '.join(some)}" if some else f"; {folder} is empty"


def _listing(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def refuse_table_formats(paths: list[str], patterns: tuple[str, ...]) -> None:
    """Refuse the data files of a table format: read without its log they hold deleted and superseded rows."""
    from airflow_mlops.core.data import s3_files

    s3_files.refuse_table_formats([path for path in paths if is_s3(path)])
    paths = [path for path in paths if not is_s3(path)]
    roots = {os.path.dirname(path) for path in paths} | {pattern for pattern in patterns if os.path.isdir(pattern)}
    for root in sorted(roots):
        folder = root
        for _ in range(6):
            kind = _table_format(folder)
            if kind:
                raise UnsupportedError(
                    f"{folder} is a {kind} table; read as plain files it would give deleted and superseded rows. "
                    f"Export a version of it to Parquet, with the {kind} library in a task before this one",
                    path=folder,
                    table_format=kind,
                )
            folder = os.path.dirname(folder)


def _table_format(folder: str) -> str | None:
    if os.path.isdir(os.path.join(folder, "_delta_log")):
        return "Delta Lake"
    if glob.glob(os.path.join(glob.escape(folder), "metadata", "*.metadata.json")):
        return "Iceberg"
    if os.path.isdir(os.path.join(folder, ".hoodie")):
        return "Hudi"
    return None


def format_of(path: str) -> str:
    """Return the format of a file by its name, or by its first bytes.

    :raises UnsupportedError: if neither tells.
    """
    name = name_of(path).lower()
    _, ending = os.path.splitext(name.removesuffix(".gz"))
    found = FORMATS.get(ending)
    if found and not (found == "parquet" and name.endswith(".gz")):
        return found
    with open_input(path) as file:
        if file.read(4) == b"PAR1":
            return "parquet"
    raise UnsupportedError(
        f"{path}: the name does not tell the format; it must end in {', '.join(FORMATS)} (text also with .gz); "
        "other formats, such as Excel or text separated by tabs, become one of these with pandas' to_parquet"
    )


def stem(name: str) -> str:
    """Return a file's name without the endings that tell its format."""
    lower = name.lower()
    for ending in (".gz", *FORMATS):
        if lower.endswith(ending):
            name, lower = name[: -len(ending)], lower[: -len(ending)]
    return name
