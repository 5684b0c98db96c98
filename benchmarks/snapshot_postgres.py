"""What a snapshot of a query costs: 5 million rows x 10 columns of a Postgres that this program starts and stops.

``python benchmarks/snapshot_postgres.py [--rows N]``. Peak memory is the kernel's figure for a process of its own,
interpreter and libraries included; the server's is not in it. Exit code 1 if the target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from figures import Figure, report
from snapshot import peak_mb

from servers.postgres import start_postgres

ROWS, MAX_MB = 5_000_000, 500
TABLE = """
create unlogged table orders as select
    i as id, timestamptz '2026-01-01' + i * interval '1 second' as at, (i * 37 % 10000) / 100.0::float8 as total,
    (i % 97)::smallint as shop, i % 3 = 0 as paid, 'customer-' || i % 50000 as customer,
    (i % 1000)::numeric(10, 2) as discount, date '2026-01-01' + (i % 365)::int as due,
    case when i % 20 = 0 then null else random() end as score, (array['SE', 'NO', 'DK'])[1 + i % 3] as country
from generate_series(1, {rows}) i
"""


def run_one() -> None:
    """Be the process that is measured."""
    from airflow_mlops.core.steps import run_step

    with tempfile.TemporaryDirectory() as store:
        began = time.perf_counter()
        ref = run_step(
            {
                "step": "snapshot_data",
                "store": store,
                "args": {"sql": "select * from orders", "order_by": "id", "roles": {"time": "at"}},
            }
        )
        print(json.dumps({"seconds": time.perf_counter() - began, "mb": peak_mb(), "rows": ref["rows"]}))


def main() -> int:
    """Print the figures and whether they meet the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one()
        return 0
    server = start_postgres()
    try:
        server.execute(TABLE.format(rows=options.rows), "alter table orders add primary key (id)", "analyze orders")
        done = subprocess.run(
            [sys.executable, __file__, "--one"],
            env={**os.environ, "MLOPS_SQL_URL": server.url},
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"] == options.rows
    print(f"snapshot of a query on Postgres: {options.rows} rows x 10 columns")
    print(f"  {found['seconds']:.1f} s")
    return report(Figure("snapshot of a query, peak memory", found["mb"], MAX_MB, "MB"))


if __name__ == "__main__":
    sys.exit(main())
