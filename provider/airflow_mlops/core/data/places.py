"""Files of a source wherever they are: on this machine, or ``s3://``."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from airflow_mlops.core import s3

#: Bytes that a stream from S3 asks for at a time.
STREAM_BYTES = 4 << 20


def is_s3(path: str) -> bool:
    """Return whether a path or glob is on S3."""
    return path.startswith(s3.SCHEME)


def open_input(path: str) -> Any:
    """Open a file for reading at any place of it; Arrow takes it as well."""
    import pyarrow as pa

    return _open_s3(path) if is_s3(path) else pa.OSFile(path, "rb")


@contextmanager
def open_stream(path: str) -> Iterator[IO[bytes]]:
    """Open a file for reading from its beginning to its end, as it is: what is compressed stays so."""
    if not is_s3(path):
        with open(path, "rb") as file:
            yield file
        return
    with _open_s3(path) as raw, io.BufferedReader(_Raw(raw), STREAM_BYTES) as file:
        yield file


@contextmanager
def open_text(path: str) -> Iterator[Any]:
    """Open a file of text for reading from its beginning to its end; one that ends in ``.gz`` is decompressed."""
    with open_stream(path) as raw:
        if path.lower().endswith(".gz"):
            with gzip.open(raw, "rb") as file:
                yield file
        else:
            yield raw


def _open_s3(path: str) -> Any:
    access = s3.access_for(path)
    system = access.file_system()
    bucket, key = s3.split_uri(path)
    if system is not None:
        return system.open_input_file(f"{bucket}/{key}")
    from airflow_mlops.core.s3_file import open_object

    return open_object(access.client(), bucket, key)


class _Raw(io.RawIOBase):
    """What Python's buffered reader wants of Arrow's file."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def name_of(path: str) -> str:
    """Return the last part of a path."""
    return path.rpartition("/")[2] if is_s3(path) else os.path.basename(path)
