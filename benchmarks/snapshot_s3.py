"""What a snapshot from S3 into a store on S3 costs: 5 million rows x 30 columns of Parquet, on moto's server.

``python benchmarks/snapshot_s3.py [--rows N]``. Peak memory is the kernel's figure for a process of its own,
interpreter and libraries included; the server, which this program starts and stops, is not in it. Exit code 1 if the
target is missed. The seconds are mostly the server's, which is no fast one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from figures import Figure, report
from snapshot import COLUMNS, ROWS, make, peak_mb

from servers.s3 import start_s3

MAX_MB = 500


def run_one(source: str, store: str) -> None:
    """Be the process that is measured."""
    from airflow_mlops.core.steps import run_step

    began = time.perf_counter()
    ref = run_step({"step": "snapshot_data", "store": store, "args": {"source": source, "roles": {"time": "at"}}})
    print(json.dumps({"seconds": time.perf_counter() - began, "mb": peak_mb(), "rows": ref["rows"]}))


def main() -> int:
    """Print the figures and whether they meet the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("places", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.places:
        run_one(*options.places)
        return 0
    from airflow_mlops.core.s3 import SOURCE, STORE

    server = start_s3()
    try:
        source, store = f"s3://{server.bucket()}/source.parquet", f"s3://{server.bucket()}/store"
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "source.parquet"
            make(path, options.rows)
            size = path.stat().st_size
            bucket, _, key = source.removeprefix("s3://").partition("/")
            server.client.upload_file(str(path), bucket, key)
        done = subprocess.run(
            [sys.executable, __file__, source, store],
            env={
                **os.environ,
                SOURCE: server.access.to_json(),
                STORE: replace(server.access, uri=store).to_json(),
            },
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        server.stop()
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"] == options.rows
    print(f"snapshot from S3 to S3: {options.rows} rows x {COLUMNS} columns, {size / 1e6:.0f} MB of Parquet")
    print(f"  {found['seconds']:.1f} s")
    return report(Figure("snapshot from S3 to S3, peak memory", found["mb"], MAX_MB, "MB"))


if __name__ == "__main__":
    sys.exit(main())
