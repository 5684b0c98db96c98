"""Objects behind an ``s3://`` URI, prefix or glob, by the rules that hold for local files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from airflow_mlops.core import s3
from airflow_mlops.core.data.files import FileState
from airflow_mlops.core.errors import (
    CannotReachError,
    MissingSourceError,
    MlopsError,
    NotFoundError,
    UnsupportedError,
    did_you_mean,
)

_MAGIC = re.compile(r"[*?\[]")
#: What the folder of a table format has below it, and at what.
_TABLES = (
    ("_delta_log/", "", "Delta Lake"),
    (".hoodie/", "", "Hudi"),
    ("metadata/", ".metadata.json", "Iceberg"),
)


def look(pattern: str, *, partitions: bool = False) -> list[FileState]:
    """Return the objects that a URI, prefix or glob stands for, sorted by URI.

    ``*`` and ``?`` do not cross a ``/``, ``**`` does; neither finds what is hidden (``.x``). A prefix stands for all
    objects below it, without hidden ones (``.x``, ``_x``).

    :param partitions: whether folders called ``column=value`` may stand below a prefix.
    :raises MissingSourceError: if there are none.
    :raises UnsupportedError: if objects are partitioned by folder names.
    """
    bucket, key = s3.split_uri(pattern)
    client = s3.access_for(pattern).client()
    with s3.errors(pattern):
        found = _find(client, bucket, key, partitions)
        if not found:
            raise MissingSourceError(f"no object matches {pattern}{_nearest(client, bucket, key)}", source=pattern)
    return sorted(found, key=lambda one: one.path)


def _find(client: Any, bucket: str, key: str, partitions: bool) -> list[FileState]:
    if key and not key.endswith("/"):
        try:
            return [state_of(client, bucket, key)]
        except NotFoundError:
            pass
    found = _below(client, bucket, key if not key or key.endswith("/") else key + "/", partitions)
    magic = _MAGIC.search(key)
    if found or magic is None:
        return found
    wanted = re.compile(translate(key))
    return [one for name, one in listing(client, bucket, key[: magic.start()]) if wanted.fullmatch(name)]


def _below(client: Any, bucket: str, folder: str, partitions: bool) -> list[FileState]:
    found = []
    for name, one in listing(client, bucket, folder):
        *folders, last = name[len(folder) :].split("/")
        if any(part[:1] in (".", "_") for part in (*folders, last)):
            continue
        partition = next((part for part in folders if "=" in part), None)
        if partition and not partitions:
            raise UnsupportedError(
                f"s3://{bucket}/{folder} is partitioned by folder names ({partition}): columns that stand only there "
                "are not read. Give a glob to the files of one partition, or to all of them if the columns are in the "
                "files too"
            )
        found.append(one)
    return found


def state_of(client: Any, bucket: str, key: str) -> FileState:
    """Look at one object now.

    :raises NotFoundError: if there is none.
    """
    uri = f"s3://{bucket}/{key}"
    with s3.errors(uri):
        found = client.head_object(Bucket=bucket, Key=key)
    return FileState(uri, found["ContentLength"], _nanoseconds(found["LastModified"]), found["ETag"].strip('"'))


def listing(client: Any, bucket: str, prefix: str) -> Iterator[tuple[str, FileState]]:
    """Yield key and state of the objects whose key begins with a text, without the markers of folders."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", ()):
            key = one["Key"]
            if not key.endswith("/"):
                modified = _nanoseconds(one["LastModified"])
                yield key, FileState(f"s3://{bucket}/{key}", one["Size"], modified, one["ETag"].strip('"'))


def _nanoseconds(instant: Any) -> int:
    return int(instant.timestamp()) * 1_000_000_000


@lru_cache(maxsize=64)
def translate(glob: str) -> str:
    """Return the regular expression of a glob, with the meaning that Python's :mod:`glob` gives it."""
    out = []
    parts = glob.split("/")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            out.append("(?:[^./][^/]*/)*" + ("[^./][^/]*" if last else ""))
            continue
        hidden = "" if part.startswith(".") or not _MAGIC.search(part) else r"(?!\.)"
        out.append(hidden + _translate_part(part) + ("" if last else "/"))
    return "".join(out)


def _translate_part(part: str) -> str:
    out, at = [], 0
    while at < len(part):
        letter = part[at]
        end = part.find("]", at + 2) if letter == "[" else -1
        if letter == "*":
            out.append("[^/]*")
        elif letter == "?":
            out.append("[^/]")
        elif end > 0:
            inner = part[at + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            out.append("[" + ("^/" + inner[1:] if inner.startswith("!") else inner.replace("^", r"\^", 1)) + "]")
            at = end
        else:
            out.append(re.escape(letter))
        at += 1
    return "".join(out)


def _nearest(client: Any, bucket: str, key: str) -> str:
    """Return what is there instead: the name nearest to the first part that is not there."""
    folder = ""
    for part in key.rstrip("/").split("/"):
        names = _names(client, bucket, folder)
        if part not in names:
            place = f"s3://{bucket}/{folder}".rstrip("/")
            near = "" if _MAGIC.search(part) else did_you_mean(part, names)
            return near or (f"; {place} has {', '.join(names[:5])}" if names else f"; {place} is empty")
        folder += part + "/"
    return ""


def _names(client: Any, bucket: str, folder: str) -> list[str]:
    page = client.list_objects_v2(Bucket=bucket, Prefix=folder, Delimiter="/", MaxKeys=1000)
    found = [one["Prefix"] for one in page.get("CommonPrefixes", ())] + [one["Key"] for one in page.get("Contents", ())]
    return [name for name in (one[len(folder) :].rstrip("/") for one in found) if name]


def refuse_table_formats(paths: list[str]) -> None:
    """Refuse the data files of a table format; see :func:`airflow_mlops.core.data.files.refuse_table_formats`."""
    seen: set[tuple[str, str]] = set()
    for path in paths:
        bucket, key = s3.split_uri(path)
        client = s3.access_for(path).client()
        folder = key.rpartition("/")[0]
        for _ in range(6):
            if (bucket, folder) in seen:
                break
            seen.add((bucket, folder))
            with s3.errors(path):
                kind = _table_format(client, bucket, folder)
            if kind:
                where = f"s3://{bucket}/{folder}"
                raise UnsupportedError(
                    f"{where} is a {kind} table; read as plain files it would give deleted and superseded rows. "
                    f"Export a version of it to Parquet, with the {kind} library in a task before this one",
                    path=where,
                    table_format=kind,
                )
            if not folder:
                break
            folder = folder.rpartition("/")[0]


def _table_format(client: Any, bucket: str, folder: str) -> str | None:
    for below, ending, kind in _TABLES:
        prefix = f"{folder}/{below}" if folder else below
        page = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1000 if ending else 1)
        if any(one["Key"].endswith(ending) for one in page.get("Contents", ())):
            return kind
    return None


def is_of_server(error: Exception) -> bool:
    """Return whether what Arrow raised is about the server or the way to it, not about the bytes that came."""
    return isinstance(error, OSError) and ("AWS Error" in str(error) or "curlCode" in str(error))


def why_unreadable(path: str, error: Exception) -> MlopsError:
    """Return the error for an object that Arrow could not get: boto3 is asked for it, and says why."""
    bucket, key = s3.split_uri(path)
    try:
        client = s3.access_for(path).client()
        with s3.errors(path):
            client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].read()
    except MlopsError as found:
        return found
    return CannotReachError(
        f"the connection to the server of {path} broke while it was read ({type(error).__name__}); a later try will do",
        uri=path,
    )
