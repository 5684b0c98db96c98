"""Sources: the files that a path, glob or ``file://`` URI stands for, read as one stream of record batches.

A source is looked at once, when it is opened; whatever its files are at the end of the reading must be what they were
then (:meth:`Source.check_unchanged`).
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from airflow_mlops.core import digests
from airflow_mlops.core.data import delimited, jsonlines, parquet
from airflow_mlops.core.data.arrow_types import parse_type
from airflow_mlops.core.errors import (
    CorruptDataError,
    MissingColumnError,
    MissingSourceError,
    MlopsError,
    SourceChangedError,
    SpecError,
    UnsupportedError,
    did_you_mean,
)
from airflow_mlops.core.extras import require

if TYPE_CHECKING:
    import pyarrow

#: File name ending -> format. Each may be followed by ``.gz`` but Parquet, which compresses by itself.
FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}


class Format(Protocol):
    """What a module that reads one format offers."""

    def survey(self, paths: list[str], given: dict[str, Any], guard: Any) -> tuple[pyarrow.Schema, int]:
        """Return the common schema in normal form, and the number of rows."""

    def batches(self, path: str, schema: pyarrow.Schema, given: dict[str, Any], rows: int) -> Iterator[Any]:
        """Yield a file's record batches in exactly this schema, of at most about ``rows`` rows."""


_READERS: dict[str, Any] = {"parquet": parquet, "csv": delimited, "jsonl": jsonlines}


@dataclass(frozen=True)
class FileState:
    """One file as it was at a certain moment."""

    path: str
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: str) -> FileState:
        """Look at a file now."""
        found = os.stat(path)
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass
class Source:
    """An opened source.

    :param given: what the user wrote.
    :param pattern: the absolute path or glob.
    :param format: ``parquet``, ``csv`` or ``jsonl``.
    :param files: what was there when it was opened, sorted by path.
    :param types: the user's types by column, which win over what is found.
    """

    given: str
    pattern: str
    format: str
    files: tuple[FileState, ...]
    types: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without its endings; for several files the first fixed name above them."""
        if len(self.files) == 1 and not glob.has_magic(self.pattern):
            return _stem(os.path.basename(self.files[0].path))
        fixed = [p for p in self.pattern.split(os.sep) if p and not glob.has_magic(p)]
        ending = _stem(fixed[-1]) if fixed else ""
        return ending or "dataset"

    @property
    def uri(self) -> str:
        """The absolute path or glob; what :func:`open_source` opens as the same source."""
        return self.pattern

    @cached_property
    def _survey(self) -> tuple[pyarrow.Schema, int]:
        key = digests.of_json([self.manifest_digest(), self.format, {k: str(v) for k, v in self.types.items()}])
        if key not in _surveys:
            found = _READERS[self.format].survey([f.path for f in self.files], self.types, self._guard)
            self._check_types(found[0])
            if len(_surveys) >= 32:
                _surveys.clear()
            _surveys[key] = found
        return _surveys[key]

    @property
    def schema(self) -> pyarrow.Schema:
        """The common schema in normal form. For text formats the types need a pass over all files.

        :raises MixedSchemaError: if the files disagree.
        """
        return self._survey[0]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self._survey[1]

    @property
    def columns(self) -> dict[str, str]:
        """``{name: Arrow type}``."""
        return {field.name: str(field.type) for field in self.schema}

    def manifest_digest(self) -> str:
        """Return the digest of the files' paths, sizes and modification times."""
        return digests.of_json([[f.path, f.size, f.mtime_ns] for f in self.files])

    def batches(self, columns: list[str] | None = None, rows: int = 65536) -> Iterator[pyarrow.RecordBatch]:
        """Yield all rows, file by file, as record batches of one schema.

        :param columns: only these, in this order.
        :param rows: about how many rows a batch may have.
        :raises MissingColumnError: if one is not there.
        """
        import pyarrow as pa

        schema = self.schema
        if columns is not None:
            check_columns(columns, schema.names, self.given)
            schema = pa.schema([schema.field(name) for name in columns])
        for file in self.files:
            with self._guard(file.path):
                yield from _READERS[self.format].batches(file.path, schema, self.types, rows)

    def check_unchanged(self) -> None:
        """Make sure that the files are still those that were opened.

        :raises SourceChangedError: if one was written to, replaced, removed or added.
        """
        before = {f.path: f for f in self.files}
        try:
            now = {path: FileState.of(path) for path in _expand(self.pattern, self.given)}
        except (OSError, MissingSourceError):
            now = {}
        for path in sorted(before.keys() | now.keys()):
            if before.get(path) != now.get(path):
                what = "appeared" if path not in before else "went away" if path not in now else "was written to"
                raise SourceChangedError(
                    f"{path} {what} while the source was being read; nothing was published. Read it when its writer "
                    "has ended, or let the writer rename finished files into place",
                    path=path,
                    change=what,
                )

    def _check_types(self, schema: Any) -> None:
        for name in self.types:
            if name not in schema.names:
                raise MissingColumnError(
                    f"schema: there is no column {name!r} in {self.given}{did_you_mean(name, schema.names)}",
                    column=name,
                )

    @contextmanager
    def _guard(self, path: str) -> Iterator[None]:
        """Turn what the libraries raise about a file into an error that names it."""
        import pyarrow as pa

        try:
            yield
        except MlopsError as error:
            if isinstance(error, CorruptDataError):
                self.check_unchanged()
            raise
        except FileNotFoundError:
            self.check_unchanged()
            raise
        except PermissionError as error:
            raise MissingSourceError(
                f"{path} may not be read by this process: give its user read permission", path=path
            ) from error
        except pa.ArrowNotImplementedError as error:
            raise UnsupportedError(f"{path} has something that Arrow cannot read: {_first_line(error)}") from error
        except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
            self.check_unchanged()
            detail = _first_line(error) if self.format == "parquet" else "it ends early or is damaged"
            raise CorruptDataError(
                f"{path} cannot be read as {self.format}: {detail}. Write it again, or take it out of the source",
                path=path,
                format=self.format,
            ) from error


#: Schemas and row counts of sources seen lately in this process, by manifest: text needs a pass over all files.
_surveys: dict[str, tuple[Any, int]] = {}


def open_source(source: str, types: dict[str, Any] | None = None, format: str | None = None) -> Source:
    """Open a path, folder, glob or ``file://`` URI.

    :param source: a folder stands for all files of one format below it, without hidden ones (``.x``, ``_x``).
    :param types: ``{column: type}`` that win over what is found.
    :param format: where the file names do not tell: ``parquet``, ``csv`` or ``jsonl``.
    :raises MissingSourceError: if no file matches.
    :raises UnsupportedError: for another scheme or format, or a table format's folder.
    """
    require("pyarrow", "reading a dataset")
    pattern = local_path(source)
    paths = _expand(pattern, source)
    _refuse_table_formats(paths, pattern)
    formats = {format or format_of(path) for path in paths}
    if len(formats) > 1:
        raise SpecError(f"{source} matches files of different formats: {', '.join(sorted(formats))}; narrow the glob")
    given = {column: parse_type(name, column) for column, name in (types or {}).items()}
    return Source(source, pattern, formats.pop(), tuple(FileState.of(path) for path in paths), given)


def local_path(source: str) -> str:
    """Return the absolute path or glob of a local source.

    :raises UnsupportedError: for a URI of another scheme than ``file``.
    """
    parts = urlsplit(source)
    if parts.scheme == "file":
        return os.path.abspath(unquote(parts.path))
    if "://" in source:
        raise UnsupportedError(
            f"{parts.scheme}:// is not read yet; give a path or glob that the worker sees, such as a mounted folder"
        )
    if not source.strip():
        raise SpecError("the source is empty; give a path, glob or file:// URI")
    return os.path.abspath(os.path.expanduser(source))


def check_columns(asked: list[str], known: list[str], where: str) -> None:
    """Make sure that columns are there.

    :raises MissingColumnError: naming the first that is not, and the nearest that is.
    """
    for name in asked:
        if name not in known:
            listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            raise MissingColumnError(
                f"there is no column {name!r} in {where}{did_you_mean(str(name), known)} Columns: {listed}",
                column=name,
            )


def _expand(pattern: str, given: str) -> list[str]:
    if os.path.isdir(pattern):
        found = _below(pattern)
    elif os.path.exists(pattern) or not glob.has_magic(pattern):
        found = [pattern] if os.path.exists(pattern) else []
    else:
        found = [path for path in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(path)]
    if not found:
        raise MissingSourceError(f"no file matches {given}{_nearest(pattern)}", source=given)
    for path in found:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnsupportedError(f"{path} is not a regular file")
    return found


def _below(folder: str) -> list[str]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        if any("=" in name for name in folders):
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


def _refuse_table_formats(paths: list[str], pattern: str) -> None:
    """Refuse the data files of a table format: read without its log they hold deleted and superseded rows."""
    roots = {os.path.dirname(path) for path in paths} | ({pattern} if os.path.isdir(pattern) else set())
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
    name = os.path.basename(path).lower()
    _, ending = os.path.splitext(name.removesuffix(".gz"))
    found = FORMATS.get(ending)
    if found and not (found == "parquet" and name.endswith(".gz")):
        return found
    with open(path, "rb") as file:
        if file.read(4) == b"PAR1":
            return "parquet"
    raise UnsupportedError(
        f"{path}: the name does not tell the format; it must end in {', '.join(FORMATS)} (text also with .gz)"
    )


def _stem(name: str) -> str:
    lower = name.lower()
    for ending in (".gz", *FORMATS):
        if lower.endswith(ending):
            name, lower = name[: -len(ending)], lower[: -len(ending)]
    return name


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
