"""An Airflow whose parts are processes of their own, so that one of them can be killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from airflow_home import Airflow  # noqa: E402

COMMANDS = {
    "api": ("api-server", "--apps", "all"),
    "processor": ("dag-processor",),
    "scheduler": ("scheduler",),
    "triggerer": ("triggerer",),
}
#: What dies is noticed within seconds. The documentation says what production should have.
NOTICE = {
    "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "SCHEDULER__JOB_HEARTBEAT_SEC": "1",
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
}
PATIENCE = 600.0


class Parts(Airflow):
    """Airflow as four processes.

    :param home: its home, with a migrated database.
    :param dags: its dags folder.
    """

    def __init__(self, home: Path, dags: Path) -> None:
        super().__init__(home, dags)
        self.running_parts: dict[str, subprocess.Popen[bytes]] = {}
        self.killed: list[subprocess.Popen[bytes]] = []
        (home / "config").mkdir(parents=True, exist_ok=True)
        hooks = (Path(__file__).parent / "hooks.py").read_text()
        (home / "config" / "airflow_local_settings.py").write_text(hooks)
        self.environment.update(
            {
                **{f"AIRFLOW__{name}": value for name, value in NOTICE.items()},
                # Each part would make up its own.
                "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test alone, and long enough",
                "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
                "AIRFLOW__CORE__PARALLELISM": "3",
                "AIRFLOW_MLOPS_LEASE_SECONDS": "2",
                "AIRFLOW_MLOPS_ALERT_CLAIM_SECONDS": "2",
            }
        )

    @contextlib.contextmanager
    def running(self, timeout: float = PATIENCE) -> Iterator[Parts]:
        """Start all parts, and stop at the end whatever lives of them."""
        try:
            for part in COMMANDS:
                self.start(part)
            self.process = self.running_parts["api"]
            self._wait_until_healthy(timeout)
            self.log_in(*self.password)
            yield self
        finally:
            for process in [*self.running_parts.values(), *self.killed]:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(60)
            self.running_parts.clear()
            for pid in self.leftovers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _wait_until_healthy(self, timeout: float) -> None:
        def healthy() -> bool:
            states = self.rows("select job_type, latest_heartbeat from job where state = 'running'")
            return {kind for kind, _ in states} >= {"SchedulerJob", "TriggererJob"} and self._answers()

        self.until(healthy, "Airflow is up", timeout)

    def _answers(self) -> bool:
        import urllib.request

        try:
            return bool(urllib.request.urlopen(f"{self.url}/api/v2/version", timeout=5).read())
        except OSError:
            return False

    def start(self, part: str) -> None:
        """Start a part, with its output in a file of its own."""
        self.running_parts[part] = self.spawn(*COMMANDS[part], log=f"{part}.log")

    def kill(self, part: str, *, group: bool = False) -> None:
        """Kill a part by SIGKILL: its process alone, whose children live on, or its whole group."""
        process = self.running_parts.pop(part)
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait(60)
        self.killed.append(process)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read Airflow's database."""
        uri = f"file:{self.home}/airflow.db?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=60)) as database:
            return database.execute(sql, values).fetchall()

    def until(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        """Wait until something holds, and return it.

        :raises AssertionError: with the state of the runs, if it does not in time, or if a part ended by itself.
        """
        end = time.monotonic() + patience
        while True:
            try:
                found = condition()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                found = None
            if found:
                return found
            for part, process in self.running_parts.items():
                assert process.poll() is None, f"{part} ended with {process.returncode}:\n{self.tail(part)}"
            assert time.monotonic() < end, f"not within {patience:.0f} s: {what}\n{self.told()}"
            time.sleep(0.1)

    def tail(self, part: str) -> str:
        """Return the end of a part's output."""
        return (self.home / f"{part}.log").read_text(errors="replace")[-4000:]

    def told(self) -> str:
        """Return the state of all runs and tasks, for a message."""
        tasks = self.rows(
            "select dag_id, run_id, task_id, state, try_number from task_instance where state is null or state not in "
            "('success', 'skipped') order by dag_id, run_id, task_id"
        )
        runs = self.rows("select dag_id, run_id, state from dag_run order by id")
        return "\n".join(map(str, [*runs, *tasks]))

    def arm(self, dag: str, task: str, point: str) -> Path:
        """Have the next try of a task hold at a point; return the file that will say that it does."""
        file = self.held(dag, task)
        file.parent.mkdir(exist_ok=True)
        whole = file.with_suffix(".tmp")
        whole.write_text(json.dumps({"point": point, "file": str(file)}))
        whole.rename(file.with_suffix(".armed"))
        return file

    def held(self, dag: str, task: str) -> Path:
        """Return the file that says that a task holds."""
        return self.home / "faults" / f"{dag}.{task}.held"

    def leftovers(self) -> list[int]:
        """Return the processes that work in this home and are no part that runs, with their children."""
        mine = {process.pid for process in self.running_parts.values()}
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes().split(b"\0")
                if f"AIRFLOW_HOME={self.home}".encode() in environment:
                    group = os.getpgid(int(entry.name))
                    if group not in mine:
                        found.append(int(entry.name))
        return found
