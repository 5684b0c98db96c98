"""A real gateway in front of model servers that are threads of the test, so that a deployment takes no time."""

from __future__ import annotations

import dataclasses
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core import faults
from airflow_mlops.core.serving import counters, reconcile
from airflow_mlops.core.serving.fleet import Fleet, Instance, identity
from airflow_mlops.core.serving.gateway import Gateway, Settings
from airflow_mlops.core.serving.measure import Figures
from airflow_mlops.core.serving.places import Place
from airflow_mlops.core.serving.processes import GatewayProcess
from airflow_mlops.core.serving.reconcile import Reconciler
from airflow_mlops.core.serving.state import Deployment, ServerState
from airflow_mlops.core.steps import StepContext
from servers.s3 import free_port


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code catches it."""


@dataclass
class Behaviour:
    """How the next servers that start behave."""

    seconds: float = 0.0
    fails: bool = False
    deaf: bool = False


class ModelServer(ThreadingHTTPServer):
    """Answers as a model server does, with the number of its deployment as the prediction."""

    daemon_threads = True

    def __init__(self, deployment: Deployment, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour, self.seq = behaviour, deployment.seq
        self.figures = Figures(identity(deployment))
        self.ended = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelServer

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(200, self.server.figures.text())
        elif self.path == "/model":
            self.answer(200, json.dumps(self.server.figures.identity))
        else:
            self.answer(500 if self.server.behaviour.deaf else 200, "\n")

    def do_POST(self) -> None:
        began = time.perf_counter()
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.behaviour.seconds)
        status = 500 if self.server.behaviour.fails else 200
        self.answer(status, json.dumps({"predictions": [self.server.seq]}))
        self.server.figures.answered(status, time.perf_counter() - began)

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


class ThreadFleet(Fleet):
    """Outlives the one who drives it, as containers do."""

    def __init__(self) -> None:
        self.servers: dict[tuple[str, int], ModelServer] = {}
        self.behaviour = Behaviour()
        self.starts = 0

    def ensure(self, deployment: Deployment) -> Instance:
        key = (deployment.server, deployment.seq)
        if key not in self.servers:
            self.starts += 1
            self.servers[key] = ModelServer(deployment, dataclasses.replace(self.behaviour))
            threading.Thread(target=self.servers[key].serve_forever, args=(0.01,), daemon=True).start()
        one = self.servers[key]
        return Instance(f"127.0.0.1:{one.server_port}", "ended" if one.ended else "running", "it was ended by the test")

    def revive(self, deployment: Deployment) -> Instance:
        return self.ensure(deployment)

    def running(self, server: str) -> list[int]:
        return [seq for name, seq in self.servers if name == server]

    def alive(self, server: str, seq: int) -> bool:
        one = self.servers.get((server, seq))
        return one is not None and not one.ended

    def remove(self, server: str, seq: int) -> None:
        one = self.servers.pop((server, seq), None)
        if one is not None:
            one.shutdown()
            one.server_close()


@dataclass
class Load:
    """Requests without a pause from some clients, until the block ends."""

    port: int
    path: str = "/flights/invocations"
    clients: int = 3
    statuses: list[int] = field(default_factory=list)
    predictions: list[int] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("POST", self.path, b"{}", {"Content-Type": "application/json"})
                answer = connection.getresponse()
                body = answer.read()
                self.statuses.append(answer.status)
                if answer.status == 200:
                    self.predictions.append(json.loads(body)["predictions"][0])
            except (OSError, http.client.HTTPException):
                self.statuses.append(0)
                connection.close()
            time.sleep(0.003)

    @property
    def failed(self) -> int:
        """Requests that were not answered with 200."""
        return sum(status != 200 for status in self.statuses)


@dataclass
class World:
    """A store, a gateway and a fleet; drivers come and go."""

    context: StepContext
    gateway: Gateway
    process: GatewayProcess
    fleet: ThreadFleet
    folder: Path
    port: int

    @property
    def state(self) -> ServerState:
        """The server's state, read anew."""
        return ServerState(self.context.store, "flights")

    def driver(self) -> Reconciler:
        """A new driver, which knows only what the store and the gateway tell."""
        return Reconciler(self.context, "flights", self.fleet, self.gateway, self.folder)

    def want(self, digest: str = "a", seq: int | None = None, **intent: Any) -> int:
        """Write the intent of the next deployment."""
        state = self.state
        live = state.live()
        seq = seq or state.last() + 1
        whole = {
            "model": {"uri": f"models:/m-{digest}", "name": None, "version": None, "digest": f"sha256:{digest}"},
            "strategy": "replace",
            "checks": [],
            "canary": {},
            "capture": {"sample": 0.0},
            "start_seconds": 20.0,
            "request": digest,
            "slot": "green" if live is not None and live.slot == "blue" else "blue",
            "key": "",
            **intent,
        }
        assert state.begin(seq, whole)
        return seq

    def finish(self, driver: Reconciler | None = None, seconds: float = 60) -> None:
        """Drive until nothing is left to do."""
        driver, end = driver or self.driver(), time.monotonic() + seconds
        while (pause := driver.advance()) is not None:
            assert time.monotonic() < end, self.state.open()
            time.sleep(min(pause, 0.05))

    def until(self, phase: str, seconds: float = 30) -> Reconciler:
        """Drive until the open deployment is in a phase."""
        driver, end = self.driver(), time.monotonic() + seconds
        while (opened := self.state.open()) is None or opened.phase != phase:
            assert time.monotonic() < end, opened
            driver.advance()
        return driver

    def deploy(self, digest: str = "a", **intent: Any) -> Deployment:
        """Want a deployment, drive it to its end and return it."""
        seq = self.want(digest, **intent)
        self.finish()
        return self.state.read(seq)

    def ask(self, **headers: str) -> tuple[int, Any]:
        """Send one request through the gateway; return status and prediction."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("POST", "/flights/invocations", b"{}", named)
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body)["predictions"][0] if answer.status == 200 else body
        finally:
            connection.close()

    def ask_all(self, count: int) -> list[tuple[int, Any]]:
        """Send so many requests, and wait until gateway and server have counted them: they do so after the answer."""
        place = Place(gateway=str(self.gateway.folder))

        def counted() -> list[int]:
            sources = counters.of_server(self.context.store, "flights", place)["sources"]
            return [sum(one["requests"] for one in sources if one["role"] == role) for role in ("gateway", "server")]

        wanted = [before + count for before in counted()]
        answers, end = [self.ask() for _ in range(count)], time.monotonic() + 60
        while counted() != wanted:
            assert time.monotonic() < end, (counted(), wanted)
            time.sleep(0.01)
        return answers

    def load(self, **more: Any) -> Load:
        """Requests without a pause."""
        return Load(self.port, **more)


@pytest.fixture
def world(context: StepContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """All of it, running, with nothing deployed."""
    monkeypatch.setattr(reconcile, "verified_copy", lambda *_: tmp_path)
    port = free_port()
    gateway = Gateway(tmp_path / "gateway", Settings(bind=f"127.0.0.1:{port}"))
    process = GatewayProcess(gateway, print)
    fleet = ThreadFleet()
    process.ensure()
    try:
        yield World(context, gateway, process, fleet, tmp_path, port)
    finally:
        process.close()
        for server, seq in list(fleet.servers):
            fleet.remove(server, seq)


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Have the code die at a crash point; None: no more."""

    def at(name: str | None) -> None:
        def point(here: str) -> None:
            if here == name:
                raise Killed(here)

        assert name is None or any(name in points for points in faults.CRASH_POINTS.values())
        monkeypatch.setattr(reconcile, "crash_point", point)

    return at
