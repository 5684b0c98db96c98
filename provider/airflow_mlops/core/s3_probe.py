"""Whether an S3 server honours conditional writes: tried out at first use, for the ledger stands on them.

What was found is kept in the process, and in the store for a week.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import uuid
from contextlib import suppress
from typing import Any

from airflow_mlops.core import s3, s3_upload
from airflow_mlops.core.errors import CannotReachError, CredentialsError, NotFoundError, UnsupportedError
from airflow_mlops.core.s3_file import read_object

#: What was found is trusted for so long.
DAYS = 7
RECORD = "conditional-put.json"
#: In an object's metadata, the id of the write that made it.
WRITER = "mlops-writer"

#: What was found in this process, by server, bucket and folder.
_probed: dict[tuple[str, str, str], dict[str, Any]] = {}


def probe(client: Any, bucket: str, folder: str, server: str) -> dict[str, Any]:
    """Return what the server promises: ``multipart`` says whether it ends uploads in parts conditionally, too.

    :param folder: key of a folder that the store keeps for itself.
    :param server: its address, for messages.
    :raises UnsupportedError: if it ignores or refuses ``If-None-Match: *`` on PUT.
    """
    place = (server, bucket, folder)
    if place not in _probed:
        _probed[place] = _recorded(client, bucket, folder, server) or _try_out(client, bucket, folder, server)
    return _probed[place]


def _recorded(client: Any, bucket: str, folder: str, server: str) -> dict[str, Any] | None:
    try:
        record = json.loads(read_object(client, bucket, f"{folder}/{RECORD}"))
        age = dt.datetime.now(dt.timezone.utc) - dt.datetime.fromisoformat(record["at"])
        fits = record["server"] == server and abs(age) < dt.timedelta(days=DAYS)
    except (NotFoundError, ValueError, KeyError, TypeError):
        return None
    return record if fits else None


def _try_out(client: Any, bucket: str, folder: str, server: str) -> dict[str, Any]:
    key, uri = f"{folder}/probe-{uuid.uuid4().hex}", f"s3://{bucket}/{folder}"
    try:
        if not _creates(client, bucket, key, server):
            raise UnsupportedError(f"the server at {server} refuses a conditional PUT", uri=uri)
        if _creates(client, bucket, key, server):
            raise UnsupportedError(
                f"the server at {server} ignores 'If-None-Match: *' on PUT, so of two writers both would win: use AWS "
                "S3, or a server that honours conditional writes (MinIO, Ceph and others do, in recent versions), or a "
                "folder that all workers see",
                uri=uri,
            )
        multipart = _completes(client, bucket, key)
    finally:
        with suppress(CannotReachError, CredentialsError), s3.errors(uri):
            client.delete_object(Bucket=bucket, Key=key)
    now = dt.datetime.now(dt.timezone.utc).isoformat()
    record = {"server": server, "multipart": multipart, "at": now}
    client.put_object(Bucket=bucket, Key=f"{folder}/{RECORD}", Body=json.dumps(record).encode())
    return record


def _creates(client: Any, bucket: str, key: str, server: str) -> bool:
    """Return whether a conditional PUT made the object."""
    from botocore.exceptions import ClientError

    token = uuid.uuid4().hex
    try:
        client.put_object(Bucket=bucket, Key=key, Body=b"probe", IfNoneMatch="*", Metadata={WRITER: token})
    except ClientError as error:
        if s3.status_of(error) in (409, 412):
            return writer_of(client, bucket, key) == token
        if s3.status_of(error) == 501 or error.response["Error"]["Code"] == "NotImplemented":
            raise UnsupportedError(
                f"the server at {server} does not know conditional PUT; a store needs it", uri=f"s3://{bucket}"
            ) from error
        raise
    return True


def _completes(client: Any, bucket: str, key: str) -> bool:
    """Return whether an upload in parts onto an existing object is refused, as it must be."""
    from botocore.exceptions import ClientError

    try:
        with s3_upload.Upload(client, bucket, key, {WRITER: uuid.uuid4().hex}) as upload:
            upload.send(io.BytesIO(b"probe"), 5)
            upload.complete(if_absent=True)
    except ClientError as error:
        if s3.status_of(error) == 412:
            return True
        if s3.status_of(error) in (400, 501):
            return False
        raise
    return False


def writer_of(client: Any, bucket: str, key: str) -> str | None:
    """Return the id of the write that made an object, an empty text if it has none, or None without an object."""
    try:
        with s3.errors(f"s3://{bucket}/{key}"):
            return str(client.head_object(Bucket=bucket, Key=key)["Metadata"].get(WRITER, ""))
    except NotFoundError:
        return None
