"""What it costs to run a step in a container by the runtime, beyond the image's start and the step itself.

``python benchmarks/docker_overhead.py [--rounds N] [--image NAME]``. Each of the four heavy steps runs on 2,000 rows by
``runtime={"image": ...}`` and, in turn with it, as one would by hand: ``docker run --rm`` of the same image with the
core, the data and the store mounted. Both start the image, import the libraries and do the step, so what is left
between the two is the runtime's own cost. The figure is the median of the differences. The engine is the one of this
machine, or one that this program starts; without ``--image`` it makes the tests' image there. Exit code 1 if the target
is missed for any step.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from runtime_overhead import steps

from servers.docker import Engine, build_ml, remove, start_engine

PROVIDER = Path(__file__).resolve().parents[1] / "provider"
TARGET_SECONDS = 3.0


def seconds_by_hand(engine: Engine, image: str, spec: dict[str, Any], folder: Path) -> float:
    """Return the seconds of a step in a container that one starts oneself."""
    (folder / "spec.json").write_text(json.dumps(spec))
    options = ["--volume", f"{folder}:{folder}", "--volume", f"{PROVIDER}:{PROVIDER}:ro"]
    options += ["--env", f"PYTHONPATH={PROVIDER}:{folder}", "--env", "MLFLOW_DISABLE_TELEMETRY=true"]
    command = ["python3", "-m", "airflow_mlops.core", "--spec", "spec.json", "--report", "report.json"]
    started = time.perf_counter()
    engine.command("run", "--rm", "--workdir", str(folder), *options, image, *command)
    return time.perf_counter() - started


def seconds_by_runtime(image: str, spec: dict[str, Any], folder: Path) -> float:
    """Return the seconds of a step in a container, from the call to the result."""
    from airflow_mlops.runtimes.base import Job
    from airflow_mlops.runtimes.docker import DockerRuntime

    started = time.perf_counter()
    DockerRuntime({"image": image}).run(Job(spec, {}, (str(folder),)), logging.getLogger("benchmark"))
    return time.perf_counter() - started


def measure(engine: Engine, image: str, rounds: int) -> bool:
    """Print a line for each step, and return whether all reach the target."""
    met = True
    print(f"{'':<16}{'by hand':>12}{'runtime':>12}{'beyond':>12}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for spec in steps(folder, sys.executable):
            pairs = []
            for number in range(rounds + 1):
                hand, there = seconds_by_hand(engine, image, spec, folder), seconds_by_runtime(image, spec, folder)
                if number:  # the first round fills the disk's cache
                    pairs.append((hand, there, there - hand))
            figures = [statistics.median(column) for column in zip(*pairs, strict=True)]
            met &= figures[2] < TARGET_SECONDS
            print(f"{spec['step']:<16}" + "".join(f"{one:>10.2f} s" for one in figures), flush=True)
    return met


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image")
    options = parser.parse_args()
    logging.disable()
    engine = start_engine()
    os.environ["DOCKER_HOST"] = engine.url
    try:
        met = measure(engine, options.image or build_ml(engine), options.rounds)
    finally:
        if engine.own:
            engine.stop()
            remove(engine.folder)
    print(f"target: under {TARGET_SECONDS} s beyond a container started by hand: {'reached' if met else 'NOT REACHED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
