"""What a snapshot costs: 5 million rows x 30 columns of Parquet against a plain copy with pyarrow.

``python benchmarks/snapshot.py [--rows N] [--rounds N]``. Each measurement runs in a process of its own; peak memory
is the kernel's figure for that process, interpreter and libraries included. The plain copy streams the same file
through ``ParquetFile.iter_batches`` and ``ParquetWriter`` at the same compression, batch and row group size. Exit
code 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure, report

ROWS, COLUMNS = 5_000_000, 30
#: Rows of a row group of the source: what pyarrow writes by default.
GROUP = 1 << 20
MAX_RATIO, MAX_MB = 2.5, 500


def make(path: Path, rows: int) -> None:
    """Write the source: 18 doubles, 6 integers, 3 texts, a flag, a timestamp and a key, some with nulls."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    writer = None
    words = np.array([f"word-{i}" for i in range(500)])
    for start in range(0, rows, GROUP):
        n = min(GROUP, rows - start)
        columns = {f"f{i}": np.round(rng.normal(size=n), 3 if i % 2 else 12) for i in range(18)}
        columns |= {f"i{i}": rng.integers(0, 10 ** (i + 1), n) for i in range(6)}
        columns |= {f"s{i}": words[rng.integers(0, 500, n)] for i in range(3)}
        columns["flag"] = rng.random(n) < 0.3
        columns["at"] = (np.datetime64("2013-01-01", "us") + np.arange(start, start + n)).astype("datetime64[us]")
        columns["key"] = np.arange(start, start + n)
        table = pa.table(
            {
                name: pa.array(v, mask=rng.random(n) < 0.05 if name in ("f1", "f2", "i1", "s1") else None)
                for name, v in columns.items()
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=GROUP)
    if writer:
        writer.close()


def plain_copy(source: str, target: Path) -> None:
    """Copy with pyarrow alone, in a stream."""
    import pyarrow.parquet as pq

    from airflow_mlops.core.data import publishing

    with (
        pq.ParquetFile(source) as file,
        pq.ParquetWriter(
            target / "copy.parquet",
            file.schema_arrow,
            compression=publishing.COMPRESSION,
            compression_level=publishing.COMPRESSION_LEVEL,
        ) as writer,
    ):
        for batch in file.iter_batches(batch_size=publishing.GROUP_ROWS):
            writer.write_batch(batch)


def plain_table_copy(source: str, target: Path) -> None:
    """Copy with pyarrow alone, the whole table in memory."""
    import pyarrow.parquet as pq

    from airflow_mlops.core.data import publishing

    pq.write_table(
        pq.read_table(source),
        target / "copy.parquet",
        compression=publishing.COMPRESSION,
        compression_level=publishing.COMPRESSION_LEVEL,
        row_group_size=publishing.GROUP_ROWS,
    )


def snapshot(source: str, target: Path) -> None:
    """Take a snapshot, as the operator does."""
    from airflow_mlops.core.steps import run_step

    run_step(
        {"step": "snapshot_data", "store": str(target / "store"), "args": {"source": source, "roles": {"time": "at"}}}
    )


WAYS = {"copy": plain_copy, "copy in memory": plain_table_copy, "snapshot": snapshot}


def measure(way: str, source: Path) -> dict[str, float]:
    """Run one way in a new process: wall seconds without imports, CPU seconds, peak megabytes."""
    done = subprocess.run([sys.executable, __file__, "--way", way, str(source)], check=True, capture_output=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_one(way: str, source: str) -> None:
    """Be the process that is measured."""
    import pyarrow.parquet

    import airflow_mlops.core.data.snapshot  # noqa: F401

    del pyarrow
    with tempfile.TemporaryDirectory(dir=Path(source).parent) as target:
        began = time.perf_counter()
        WAYS[way](source, Path(target))
        seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "mb": peak_mb()}))


def peak_mb() -> float:
    """Return the most memory this process has had resident.

    Linux keeps ``ru_maxrss`` across exec, so a child would be charged for its parent: take the figure of this program.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> int:
    """Print the figures and whether they meet the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("source", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run_one(options.way, options.source)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.parquet"
        make(source, options.rows)
        print(f"snapshot: {options.rows} rows x {COLUMNS} columns, {source.stat().st_size / 1e6:.0f} MB of Parquet")
        rounds = [{way: measure(way, source) for way in WAYS} for _ in range(options.rounds)]
    # The best of the rounds: what else runs on the machine only adds.
    best = {way: min(r[way]["seconds"] for r in rounds) for way in WAYS}
    cpu = {way: min(r[way]["cpu"] for r in rounds) for way in WAYS}
    peak = {way: max(r[way]["mb"] for r in rounds) for way in WAYS}
    for way in WAYS:
        print(f"  {way:15} {best[way]:6.2f} s  {cpu[way]:6.2f} CPU s  {peak[way]:6.0f} MB peak")
    ratio = best["snapshot"] / best["copy"]
    return report(
        Figure(f"snapshot of {options.rows:,} rows, against a copy", ratio, MAX_RATIO, "times"),
        Figure("its peak memory", peak["snapshot"], MAX_MB, "MB"),
    )


if __name__ == "__main__":
    sys.exit(main())
