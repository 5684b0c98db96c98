"""Uploads in parts: with checksums, in bounded memory, and none left behind."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import IO, Any

from airflow_mlops.core import s3
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.core.faults import crash_point

#: Bytes of a part, and how many are under way: memory is bounded by their product.
PART_BYTES, THREADS = 16 << 20, 3
MAX_PARTS = 9_000
#: An upload that was begun longer ago belongs to no living writer.
STALE = dt.timedelta(days=1)

#: Where this process has looked for abandoned uploads already.
_swept: set[tuple[str, str]] = set()


class Upload:
    """One upload in parts; leaving its context aborts what was not completed.

    :param metadata: of the object that it becomes.
    """

    def __init__(self, client: Any, bucket: str, key: str, metadata: dict[str, str]) -> None:
        self.client = client
        self.place = {"Bucket": bucket, "Key": key}
        self.metadata = metadata
        self.parts: list[dict[str, Any]] = []
        self.completed = False

    def __enter__(self) -> Upload:
        begun = self.client.create_multipart_upload(**self.place, Metadata=self.metadata, ChecksumAlgorithm="SHA256")
        self.id = str(begun["UploadId"])
        return self

    def __exit__(self, *_: object) -> None:
        if not self.completed:
            # What cannot be aborted now is swept a day later; the cause that led here is what counts.
            with suppress(Exception):
                abort(self.client, self.place["Bucket"], self.place["Key"], self.id)

    def send(self, body: IO[bytes], size: int) -> None:
        """Send all bytes, a few parts at a time."""
        length = max(PART_BYTES, -(-size // MAX_PARTS))
        threads = max(1, min(THREADS, THREADS * PART_BYTES // length))
        running: set[Future[dict[str, Any]]] = set()
        done: list[Future[dict[str, Any]]] = []
        with ThreadPoolExecutor(threads, thread_name_prefix="upload") as pool:
            number = 0
            while block := body.read(length):
                number += 1
                future = pool.submit(self._send_part, number, block)
                del block
                done.append(future)
                running.add(future)
                if len(running) >= threads:
                    ready, running = wait(running, return_when="FIRST_COMPLETED")
                    for one in ready:
                        one.result()
            wait(running, return_when=FIRST_EXCEPTION)
            self.parts = [one.result() for one in done]

    def _send_part(self, number: int, block: bytes) -> dict[str, Any]:
        checksum = base64.b64encode(hashlib.sha256(block).digest()).decode()
        sent = self.client.upload_part(
            **self.place, UploadId=self.id, PartNumber=number, Body=block, ChecksumSHA256=checksum
        )
        crash_point("s3.part_sent")
        part = {"PartNumber": number, "ETag": sent["ETag"]}
        # A server that keeps no checksums must not be told one again.
        return {**part, "ChecksumSHA256": checksum} if sent.get("ChecksumSHA256") else part

    def complete(self, *, if_absent: bool) -> None:
        """Publish the object: the one request that makes it visible."""
        self.client.complete_multipart_upload(
            **self.place,
            UploadId=self.id,
            MultipartUpload={"Parts": self.parts},
            **({"IfNoneMatch": "*"} if if_absent else {}),
        )
        self.completed = True


def unfinished(client: Any, bucket: str, prefix: str) -> Iterator[tuple[str, str, dt.datetime]]:
    """Yield key, id and beginning of the uploads below a prefix that were begun and not ended."""
    below = f"{prefix}/" if prefix else ""
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=below):
        for one in page.get("Uploads", ()):
            # Some servers do not filter.
            if one["Key"].startswith(below):
                yield one["Key"], one["UploadId"], one["Initiated"].astimezone(dt.timezone.utc)


def abort(client: Any, bucket: str, key: str, upload: str) -> None:
    """Drop an upload and its parts; it is no error if it is gone."""
    from botocore.exceptions import ClientError

    try:
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    except ClientError as error:
        if s3.status_of(error) != 404:
            raise


def sweep(client: Any, bucket: str, prefix: str) -> None:
    """Abort what writers that died have begun, once in a process; a login that may not do that goes on without."""
    if (bucket, prefix) in _swept:
        return
    _swept.add((bucket, prefix))
    before = dt.datetime.now(dt.timezone.utc) - STALE
    with suppress(MlopsError), s3.errors(f"s3://{bucket}/{prefix}"):
        for key, upload, begun in unfinished(client, bucket, prefix):
            if begun < before:
                abort(client, bucket, key, upload)
