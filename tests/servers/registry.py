"""A registry of images with a login: just so much of its API that an engine can log in and pull one tiny image."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Registry:
    """A registry at ``address``, where user ``bot`` finds the image ``team/tiny:1``, which has one file."""

    address: str = ""
    password: str = "let-me-in"
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""

    def __post_init__(self) -> None:
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("hello"))
        packed = gzip.compress(layer.getvalue(), mtime=0)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
        }
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self._blob("application/vnd.docker.container.image.v1+json", json.dumps(config).encode()),
                "layers": [self._blob("application/vnd.docker.image.rootfs.diff.tar.gzip", packed)],
            }
        ).encode()

    def _blob(self, media: str, data: bytes) -> dict[str, Any]:
        self.blobs[_digest(data)] = data
        return {"mediaType": media, "size": len(data), "digest": _digest(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = "Basic " + base64.b64encode(f"bot:{registry.password}".encode()).decode()
            if self.headers.get("Authorization") != wanted:
                errors = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
                self.answer(401, json.dumps(errors).encode(), "application/json")
            elif self.path == "/v2/":
                self.answer(200, b"{}", "application/json")
            elif self.path.startswith("/v2/team/tiny/manifests/"):
                self.answer(200, registry.manifest, MANIFEST)
            elif (digest := self.path.rpartition("/")[2]) in registry.blobs:
                self.answer(200, registry.blobs[digest], "application/octet-stream")
            else:
                errors = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
                self.answer(404, json.dumps(errors).encode(), "application/json")

        def do_HEAD(self) -> None:
            self.do_GET()

        def answer(self, status: int, data: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            if kind == MANIFEST:
                self.send_header("Docker-Content-Digest", _digest(data))
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="tests"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A running registry on this machine, to which an engine talks without TLS."""
    made = Registry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    made.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
