"""Access to S3 and servers that speak its protocol: from a JSON environment variable to clients, and what they raise.

Credentials never stand in a URI or a spec. A process that runs a step is given them as JSON in an environment variable
for each purpose: :data:`STORE` for the store and :data:`SOURCE` for data elsewhere. Without the variable boto3 looks
where it always does: its own variables, profiles, the role of the machine or container.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_mlops.core.errors import (
    CannotReachError,
    CredentialsError,
    MlopsError,
    NotFoundError,
    SpecError,
    UnsupportedError,
)
from airflow_mlops.core.extras import require
from airflow_mlops.core.tracking import strip_credentials

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

__all__ = ["SOURCE", "STORE", "S3Access", "access_for", "errors", "split_uri", "status_of", "translate", "using"]

#: Variable with the access to the store.
STORE = "MLOPS_S3_STORE"
#: Variable with the access to data that is read elsewhere.
SOURCE = "MLOPS_S3_SOURCE"

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 6
SCHEME = "s3://"

_CREDENTIALS = {
    "403", "AccessDenied", "AllAccessDisabled", "AccountProblem", "ExpiredToken", "ExpiredTokenException",
    "Forbidden", "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch", "UnrecognizedClientException",
}  # fmt: skip
_REGION = {"301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
_BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout", "RequestThrottled"}


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key (or prefix) of an ``s3://`` URI; nothing in it is URL-encoded.

    :raises SpecError: for a URI without a bucket, or one that carries credentials.
    """
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if "@" in bucket or ":" in bucket:
        raise SpecError(
            "an s3:// URI must not carry credentials or a server; name a connection of type aws "
            f"(aws_conn_id, store_conn_id), or set {STORE} or {SOURCE}"
        )
    if not uri.startswith(SCHEME) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", bucket):
        raise SpecError(f"an S3 URI is s3://bucket/key, got {uri!r}")
    return bucket, key


#: What :func:`using` has set.
_used: ContextVar[S3Access | None] = ContextVar("mlops_s3_access", default=None)


@dataclass(frozen=True)
class S3Access:
    """How to reach an S3 server, and as whom.

    :param endpoint_url: the server, if it is not AWS.
    :param region: where the buckets are.
    :param key: access key id; None: boto3's default chain of credentials.
    :param verify: whether the server's certificate is verified, or the file of the authority that signed it.
    :param addressing_style: ``path`` or ``virtual``; default ``path`` with an endpoint of one's own, else boto3's.
    :param uri: what this access is for, where it is the store's: ``s3://bucket/prefix``.
    """

    endpoint_url: str | None = None
    region: str | None = None
    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    verify: bool | str = True
    addressing_style: str | None = None
    uri: str | None = None

    @classmethod
    def from_json(cls, text: str, where: str = "the access to S3") -> S3Access:
        """Return the access that a JSON object describes.

        :raises SpecError: if it is none, without a word of what stands there.
        """
        known = [one.name for one in dataclasses.fields(cls)]
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict) or not value.keys() <= set(known):
            raise SpecError(f"{where} must be a JSON object with nothing but {', '.join(known)}")
        if bool(value.get("key")) != bool(value.get("secret")):
            raise SpecError(f"{where} needs both 'key' and 'secret', or neither")
        return cls(**{name: one for name, one in value.items() if one is not None})

    @classmethod
    def of_environment(cls, variable: str) -> S3Access:
        """Return the access that an environment variable gives, or boto3's default one."""
        text = os.environ.get(variable, "").strip()
        return cls.from_json(text, f"the environment variable {variable}") if text else cls()

    def to_json(self) -> str:
        """Return it for an environment variable; the secrets are in it."""
        return json.dumps({name: value for name, value in dataclasses.asdict(self).items() if value is not None})

    @property
    def server(self) -> str:
        """The server's address for messages and records."""
        return strip_credentials(self.endpoint_url) if self.endpoint_url else "AWS"

    def session(self) -> Any:
        """Return a boto3 session.

        :raises MissingExtraError: if boto3 is not installed.
        """
        boto3 = require("boto3", "S3")
        with errors("S3"):
            return boto3.session.Session(self.key, self.secret, self.token, region_name=self.region)

    def client(self) -> Any:
        """Return the process's boto3 client for this access; safe to use from several threads."""
        return _client(self, os.getpid())

    def file_system(self) -> S3FileSystem | None:
        """Return Arrow's file system for this access, or None where Arrow cannot do what is asked of it.

        Arrow verifies every certificate.
        """
        require("pyarrow.fs", "reading from S3")
        return _file_system(self, os.getpid()) if self.verify is not False else None


@functools.lru_cache(maxsize=16)
def _client(access: S3Access, process: int) -> Any:
    session = access.session()
    from botocore.config import Config

    style = access.addressing_style or ("path" if access.endpoint_url else "auto")
    with errors("S3"):
        return session.client(
            "s3",
            endpoint_url=access.endpoint_url,
            region_name=session.region_name or "us-east-1",
            verify=access.verify,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                max_pool_connections=16,
                s3={"addressing_style": style},
            ),
        )


@functools.lru_cache(maxsize=16)
def _file_system(access: S3Access, process: int) -> Any:
    from pyarrow import fs

    session = access.session()
    with errors("S3"):
        found = session.get_credentials()
        if found is None:
            from botocore.exceptions import NoCredentialsError

            raise NoCredentialsError()
        credentials = found.get_frozen_credentials()
    server = urlsplit(access.endpoint_url or "")
    more: dict[str, Any] = {"tls_ca_file_path": access.verify} if isinstance(access.verify, str) else {}
    return fs.S3FileSystem(
        access_key=credentials.access_key,
        secret_key=credentials.secret_key,
        session_token=credentials.token,
        region=session.region_name or "us-east-1",
        scheme=server.scheme or "https",
        endpoint_override=(server.netloc.rpartition("@")[2] + server.path.rstrip("/")) or None,
        force_virtual_addressing=access.addressing_style == "virtual",
        connect_timeout=CONNECT_SECONDS,
        request_timeout=READ_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        **more,
    )


@contextmanager
def using(access: S3Access | None) -> Iterator[None]:
    """Read data by this access here, whatever the environment says: where many read in one process, each by its own."""
    token = _used.set(access)
    try:
        yield
    finally:
        _used.reset(token)


def access_for(uri: str) -> S3Access:
    """Return the access that data at a URI is read by.

    What :func:`using` gives, if anything. Else the store's for what is in the store, and elsewhere what :data:`SOURCE`
    says. Where that says nothing, the rest of the store's bucket is read as the store is, and all else by what boto3
    finds.
    """
    if used := _used.get():
        return used
    store = S3Access.of_environment(STORE)
    if store.uri and (uri == store.uri or uri.startswith(store.uri + "/")):
        return store
    given = os.environ.get(SOURCE, "").strip()
    if not given and store.uri and split_uri(uri)[0] == split_uri(store.uri)[0]:
        return store
    return S3Access.of_environment(SOURCE)


def status_of(error: Any) -> int:
    """Return the HTTP status of a boto3 ``ClientError``."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


@contextmanager
def errors(uri: str) -> Iterator[None]:
    """Turn what boto3 raises into errors that name cause and cure; see :func:`translate`."""
    try:
        yield
    except MlopsError:
        raise
    except Exception as error:
        found = translate(error, uri)
        if found is None:
            raise
        raise found from error


def translate(error: Exception, uri: str) -> MlopsError | None:
    """Return the error for what boto3 or the connection beneath it raised, or None if it came from elsewhere.

    :param uri: what was read or written, for the message.
    """
    from botocore import exceptions as boto
    from urllib3.exceptions import HTTPError

    if isinstance(error, boto.ClientError):
        return _refused(error, uri)
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return CredentialsError(
            f"there are no credentials for {uri}: name a connection of type aws (aws_conn_id; for the store, "
            "store_conn_id), or give the worker a role or profile that boto3 finds",
            uri=uri,
        )
    if isinstance(error, boto.SSLError):
        return CannotReachError(
            f"the certificate of the server of {uri} is not accepted: give the authority's file as 'verify' in the "
            "connection's extra",
            uri=uri,
        )
    if isinstance(error, (boto.ProfileNotFound, ValueError)):
        text = strip_credentials(str(error))
        return SpecError(f"the access to {uri} is not set up as boto3 needs it: {text}", uri=uri)
    if isinstance(error, boto.ParamValidationError):
        return SpecError(f"{uri} is not a name that S3 takes", uri=uri)
    if isinstance(error, (boto.BotoCoreError, HTTPError, ConnectionError, TimeoutError)):
        return CannotReachError(
            f"the server of {uri} does not answer, or the connection broke ({type(error).__name__})", uri=uri
        )
    return None


def _refused(error: Any, uri: str) -> MlopsError:
    """Return the error for an answer that says no; the server's own text may hold an account or a key, so it stays."""
    code, status = str(error.response.get("Error", {}).get("Code") or "?"), status_of(error)
    facts: dict[str, Any] = {"uri": uri, "code": code, "status": status}
    if code == "NoSuchBucket":
        bucket = uri.removeprefix(SCHEME).partition("/")[0]
        return SpecError(f"there is no bucket {bucket!r}: make it, or correct the name in {uri}", **facts)
    if code in ("NoSuchKey", "NoSuchUpload", "404", "NoSuchVersion", "NotFound"):
        return NotFoundError(f"there is no object {uri}", **facts)
    if code in _REGION:
        return SpecError(f"the bucket of {uri} is in another region: set the connection's 'region_name' to it", **facts)
    if code in _BUSY or status in (429, 503):
        return CannotReachError(f"the server of {uri} asks to slow down ({code}); a later try will do", **facts)
    if code in _CREDENTIALS or status in (401, 403):
        return CredentialsError(
            f"access to {uri} is denied ({code}): the credentials are wrong or have expired, or lack one of "
            "s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, s3:DeleteObject on its objects",
            **facts,
        )
    if status >= 500:
        if code in ("NotImplemented", "501"):
            return UnsupportedError(f"the server of {uri} does not know a request that is needed", **facts)
        return CannotReachError(f"the server of {uri} fails with {code} ({status})", **facts)
    return SpecError(f"the server of {uri} refuses the request with {code} ({status})", **facts)
