"""Sources: the files that a path, glob, ``file://`` or ``s3://`` URI stands for, read as one stream of record batches.

A source is looked at once, when it is opened; whatever its files are at the end of the reading must be what they were
then (:meth:`Source.check_unchanged`).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from airflow_mlops.core import digests
from airflow_mlops.core.data import delimited, jsonlines, parquet, s3_files
from airflow_mlops.core.data.arrow_types import parse_type
from airflow_mlops.core.data.files import FileState, format_of, look, pattern_of, refuse_table_formats, stem
from airflow_mlops.core.data.places import is_s3, name_of
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


class Format(Protocol):
    """What a module that reads one format offers."""

    def survey(self, paths: list[str], given: dict[str, Any], guard: Any) -> tuple[pyarrow.Schema, int]:
        """Return the common schema in normal form, and the number of rows."""

    def batches(self, path: str, schema: pyarrow.Schema, given: dict[str, Any], rows: int) -> Iterator[Any]:
        """Yield a file's record batches in exactly this schema, of at most about ``rows`` rows."""


_READERS: dict[str, Any] = {"parquet": parquet, "csv": delimited, "jsonl": jsonlines}


@dataclass
class Source:
    """An opened source.

    :param given: what the user wrote, in one line.
    :param patterns: the absolute paths and globs.
    :param format: ``parquet``, ``csv`` or ``jsonl``.
    :param files: what was there when it was opened, sorted by path.
    :param types: the user's types by column, which win over what is found.
    """

    given: str
    patterns: tuple[str, ...]
    format: str
    files: tuple[FileState, ...]
    types: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without its endings; for several files the first fixed name above them."""
        if len(self.files) == 1 and self.files[0].path in self.patterns:
            return stem(name_of(self.files[0].path))
        paths = [pattern.removeprefix("s3:/") for pattern in self.patterns]
        above = paths[0] if len(paths) == 1 else os.path.commonpath(paths)
        fixed = [part for part in above.split(os.sep) if part and not glob.has_magic(part)]
        return (stem(fixed[-1]) if fixed else "") or "dataset"

    @property
    def uri(self) -> str:
        """The absolute path or glob: what :func:`open_source` opens as the same source."""
        return self.patterns[0]

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
        """Return the digest of the files' paths, sizes and modification times (of objects: entity tags)."""
        return digests.of_json([file.in_manifest() for file in self.files])

    def batches(
        self, columns: list[str] | None = None, rows: int = 65536, dictionaries: tuple[str, ...] = ()
    ) -> Iterator[pyarrow.RecordBatch]:
        """Yield all rows, file by file, as record batches of one schema.

        :param columns: only these, in this order.
        :param rows: about how many rows a batch may have.
        :param dictionaries: columns of text that may come as dictionaries, where that spares decoding them.
        :raises MissingColumnError: if one is not there.
        """
        import pyarrow as pa

        schema = self.schema
        if columns is not None:
            check_columns(columns, schema.names, self.given)
            schema = pa.schema([schema.field(name) for name in columns])
        # Only Parquet has dictionaries; what asks for them takes plain text as well.
        more = {"dictionaries": dictionaries} if dictionaries and self.format == "parquet" else {}
        for file in self.files:
            with self._guard(file.path):
                yield from _READERS[self.format].batches(file.path, schema, self.types, rows, **more)

    def check_unchanged(self) -> None:
        """Make sure that the files are still those that were opened.

        :raises SourceChangedError: if one was written to, replaced, removed or added.
        """
        before = {f.path: f for f in self.files}
        try:
            now = {file.path: file for file in look(self.patterns)}
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
            if is_s3(path) and s3_files.is_of_server(error):
                raise s3_files.why_unreadable(path, error) from error
            detail = _first_line(error) if self.format == "parquet" else "it ends early or is damaged"
            raise CorruptDataError(
                f"{path} cannot be read as {self.format}: {detail}. Write it again, or take it out of the source",
                path=path,
                format=self.format,
            ) from error


#: Schemas and row counts of sources seen lately in this process, by manifest: text needs a pass over all files.
_surveys: dict[str, tuple[Any, int]] = {}


def open_source(source: str | list[str], types: dict[str, Any] | None = None, format: str | None = None) -> Source:
    """Open a path, folder, glob, ``file://`` or ``s3://`` URI, or a list of these.

    :param source: a folder stands for all files of one format below it, without hidden ones (``.x``, ``_x``).
    :param types: ``{column: type}`` that win over what is found.
    :param format: where the file names do not tell: ``parquet``, ``csv`` or ``jsonl``.
    :raises MissingSourceError: if no file matches.
    :raises UnsupportedError: for another scheme or format, or a table format's folder.
    """
    require("pyarrow", "reading a dataset")
    if not isinstance(source, (str, list, tuple)) or not all(isinstance(one, str) for one in source):
        raise SpecError(f"a source is a path, glob, URI or a list of these, got {type(source).__name__}")
    several = [source] if isinstance(source, str) else list(source)
    if not several:
        raise MissingSourceError("the source is an empty list: no file was found by what made it")
    patterns = tuple(pattern_of(one) for one in several)
    given = ", ".join(several) if len(several) <= 3 else f"{several[0]} and {len(several) - 1} more"
    try:
        states = look(patterns)
        paths = [file.path for file in states]
        refuse_table_formats(paths, patterns)
        formats = {format or format_of(path) for path in paths}
    except OSError as error:
        raise MissingSourceError(f"{given} cannot be looked at: {error.strerror}: {error.filename}") from error
    if len(formats) > 1:
        raise SpecError(f"{given} matches files of different formats: {', '.join(sorted(formats))}; narrow the glob")
    parsed = {column: parse_type(name, column) for column, name in (types or {}).items()}
    return Source(given, patterns, formats.pop(), states, parsed)


def check_columns(asked: list[str], known: list[str], where: str) -> None:
    """Make sure that columns are there.

    :raises MissingColumnError: naming the first that is not, and the nearest that is.
    """
    for name in asked:
        if name not in known:
            listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            raise MissingColumnError(
                f"there is no column {name!r} in {where}{did_you_mean(str(name), known) or '.'} Columns: {listed}",
                column=name,
            )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
