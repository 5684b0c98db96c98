"""A throw-away Airflow for the demo: its own home, free ports on loopback, nothing left running."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from airflow_api import Api

ROOT = Path(__file__).resolve().parents[1]
PORTS = ("api", "worker_logs", "trigger_logs", "mlflow", "models")


class Airflow(Api):
    """``airflow standalone`` in a home of its own, and its REST API.

    :param home: the folder for its database, logs and the embedded back end.
    :param dags: the dags folder.
    """

    def __init__(self, home: Path, dags: Path) -> None:
        self.home = home
        self.ports = self._ports()
        super().__init__(f"http://127.0.0.1:{self.ports['api']}", log=home / "standalone.log")
        self.mlflow_url = f"http://127.0.0.1:{self.ports['mlflow']}"
        self.process: subprocess.Popen[bytes] | None = None
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW", "PYTHONPATH"))}
        self.environment = {
            **inherited,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), inherited.get("PATH", "")]),
            "AIRFLOW_HOME": str(home),
            # All parts and tasks write to one SQLite file; on a busy machine its 5 s are too short a wait.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout=60",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            # Airflow looks so seldom whether a task's process is gone, where it was not gone at once, and the next task
            # waits for that; 5 s is the default.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.ports["api"]),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            # Nobody edits these files, and to parse them twice a minute takes a tenth of a small machine.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self.ports["worker_logs"]),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self.ports["trigger_logs"]),
            "AIRFLOW__MLOPS__MLFLOW_UI_URL": self.mlflow_url,
            # On a busy machine waiting threads would spin through the time that the working ones need.
            "OMP_WAIT_POLICY": "PASSIVE",
        }

    def _ports(self) -> dict[str, int]:
        """Return the ports of the last time if they are still free, so that links stay good, else new ones."""
        kept = self.home / "ports.json"
        with contextlib.suppress(OSError, ValueError):
            ports = json.loads(kept.read_text())
            if set(ports) == set(PORTS) and all(_is_free(port) for port in ports.values()):
                return dict(ports)
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in PORTS]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            ports = {name: one.getsockname()[1] for name, one in zip(PORTS, sockets, strict=True)}
        self.home.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(ports))
        return ports

    @contextlib.contextmanager
    def running(self, timeout: float = 180) -> Iterator[Airflow]:
        """Start it, wait until it is healthy, and stop all its processes at the end.

        :raises RuntimeError: if it ends or is not healthy in time.
        """
        self.process = self.spawn("standalone", log="standalone.log")
        try:
            self._wait_until_healthy(timeout)
            yield self
        finally:
            stop_group(self.process)

    def _wait_until_healthy(self, timeout: float) -> None:
        assert self.process is not None
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"Airflow ended with code {self.process.returncode}; its output is in {self.log}")
            with contextlib.suppress(OSError, ValueError):
                health = json.loads(urllib.request.urlopen(f"{self.url}/api/v2/monitor/health", timeout=5).read())
                if all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor")):
                    self.log_in(*self.password)
                    return
            time.sleep(0.5)
        raise RuntimeError(f"Airflow was not healthy within {timeout:.0f} s; its output is in {self.log}")

    @property
    def password(self) -> tuple[str, str]:
        """The generated user and password."""
        found: dict[str, str] = json.loads((self.home / "simple_auth_manager_passwords.json.generated").read_text())
        return next(iter(found.items()))

    def spawn(self, *arguments: str, log: str) -> subprocess.Popen[bytes]:
        """Start ``airflow ...`` in a process group of its own, with its output in a file of this home."""
        with open(self.home / log, "ab") as out:
            return subprocess.Popen(
                ["airflow", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.home,
            )

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``airflow ...`` in this home."""
        command = ["airflow", *arguments]
        if arguments[0] == "mlops" and version("apache-airflow-core").startswith("3.1."):
            # That version reads no commands of providers.
            command = [sys.executable, "-m", "airflow_mlops", *arguments[1:]]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def stop_group(process: subprocess.Popen[bytes] | None) -> None:
    """End a process and everything in its group, gently, then by force."""
    if process is None:
        return
    # Airflow's parts take up to 15 seconds to end gently, which nobody needs of a home that is thrown away.
    for sign, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        end = time.monotonic() + patience
        while time.monotonic() < end and _group_lives(process.pid):
            time.sleep(0.1)
        if not _group_lives(process.pid):
            break
    process.wait(5)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
