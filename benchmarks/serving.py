"""What serving through the gateway costs, and what a switch and a canary do to those who ask.

Under a constant load of 50 requests a second for a minute: no request fails during a blue/green switch, and none during
a canary; and the p95 through the gateway is under 1.3 times that of MLflow's bare scoring server for the same model.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_mlops.core.serving.deploy import deploy_model
from airflow_mlops.core.serving.gateway import Settings
from airflow_mlops.core.serving.serve import serve
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri
from airflow_mlops.core.training.step import train_model

RATE, SECONDS = 50, 60
RATIO = 1.3
CLIENTS = 10
#: p95 is compared in blocks that take turns, so that whatever else the machine does meets both alike.
BLOCKS, BLOCK_SECONDS = 6, 10
#: A canary's steps fit into the minute.
CANARY = {"steps": [10, 50], "interval": "12s", "min_rows": 20, "max_latency_ratio": 10, "margin": 0.15}


class Load:
    """Requests at a constant rate: when each is sent does not depend on the answers to the others."""

    def __init__(self, port: int, path: str, body: bytes) -> None:
        self.port, self.path, self.body = port, path, body
        self.taken: list[float] = []
        self.failures: list[str] = []

    def run(self, seconds: float) -> Load:
        """Send for so long."""
        start = time.perf_counter() + 0.1
        count = int(RATE * seconds)
        threads = [threading.Thread(target=self._client, args=(n, start, count)) for n in range(CLIENTS)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        return self

    def _client(self, number: int, start: float, count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        for turn in range(number, count, CLIENTS):
            time.sleep(max(0.0, start + turn / RATE - time.perf_counter()))
            began = time.perf_counter()
            try:
                connection.request("POST", self.path, self.body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failures.append(f"status {answer.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(type(error).__name__)
                connection.close()
            self.taken.append(time.perf_counter() - began)

    @property
    def p95(self) -> float:
        """In milliseconds."""
        taken = sorted(self.taken)
        return 1000 * taken[-(-95 * len(taken) // 100) - 1]


def free_port() -> int:
    """Return a port that nobody listens at now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def under_load(load: Load, deploy: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Deploy while the load runs for a minute, and return the report."""
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.append(deploy()))
    starter = threading.Timer(5, thread.start)
    starter.start()
    load.run(SECONDS)
    starter.join()
    thread.join()
    return found[0]


def main() -> int:
    """Print the figures; 1 if one is not reached."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder))


def measure(root: Path) -> int:
    """Train two models, serve them, and ask."""
    import numpy as np
    import pandas as pd

    context = StepContext(store=LocalStore(root / "store"), tracking_uri=sqlite_uri(root / "mlflow.db"))
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(2000, 10)), columns=list("abcdefghij"))
    rows.assign(y=(rows["a"] > 0).astype(int)).to_csv(root / "rows.csv", index=False)
    (root / "bench_fit.py").write_text(
        "def fit(X, y, C=1.0):\n"
        "    from sklearn.linear_model import LogisticRegression\n"
        "    return LogisticRegression(C=C).fit(X, y)\n"
    )
    sys.path.insert(0, str(root))
    models = [
        train_model(
            dataclasses.replace(context, key=f"bench/{c}"),
            dataset=str(root / "rows.csv"),
            trainer="bench_fit:fit",
            target="y",
            hyperparameters={"C": c},
        )
        for c in (1.0, 0.1, 0.01)
    ]
    body = json.dumps({"dataframe_split": json.loads(rows.head(1).to_json(orient="split"))}).encode()
    port, bare_port, stop = free_port(), free_port(), threading.Event()
    owner = threading.Thread(
        target=serve, args=(context, root / "serving", Settings(bind=f"127.0.0.1:{port}")), kwargs={"stop": stop}
    )
    owner.start()
    bare = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--workers", "1"),
            *("--model-uri", str(next((root / "artifacts").rglob("MLmodel")).parent), "--port", str(bare_port)),
        ],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return judge(context, models, port, bare_port, body)
    finally:
        os.killpg(bare.pid, 15)
        bare.wait()
        stop.set()
        owner.join()


def judge(context: StepContext, models: list[dict[str, Any]], port: int, bare_port: int, body: bytes) -> int:
    """Deploy the three models one after another and print what was measured."""

    def deploy(number: int, **more: Any) -> dict[str, Any]:
        return deploy_model(
            dataclasses.replace(context, key=f"bench/deploy/{number}"),
            model=models[number],
            server="bench",
            checks=[{"kind": "offline"}],
            capture={"flush_seconds": 2},
            **more,
        )

    wait_for(lambda: context.store.exists("serving/reconciler.json"))
    assert deploy(0)["passed"]
    wait_for(lambda: answers(bare_port))
    direct, through = Load(bare_port, "/invocations", body), Load(port, "/bench/invocations", body)
    for one in (direct, through):  # warm
        Load(one.port, one.path, body).run(3)
    for _ in range(BLOCKS):
        direct.run(BLOCK_SECONDS)
        through.run(BLOCK_SECONDS)
    ratio = through.p95 / direct.p95
    print(
        f"p95 of one row at {RATE}/s: bare scoring server {direct.p95:.1f} ms, through the gateway {through.p95:.1f} ms"
    )
    print(f"ratio {ratio:.2f} (limit {RATIO}), failed {len(direct.failures)} and {len(through.failures)}")
    failed = int(ratio >= RATIO) + len(through.failures)
    for number, name, more in ((1, "blue/green", {}), (2, "canary", {"strategy": "canary", "canary": CANARY})):
        load = Load(port, "/bench/invocations", body)
        report = under_load(load, lambda number=number, more=more: deploy(number, **more))  # type: ignore[misc]
        print(
            f"{name} under {RATE}/s for {SECONDS} s: {len(load.taken)} requests, {len(load.failures)} failed "
            f"{sorted(set(load.failures)) or ''}, p95 {load.p95:.1f} ms; {report['summary']}"
        )
        failed += len(load.failures) + int(not report["passed"])
    return 1 if failed else 0


def answers(port: int) -> bool:
    """Return whether a scoring server is up."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 300) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
