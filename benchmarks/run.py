"""`make bench`: print every figure that the project promises, each measured in this run on this machine.

``python benchmarks/run.py [NAME ...]`` runs some of them. What each measures stands at its top. On a machine that does
other work seconds mean little: the load is printed, and ratios are of two sides that ran in turn.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import RESULTS, Figure

HERE = Path(__file__).parent
BENCHMARKS = (
    *("imports", "parse", "logging_cost", "level1_overhead"),
    *("snapshot", "snapshot_postgres", "snapshot_s3", "validate_postgres"),
    *("runtime_overhead", "docker_overhead"),
    *("significance", "probation", "evaluation_cost", "drift", "serving", "batch_predict"),
)


def run(name: str) -> list[tuple[str, str, str, str]]:
    """Run a benchmark and return a row for each of its figures."""
    print(f"\n== {name}", flush=True)
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as results:
        environment = {**os.environ, RESULTS: results.name}
        code = subprocess.run([sys.executable, HERE / f"{name}.py"], env=environment, check=False).returncode
        figures = [Figure(**json.loads(line)) for line in results]
    rows = [
        (figure.what, f"{figure.value:.3g} {figure.unit}", f"{figure.limit:g} {figure.unit}", figure.verdict)
        for figure in figures
    ]
    if code and all(figure.reached for figure in figures):
        rows.append((name, "–", "–", f"FAILED with code {code}"))
    return rows or [(name, "see above", "see above", "reached")]


def main() -> int:
    """Run the benchmarks one after another, so that they do not disturb each other, and print the table."""
    busy = os.getloadavg()[0]
    rows = [row for name in sys.argv[1:] or BENCHMARKS for row in run(name)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"\nPython {platform.python_version()}, {cores} cores, load {busy:.1f} before\n")
    heads = ("what", "measured", "limit", "")
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    for row in (heads, tuple("─" * width for width in widths), *rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    missed = [row for row in rows if row[-1] != "reached"]
    print(f"\n{len(rows) - len(missed)} of {len(rows)} reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
