"""Model servers as processes of this machine, and the gateway as one. They end with the process that started them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import CannotReachError, MissingExtraError
from airflow_mlops.core.evaluation import fresh
from airflow_mlops.core.serving import admin
from airflow_mlops.core.serving.fleet import LAST_LINES, Fleet, Instance, identity, verified_copy
from airflow_mlops.core.serving.gateway import CONFIGURATION, Gateway
from airflow_mlops.core.serving.state import Deployment
from airflow_mlops.core.training.guard import PR_SET_PDEATHSIG, _prctl

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Seconds that a server may take to answer what is under way after SIGTERM.
GRACE_SECONDS = 60
#: Seconds before a server that ended is started again: after the first end, and at most.
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0


@dataclass
class _Process:
    listener: socket.socket
    folder: Path
    digest: str
    process: subprocess.Popen[bytes]
    ends: int = 0
    again_at: float = 0.0

    @property
    def address(self) -> str:
        host, port = self.listener.getsockname()[:2]
        return f"{host}:{port}"


class ProcessFleet(Fleet):
    """Model servers as children of this process.

    The socket that a server listens at belongs to this process, so a server that is started again has its address.

    :param folder: for copies of models and logs; this process is the only one that uses it.
    :param environment: variables that a server gets beside those of :func:`fresh.environment`.
    """

    def __init__(self, context: StepContext, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.context, self.folder, self.environment = context, folder, environment or {}
        self._processes: dict[tuple[str, int], _Process] = {}

    def ensure(self, deployment: Deployment) -> Instance:  # noqa: D102
        key = (deployment.server, deployment.seq)
        if key not in self._processes:
            listener = socket.create_server(("127.0.0.1", 0), backlog=512)
            folder = self.folder / "servers" / f"{key[0]}-{key[1]}"
            folder.mkdir(parents=True, exist_ok=True)
            try:
                process = self._start(deployment, folder, listener)
            except BaseException:
                listener.close()
                raise
            self._processes[key] = _Process(listener, folder, deployment.digest, process)
        return self._instance(self._processes[key])

    def revive(self, deployment: Deployment) -> Instance:  # noqa: D102
        instance = self.ensure(deployment)
        one = self._processes[(deployment.server, deployment.seq)]
        if instance.state == "running":
            return instance
        now = time.monotonic()
        if not one.again_at:
            one.ends += 1
            one.again_at = now + min(FIRST_PAUSE * 2 ** (one.ends - 1), LAST_PAUSE)
            self.context.log.warning("%s of %s ended: %s", deployment, deployment.server, instance.detail)
        elif now >= one.again_at:
            one.again_at = 0.0
            one.process = self._start(deployment, one.folder, one.listener)
        return self._instance(one)

    def running(self, server: str) -> list[int]:  # noqa: D102
        return [seq for name, seq in self._processes if name == server]

    def alive(self, server: str, seq: int) -> bool:  # noqa: D102
        one = self._processes.get((server, seq))
        return one is not None and one.process.poll() is None

    def remove(self, server: str, seq: int) -> None:  # noqa: D102
        one = self._processes.pop((server, seq), None)
        if one is not None:
            end(one.process, GRACE_SECONDS)
            one.listener.close()
            shutil.rmtree(one.folder, ignore_errors=True)
            if one.digest not in {other.digest for other in self._processes.values()}:
                shutil.rmtree(self.folder / "models" / digests.hex_of(one.digest), ignore_errors=True)

    def close(self) -> None:
        """End all of them."""
        for one in self._processes.values():
            _signal(one.process, signal.SIGTERM)
        for server, seq in list(self._processes):
            self.remove(server, seq)

    def _start(self, deployment: Deployment, folder: Path, listener: socket.socket) -> subprocess.Popen[bytes]:
        job = {
            "model": str(verified_copy(self.context, deployment, self.folder / "models")),
            "digest": deployment.digest,
            "identity": identity(deployment),
            "capture": deployment.intent.get("capture"),
            "store": self.context.store.uri,
            "fd": listener.fileno(),
            "guarded": True,
            "grace": GRACE_SECONDS,
        }
        (folder / "server.json").write_text(json.dumps(job), encoding="utf-8")
        with open(folder / "log", "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow_mlops.core.serving.server", str(folder / "server.json")],
                stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=folder, pass_fds=[listener.fileno()],
                env={**fresh.environment(folder), **self.environment}, start_new_session=True,
            )  # fmt: skip

    def _instance(self, one: _Process) -> Instance:
        code = one.process.poll()
        if code is None:
            return Instance(one.address, "running")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Instance(
            one.address, "ended", f"its process ended with {how}. Its last lines: {_tail(one.folder / 'log')}"
        )


class GatewayProcess:
    """The gateway as a child of this process, started again if it ends.

    :param say: where its lines go.
    """

    def __init__(self, gateway: Gateway, say: Callable[[str], None]) -> None:
        self.gateway, self.say = gateway, say
        self.process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def ensure(self) -> None:
        """Start it, if it does not run.

        :raises MissingExtraError: if HAProxy is not installed.
        :raises CannotReachError: if it does not start, with what it says.
        """
        if self.process is not None and self.process.poll() is None:
            return
        program = shutil.which("haproxy", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
        if program is None:
            raise MissingExtraError(
                "the gateway needs HAProxy 2.4 or later, which is not on PATH; install it (apt-get install haproxy, "
                "dnf install haproxy, brew install haproxy)",
                library="haproxy",
            )
        if self.process is not None:
            self.say(f"The gateway ended with code {self.process.returncode}; starting it again")
        folder = self.gateway.folder
        prctl = _prctl()
        for name in ("admin.sock", "master.sock"):
            (folder / name).unlink(missing_ok=True)
        with open(folder / "log", "ab") as output:
            self.process = subprocess.Popen(
                [program, "-W", "-S", "unix@master.sock,mode,600", "-f", CONFIGURATION],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                # With -W it ends its workers with itself.
                preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
            )  # fmt: skip
        end_at = time.monotonic() + 20
        while time.monotonic() < end_at and self.process.poll() is None:
            with contextlib.suppress(CannotReachError):
                admin.stats(folder)
                return
            time.sleep(0.05)
        self.close()
        raise CannotReachError(f"the gateway does not start at {self.gateway.settings.bind}: {_tail(folder / 'log')}")

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            end(self.process, 10)


def end(process: subprocess.Popen[Any], grace: float) -> None:
    """End a process: SIGTERM, and after the grace SIGKILL to its group."""
    _signal(process, signal.SIGTERM)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin:
        process.stdin.close()


def _signal(process: subprocess.Popen[Any], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _tail(file: Path) -> str:
    try:
        with open(file, "rb") as lines:
            lines.seek(max(0, file.stat().st_size - 8000))
            last = deque((line.decode("utf-8", "replace").strip() for line in lines), maxlen=LAST_LINES)
    except OSError:
        return "none"
    return " | ".join(line[:300] for line in last if line) or "none"
