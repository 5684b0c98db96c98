"""What it costs to run a step in a container, beyond the start of the image and the step itself.

``python benchmarks/docker_overhead.py [--rounds N] [--image NAME]``. Each of the four heavy steps runs on 2,000 rows by
``runtime={"image": ...}`` and, in turn with it, in process in a fresh interpreter of the same libraries; the start of
the image is ``docker run --rm IMAGE python3 -c ''``. The figure is the median of the first less the two others. The
engine is the one of this machine, or one that this program starts; without ``--image`` it makes the tests' image there.
Exit code 1 if the target is missed for any step.
"""

from __future__ import annotations

import argparse
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

from runtime_overhead import seconds_in_process, steps

from servers.docker import Engine, build_ml, remove, start_engine

TARGET_SECONDS = 3.0


def seconds_of_start(engine: Engine, image: str) -> float:
    """Return the seconds of a container that does nothing."""
    started = time.perf_counter()
    engine.command("run", "--rm", image, "python3", "-c", "")
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
    print(f"{'':<16}{'image start':>12}{'in process':>12}{'runtime':>12}{'beyond':>12}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for spec in steps(folder, sys.executable):
            lines = []
            for number in range(rounds + 1):
                start = seconds_of_start(engine, image)
                here, _ = seconds_in_process(spec, folder)
                there = seconds_by_runtime(image, spec, folder)
                if number:  # the first round fills the disk's cache
                    lines.append((start, here, there, there - start - here))
            figures = [statistics.median(column) for column in zip(*lines, strict=True)]
            met &= figures[3] < TARGET_SECONDS
            print(f"{spec['step']:<16}" + "".join(f"{one:>10.2f} s" for one in figures), flush=True)
    return met


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image")
    options = parser.parse_args()
    engine = start_engine()
    os.environ["DOCKER_HOST"] = engine.url
    try:
        met = measure(engine, options.image or build_ml(engine), options.rounds)
    finally:
        if engine.own:
            engine.stop()
            remove(engine.folder)
    print(f"target: under {TARGET_SECONDS} s beyond start and step: {'reached' if met else 'NOT REACHED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
