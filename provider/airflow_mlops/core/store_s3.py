"""The store on S3, or on any server that speaks its protocol and honours conditional PUT.

An object is published by one request, the last one: a PUT, or the completion of a multipart upload. A conditional
create carries ``If-None-Match: *``. Each write has an id of its own in the object's metadata, so that a writer whose
answer got lost finds out whether it was itself that won.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import os
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from airflow_mlops.core import s3, s3_probe, s3_upload
from airflow_mlops.core.errors import CannotReachError, NotFoundError, SpecError, UnsupportedError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.local_files import STAGING
from airflow_mlops.core.s3 import S3Access
from airflow_mlops.core.s3_file import open_object, read_object
from airflow_mlops.core.s3_probe import WRITER, writer_of
from airflow_mlops.core.store import LocalStore, ObjectStat, Store, check_key

__all__ = ["S3Store"]

#: Objects of more bytes than this are uploaded in parts.
SINGLE_BYTES = 16 << 20
#: The most that S3 takes in one PUT, and that it copies in one request.
MAX_PUT_BYTES = 5 << 30
ATTEMPTS = 8


class S3Store(Store):
    """A store below a prefix of a bucket.

    :param uri: ``s3://bucket/prefix``; the bucket must exist.
    :param access: how to reach it; default: what :data:`airflow_mlops.core.s3.STORE` says when it is first used.
    """

    def __init__(self, uri: str, access: S3Access | None = None) -> None:
        self.bucket, prefix = s3.split_uri(uri)
        self.prefix = prefix.strip("/")
        if self.prefix:
            check_key(self.prefix)
        super().__init__(f"s3://{self.bucket}/{self.prefix}")
        self._access = access

    @property
    def access(self) -> S3Access:
        """How the server is reached."""
        return self._access or S3Access.of_environment(s3.STORE)

    @property
    def client(self) -> Any:
        """The process's client."""
        return self.access.client()

    def _full(self, key: str) -> str:
        if check_key(key).partition("/")[0] == STAGING:
            raise SpecError(f"{key!r} is not a store key: {STAGING} holds what is not yet published")
        return self._below(key)

    def _below(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            with s3.errors(f"{self.uri}/{key}"):
                yield
        except NotFoundError as error:
            raise NotFoundError(f"there is no object {key!r} in the store at {self.uri}", key=key) from error

    # Reading

    def get_bytes(self, key: str) -> bytes:  # noqa: D102
        full = self._full(key)
        with self._errors(key):
            return read_object(self.client, self.bucket, full)

    def open_input(self, key: str) -> IO[bytes]:  # noqa: D102
        full = self._full(key)
        with self._errors(key):
            return open_object(self.client, self.bucket, full)

    def exists(self, key: str) -> bool:  # noqa: D102
        try:
            self.stat(key)
        except NotFoundError:
            return False
        return True

    def stat(self, key: str) -> ObjectStat:  # noqa: D102
        full = self._full(key)
        with self._errors(key):
            found = self.client.head_object(Bucket=self.bucket, Key=full)
        return ObjectStat(found["ContentLength"], found["LastModified"].astimezone(dt.timezone.utc))

    def keys(self, prefix: str = "") -> Iterator[str]:  # noqa: D102
        for key, _ in self.stats(prefix):
            yield key

    def stats(self, prefix: str = "") -> Iterator[tuple[str, ObjectStat]]:
        """Yield keys with their size and age, from listings of a thousand each."""
        start = self._full(prefix) + "/" if prefix else (self.prefix + "/" if self.prefix else "")
        skipped = len(self.prefix) + 1 if self.prefix else 0
        found = False
        with self._errors(prefix or "*"):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start):
                for one in page.get("Contents", ()):
                    key = one["Key"][skipped:]
                    # Folder markers, which some tools leave, and what is not published.
                    if key and not key.endswith("/") and key.partition("/")[0] != STAGING:
                        found = True
                        yield key, ObjectStat(one["Size"], one["LastModified"].astimezone(dt.timezone.utc))
        if prefix and not found:
            with suppress(NotFoundError):
                yield prefix, self.stat(prefix)

    # Writing

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:  # noqa: D102
        return self._put(key, lambda: io.BytesIO(data), len(data), if_absent)

    def put_file(self, key: str, path: str | os.PathLike[str], *, if_absent: bool = False) -> bool:  # noqa: D102
        return self._put(key, lambda: open(path, "rb"), os.stat(path).st_size, if_absent)

    def _put(self, key: str, opened: Callable[[], IO[bytes]], size: int, if_absent: bool) -> bool:
        full = self._full(key)
        with self._errors(key):
            self.probe()
            if size > SINGLE_BYTES and if_absent and self.exists(key):
                return False
            if size > SINGLE_BYTES and (not if_absent or self._completes_conditionally()):
                s3_upload.sweep(self.client, self.bucket, self.prefix)
                written = self._write(
                    full, if_absent, lambda token: self._in_parts(full, opened, size, token, if_absent)
                )
            elif size > MAX_PUT_BYTES:
                raise UnsupportedError(
                    f"the server at {self.access.server} does not complete an upload in parts conditionally, and an "
                    f"object of {size} bytes is too large for one PUT; use a server that does",
                    uri=self.uri,
                )
            else:
                written = self._write(full, if_absent, lambda token: self._at_once(full, opened, token, if_absent))
        crash_point("s3.published")
        return written

    def _at_once(self, full: str, opened: Callable[[], IO[bytes]], token: str, if_absent: bool) -> None:
        with opened() as body:
            digest = hashlib.sha256()
            while block := body.read(1 << 20):
                digest.update(block)
            body.seek(0)
            self.client.put_object(
                Bucket=self.bucket,
                Key=full,
                Body=body,
                Metadata={WRITER: token},
                ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
                **({"IfNoneMatch": "*"} if if_absent else {}),
            )

    def _in_parts(self, full: str, opened: Callable[[], IO[bytes]], size: int, token: str, if_absent: bool) -> None:
        upload = s3_upload.Upload(self.client, self.bucket, full, {WRITER: token})
        with upload, opened() as body:
            upload.send(body, size)
            crash_point("s3.uploaded")
            upload.complete(if_absent=if_absent)

    def _write(self, full: str, if_absent: bool, send: Callable[[str], None]) -> bool:
        """Send a write until it is known whether it was made, and by whom.

        412 says that there is an object, but not whose: a first request may have been carried out and its answer
        lost. 409 says that another write to the key was under way.
        """
        from botocore.exceptions import ClientError

        token = uuid.uuid4().hex
        for attempt in range(ATTEMPTS):
            try:
                send(token)
                return True
            except ClientError as error:
                status, code = s3.status_of(error), error.response["Error"]["Code"]
                if status < 500 and status not in (404, 409, 412):
                    raise
                owner = writer_of(self.client, self.bucket, full)
                if owner == token:
                    return True
                if status == 412 and if_absent and owner is not None:
                    return False
                if status not in (409, 412) and code != "NoSuchUpload":
                    raise
            except Exception:
                # The answer is lost; if the write was made, all is well.
                if writer_of(self.client, self.bucket, full) == token:
                    return True
                raise
            time.sleep(random.uniform(0, min(0.05 * 2**attempt, 2)))  # noqa: S311 - spreads writers, guards nothing
        raise CannotReachError(f"{self.uri}: other writers keep changing one object; a later try will do", key=full)

    def delete(self, key: str) -> None:  # noqa: D102
        full = self._full(key)
        with self._errors(key):
            self.client.delete_object(Bucket=self.bucket, Key=full)

    def copy(self, source: str, target: str) -> None:  # noqa: D102
        full, copy = self._full(source), self._full(target)
        with self._errors(source):
            if self.stat(source).size > MAX_PUT_BYTES:
                super().copy(source, target)
                return
            self.client.copy_object(
                Bucket=self.bucket,
                Key=copy,
                CopySource={"Bucket": self.bucket, "Key": full},
                Metadata={WRITER: uuid.uuid4().hex},
                MetadataDirective="REPLACE",
            )

    # What is not yet published

    def staging_folder(self) -> str:  # noqa: D102
        return self._local().staging_folder()

    def _local(self) -> LocalStore:
        """Return a folder of this user on this machine, where files of dead writers are found again."""
        folder = Path(tempfile.gettempdir()) / f"airflow-mlops-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid() or folder.is_symlink():
            raise SpecError(f"{folder} belongs to another user: remove it, or set TMPDIR to a folder of one's own")
        return LocalStore(folder)

    def leftovers(self, before: dt.datetime, *, delete: bool = False) -> Iterator[tuple[str, ObjectStat]]:  # noqa: D102
        yield from self._local().leftovers(before, delete=delete)
        with self._errors("*"):
            for key, upload, begun in s3_upload.unfinished(self.client, self.bucket, self.prefix):
                if begun < before:
                    if delete:
                        s3_upload.abort(self.client, self.bucket, key, upload)
                    yield f"upload of {key}", ObjectStat(0, begun)

    def probe(self) -> dict[str, Any]:
        """Make sure that the server honours conditional writes; see :mod:`airflow_mlops.core.s3_probe`.

        :raises UnsupportedError: if it does not: two writers would both win.
        """
        return s3_probe.probe(self.client, self.bucket, self._below(STAGING), self.access.server)

    def _completes_conditionally(self) -> bool:
        return bool(self.probe()["multipart"])
