"""Whether new files have come, and come whole.

A look at a source gives its files; two looks some seconds apart tell which have settled. What was seen before is a
:class:`Watermark`. The id of an arrival is that of the whole source as it now stands, so whoever sees the same files
twice, after a restart or in another process, says the same id.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.data.files import FileState, look, pattern_of
from airflow_mlops.core.data.places import is_s3
from airflow_mlops.core.errors import CannotReachError, MissingSourceError, SpecError
from airflow_mlops.core.vocabulary import SCHEMA, parse_instant

KIND = "new_data"
#: Paths that an arrival names; the others are counted.
MAX_PATHS = 20
#: A file whose last change is longer ago than this is whole whatever two machines' clocks say.
OLD = dt.timedelta(minutes=15)

Files = Mapping[str, FileState]


@dataclass(frozen=True)
class Watermark:
    """What was seen before.

    :param id: of the last arrival.
    :param latest: when its latest file was changed, in UTC.
    :param count: how many files there were.
    """

    id: str | None = None
    latest: dt.datetime | None = None
    count: int | None = None

    @classmethod
    def of(cls, value: Any) -> Watermark:
        """Read an arrival, a watermark as :meth:`to_dict` makes it, an instant in ISO 8601, or nothing.

        :raises SpecError: for anything else.
        """
        if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
            return cls()
        if isinstance(value, dict):
            if not isinstance(value.get("id"), str) or not value.get("latest"):
                raise SpecError("since must be an instant, or what a NewDataSensor returned ({'id', 'latest', ...})")
            count = value.get("files")
            return cls(value["id"], parse_instant(value["latest"]), count if isinstance(count, int) else None)
        return cls(None, parse_instant(value))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"id": self.id, "latest": self.latest.isoformat() if self.latest else None, "files": self.count}


def patterns_of(source: Any) -> tuple[str, ...]:
    """Return a source's absolute paths, globs and ``s3://`` URIs.

    :raises SpecError: for anything but text or a list of texts.
    """
    several = [source] if isinstance(source, str) else source
    if not isinstance(several, (list, tuple)) or not several or not all(isinstance(one, str) for one in several):
        raise SpecError("a source is a path, glob, file:// or s3:// URI, or a list of these")
    return tuple(pattern_of(one) for one in several)


def files_of(patterns: tuple[str, ...]) -> dict[str, FileState]:
    """Look at the files now; there may be none.

    :raises CannotReachError: if their disk or server does not answer.
    """
    found: dict[str, FileState] = {}
    for pattern in patterns:
        try:
            found.update((file.path, file) for file in look((pattern,), partitions=True))
        except (MissingSourceError, FileNotFoundError):
            continue  # Nothing yet, or one went between its name and a look at it.
        except PermissionError as error:
            raise SpecError(
                f"{error.filename} may not be looked at by this process: give its user the right to", path=pattern
            ) from error
        except OSError as error:
            raise CannotReachError(f"{pattern} cannot be looked at now: {error.strerror}", path=pattern) from error
    return found


def settled(before: Files, now: Files) -> dict[str, FileState]:
    """Return the files that two looks saw alike."""
    return {path: file for path, file in now.items() if before.get(path) == file}


def old(files: Files, settle: dt.timedelta, now: dt.datetime | None = None) -> dict[str, FileState]:
    """Return the files that were last changed so long ago that one look will do."""
    limit = (now or dt.datetime.now(dt.timezone.utc)) - settle - OLD
    return {path: file for path, file in files.items() if changed_at(file) < limit}


def changed_at(file: FileState) -> dt.datetime:
    """Return when a file was last changed or, on this machine, moved to where it is."""
    seconds = file.mtime_ns / 1e9
    if not is_s3(file.path):
        with suppress(OSError):
            # A file that was moved here keeps its time of modification.
            seconds = max(seconds, os.stat(file.path).st_ctime)
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc)


def arrival(
    source: Any, files: Files, since: Watermark, before: Files | None = None, min_files: int = 1
) -> dict[str, Any] | None:
    """Return what came, or None if nothing new did.

    :param files: those that have settled.
    :param since: a file that was changed later is new; without an instant all are.
    :param before: the files behind ``since``, where they are known: then new is what is not among them, whatever its
        time says.
    :param min_files: so many new ones it takes.
    """
    identity = identity_of(source, files.values())
    if not files or identity == since.id:
        return None
    if before is not None:
        new = [file for path, file in files.items() if before.get(path) != file]
    else:
        latest = since.latest
        new = [file for file in files.values() if latest is None or changed_at(file) > latest]
        if not new and since.count is not None and len(files) > since.count:
            # There are more, and none is later: a file whose time was set, or an upload that began long ago.
            new = sorted(files.values(), key=changed_at)[since.count :]
    if len(new) < max(1, min_files):
        return None
    new.sort(key=lambda file: file.path)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "id": identity,
        "source": source,
        "files": len(files),
        "bytes": sum(file.size for file in files.values()),
        "latest": max(map(changed_at, files.values())).isoformat(),
        "new": {
            "files": len(new),
            "bytes": sum(file.size for file in new),
            "paths": [file.path for file in new[:MAX_PATHS]],
        },
    }


def identity_of(source: Any, files: Iterable[FileState]) -> str:
    """Return the id of a source as it stands."""
    return digests.of_json([source, [file.in_manifest() for file in sorted(files, key=lambda file: file.path)]])
