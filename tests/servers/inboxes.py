"""Where alerts arrive: a web hook and a mail server of the tests' own, on loopback; both can refuse."""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class WebHook:
    """Takes JSON by POST.

    :param refusing: while set, it answers 503 and keeps nothing.
    """

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.refusing = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not hook.refusing:
                    hook.received.append(json.loads(body))
                self.send_response(503 if hook.refusing else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    @property
    def connection(self) -> str:
        """As an Airflow connection."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"


class MailServer:
    """Takes mail by SMTP (RFC 5321, what a sender without TLS and login needs).

    :param refusing: while set, it turns every mail away for now.
    """

    def __init__(self) -> None:
        self.received: list[EmailMessage] = []
        self.refusing = False
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True

    def _handler(self) -> type[socketserver.StreamRequestHandler]:
        inbox = self

        class Handler(socketserver.StreamRequestHandler):
            def say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

            def handle(self) -> None:
                self.say("220 tests")
                while line := self.rfile.readline().decode().strip():
                    verb = line[:4].upper()
                    if verb == "QUIT":
                        return self.say("221 bye")
                    if verb == "DATA":
                        self.say("354 go on")
                        self.take()
                    else:
                        self.say("451 not now" if verb == "MAIL" and inbox.refusing else "250 ok")
                return None

            def take(self) -> None:
                lines = []
                while (line := self.rfile.readline()) != b".\r\n":
                    lines.append(line[1:] if line.startswith(b"..") else line)
                message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
                assert isinstance(message, EmailMessage)
                inbox.received.append(message)
                self.say("250 taken")

        return Handler

    @property
    def connection(self) -> str:
        """As an Airflow connection."""
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "mlops@example.com", "retry_limit": 1}
        host, port = self.server.server_address[:2]
        return json.dumps({"conn_type": "smtp", "host": host, "port": port, "extra": extra})


@contextmanager
def _running(inbox: Any) -> Iterator[Any]:
    thread = threading.Thread(target=inbox.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield inbox
    finally:
        inbox.server.shutdown()
        inbox.server.server_close()
        thread.join()


@pytest.fixture
def web_hook() -> Iterator[WebHook]:
    """A web hook on loopback."""
    with _running(WebHook()) as inbox:
        yield inbox


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """A mail server on loopback."""
    with _running(MailServer()) as inbox:
        yield inbox
