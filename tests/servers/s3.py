"""An S3 server of the tests' own (moto's, in a process of its own), and a proxy before it that breaks things.

``python s3.py PORT`` is the server.
"""

from __future__ import annotations

import datetime as dt
import http.client
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

import pytest

KEY, SECRET = "AKIATESTKEY", "s3cr3t/key+of=tests"


@dataclass
class S3Server:
    """A server, with its buckets made on demand.

    :param url: its endpoint.
    """

    url: str
    process: Any = field(default=None, repr=False)

    @property
    def access(self) -> Any:
        """How to reach it."""
        from airflow_mlops.core.s3 import S3Access

        return S3Access(endpoint_url=self.url, region="eu-north-1", key=KEY, secret=SECRET)

    @property
    def client(self) -> Any:
        """A boto3 client."""
        return self.access.client()

    def bucket(self, name: str = "") -> str:
        """Make a bucket and return its name."""
        name = name or f"b-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-north-1"})
        return name

    def put(self, uri: str, data: bytes) -> None:
        """Write an object, as somebody else would."""
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def age(self, uri: str, days: float = 100) -> None:
        """Make all objects below a URI look as if they had been written so many days earlier."""
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        query = urlencode({"bucket": bucket, "prefix": prefix, "days": days})
        urllib.request.urlopen(f"{self.url}/-/age?{query}", timeout=20).close()

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(20)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_s3() -> S3Server:
    """Start moto's server and wait until it answers."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, __file__, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return S3Server(f"http://127.0.0.1:{port}", process)
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    raise RuntimeError("moto's server did not start")


def serve(port: int) -> None:
    """Be the server."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    inner = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()
    begun: dict[bytes, bytes] = {}

    def application(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/-/age":
            _age(**dict(parse_qsl(environ["QUERY_STRING"])))
            start_response("204 No Content", [])
            return []
        # moto says of every upload that it began in 2010.
        if environ["REQUEST_METHOD"] == "GET" and re.match(r"uploads\b", environ["QUERY_STRING"]):
            body = b"".join(inner(environ, lambda *_: None))
            body = re.sub(
                rb"<UploadId>([^<]*)</UploadId>(.*?)<Initiated>[^<]*<",
                lambda found: b"<UploadId>%b</UploadId>%b<Initiated>%b<" % (found[1], found[2], begun[found[1]]),
                body,
                flags=re.DOTALL,
            )
            start_response("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        # moto looks and then writes; on S3 a conditional write is one act.
        if environ["REQUEST_METHOD"] not in ("PUT", "POST", "DELETE"):
            return inner(environ, start_response)
        with lock:
            answer = list(inner(environ, start_response))
        if environ["REQUEST_METHOD"] == "POST":
            for upload in re.findall(rb"<UploadId>([^<]*)<", b"".join(answer)):
                begun[upload] = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()).encode()
        return answer

    run_simple("127.0.0.1", port, application, threaded=True)


def _age(bucket: str, prefix: str, days: str) -> None:
    from moto.s3.models import s3_backends

    for account in s3_backends.values():
        found = account["aws"].buckets.get(bucket)
        for key, one in list(found.keys.items()) if found else ():
            if key.startswith(prefix):
                one.last_modified -= dt.timedelta(days=float(days))


@dataclass
class Fault:
    """What goes wrong with requests that match.

    :param method: of the request.
    :param path: a regular expression that is found in path and query.
    :param what: ``slow_down`` (503), ``error`` (500), ``cut_upload`` (the connection ends amid the request's body),
        ``cut_answer`` (the request is carried out, and the connection ends before the answer), ``cut_download`` (the
        connection ends amid the answer's body), ``unconditional`` (carried out without its condition), ``corrupt``
        (one byte of the request's body is changed on the way).
    :param times: how many requests it hits.
    """

    method: str
    path: str
    what: Literal["slow_down", "error", "cut_upload", "cut_answer", "cut_download", "unconditional", "corrupt"]
    times: int = 1
    hit: int = 0


class Proxy:
    """Hands requests on to a server, but for its faults.

    :param server: ``host:port``.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.headers: list[tuple[str, str, dict[str, str]]] = []
        self.connections: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listen(0)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def _listen(self, port: int) -> None:
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def fail(self, method: str, path: str, what: Any, times: int = 1) -> Fault:
        """Add a fault and return it."""
        self.faults.append(Fault(method, path, what, times))
        return self.faults[-1]

    def take(self, method: str, path: str) -> str | None:
        """Return what goes wrong with a request, if anything."""
        with self._lock:
            self.requests.append((method, path))
            for fault in self.faults:
                if fault.hit < fault.times and fault.method == method and re.search(fault.path, path):
                    fault.hit += 1
                    return fault.what
        return None

    def start(self) -> None:
        """Listen again, where it did before it was stopped."""
        self._listen(int(self._http.server_address[1]))

    def stop(self) -> None:
        """Close it: who is connected is cut off, and who connects is refused."""
        self._http.shutdown()
        self._http.server_close()
        while self.connections:
            with suppress(OSError):
                self.connections.pop().shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def setup(self) -> None:
        super().setup()
        self.proxy.connections.append(self.connection)

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        what = self.proxy.take(self.command, self.path)
        self.proxy.headers.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if what == "cut_upload":
            self.rfile.read(length // 2)
            self._cut()
            return
        body = self.rfile.read(length)
        if what == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        if what in ("slow_down", "error"):
            code, status = ("SlowDown", 503) if what == "slow_down" else ("InternalError", 500)
            self._answer(status, f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode(), {})
            return
        headers = dict(self.headers.items())
        if what == "unconditional":
            headers = {name: value for name, value in headers.items() if name.lower() != "if-none-match"}
        headers.pop("Expect", None)
        upstream = http.client.HTTPConnection(self.proxy.server, timeout=60)
        try:
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            data = answer.read()
            if what == "cut_answer":
                self._cut()
                return
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")}
            if self.command != "HEAD":
                kept["Content-Length"] = str(len(data))
            if what == "cut_download":
                self._answer(answer.status, data[: len(data) // 2], kept)
                self._cut()
            else:
                self._answer(answer.status, data, kept)
        finally:
            upstream.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A running S3 server; tests make buckets of their own."""
    server = start_s3()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[Proxy]:
    """A proxy before the server that can break things."""
    proxy = Proxy(s3_server.url.removeprefix("http://"))
    try:
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture
def s3_store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store in a bucket of its own, which processes of the test are given as well."""
    from dataclasses import replace

    from airflow_mlops.core.s3 import STORE
    from airflow_mlops.core.store import open_store

    uri = f"s3://{s3_server.bucket()}/some/prefix"
    access = replace(s3_server.access, uri=uri)
    monkeypatch.setenv(STORE, access.to_json())
    return open_store(uri)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
