"""`make bench`: print every figure that the project promises, each measured in this run on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = (
    *("imports", "parse", "logging_cost", "level1_overhead"),
    *("snapshot", "snapshot_postgres", "snapshot_s3", "validate_postgres"),
    *("runtime_overhead", "docker_overhead"),
    *("significance", "evaluation_cost"),
)


def main() -> int:
    """Run the benchmarks one after another, so that they do not disturb each other."""
    failed = []
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, HERE / f"{name}.py"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nnot reached: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
