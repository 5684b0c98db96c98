"""An object on S3 as a file: seekable, read by ranges, in bounded memory, and always one version of it."""

from __future__ import annotations

import io
import time
from typing import IO, Any

from airflow_mlops.core import s3
from airflow_mlops.core.errors import CannotReachError, SourceChangedError

#: The first and the largest range that is asked for; while reading goes straight on, each is twice the one before.
FIRST, LARGEST = 1 << 20, 8 << 20
ATTEMPTS = 4


def open_object(client: Any, bucket: str, key: str) -> IO[bytes]:
    """Open an object for reading; a small one is read at once.

    :raises NotFoundError: if there is none.
    """
    return io.BufferedReader(_ObjectFile(client, bucket, key), 1 << 16)


def read_object(client: Any, bucket: str, key: str) -> bytes:
    """Return an object's bytes, of one version."""
    return _body(client, {"Bucket": bucket, "Key": key}, f"s3://{bucket}/{key}")[0]


def _body(client: Any, request: dict[str, Any], uri: str) -> tuple[bytes, dict[str, Any]]:
    """Return the body of an answer whole: a connection that breaks in its middle is not botocore's to retry."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with s3.errors(uri):
                answer = client.get_object(**request)
                return answer["Body"].read(), answer
        except CannotReachError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


class _ObjectFile(io.RawIOBase):
    """Reads ranges of one version of an object.

    :raises SourceChangedError: when a later range is of another version.
    """

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        super().__init__()
        self.uri = f"s3://{bucket}/{key}"
        self._client = client
        self._request = {"Bucket": bucket, "Key": key}
        self._position = self._start = 0
        self._ahead = FIRST
        self._block, self._size, self._version = self._open()

    def _open(self) -> tuple[bytes, int, str]:
        """Read the first range; its answer also says how long the object is."""
        try:
            block, answer = _body(self._client, {**self._request, "Range": f"bytes=0-{FIRST - 1}"}, self.uri)
        except Exception as error:
            if getattr(error, "fields", {}).get("code") != "InvalidRange":
                raise
            # No range fits an empty object.
            block, answer = _body(self._client, self._request, self.uri)
        total = str(answer.get("ContentRange") or "").rpartition("/")[2]
        return block, int(total) if total.isdigit() else len(block), answer["ETag"]

    def _fetch(self, wanted: int) -> None:
        straight_on = self._position == self._start + len(self._block)
        self._ahead = min(self._ahead * 2, LARGEST) if straight_on else FIRST
        end = min(self._position + max(wanted, self._ahead), self._size)
        request = {**self._request, "Range": f"bytes={self._position}-{end - 1}", "IfMatch": self._version}
        self._block = b""  # before the next one comes: two never stand in memory
        try:
            self._block = _body(self._client, request, self.uri)[0]
        except Exception as error:
            if getattr(error, "fields", {}).get("status") in (404, 412, 416):
                raise SourceChangedError(
                    f"{self.uri} was replaced or deleted while it was being read", uri=self.uri
                ) from error
            raise
        self._start = self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if self._position >= self._size or not len(view):
            return 0
        offset = self._position - self._start
        if not 0 <= offset < len(self._block):
            self._fetch(min(len(view), LARGEST))
            offset = 0
        piece = memoryview(self._block)[offset : offset + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._block = b""
        super().close()
