"""What pushed-down validation costs: 1 million rows x 24 expectations in Postgres, against bare Great Expectations.

``python benchmarks/validate_postgres.py [--rows N] [--rounds N]``. Bare is a table asset and ``Batch.validate`` with
``BOOLEAN_ONLY``, as its documentation has it. Each measurement runs in a process of its own, in turn, on a Postgres
that this program starts and stops; time is without imports, peak memory with them. All 24 hold, so nothing has to be
asked twice; a third run has three that fail. Exit code 1 if a target is missed.
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
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from figures import Figure, report
from snapshot import peak_mb

from servers.postgres import start_postgres

ROWS, MAX_RATIO, MAX_MB = 1_000_000, 1.2, 300
TABLE = """
create unlogged table orders as select
    i as id, timestamptz '2026-01-01' + i * interval '1 second' as at, (i * 37 % 10000) / 100.0::float8 as total,
    (i % 97)::int as shop, 'customer-' || i % 50000 as customer, (i % 1000)::double precision as discount,
    case when i % 20 = 0 then null else random() end as score, (array['SE', 'NO', 'DK'])[1 + i % 3] as country
from generate_series(1, {rows}) i
"""


def suite(rows: int, failing: bool) -> list[dict[str, Any]]:
    """Return 24 expectations; of a failing suite three do not hold."""
    columns = ["id", "at", "total", "shop", "customer", "discount", "country"]
    entries: list[tuple[str, dict[str, Any]]] = [
        *(("expect_column_values_to_not_be_null", {"column": column}) for column in columns),
        ("expect_column_values_to_not_be_null", {"column": "score", "mostly": 0.96 if failing else 0.9}),
        ("expect_column_values_to_be_between", {"column": "total", "min_value": 0, "max_value": 100}),
        ("expect_column_values_to_be_between", {"column": "shop", "min_value": 0, "max_value": 50 if failing else 96}),
        ("expect_column_values_to_be_between", {"column": "discount", "min_value": 0, "max_value": 999}),
        ("expect_column_values_to_be_between", {"column": "score", "min_value": 0, "max_value": 1}),
        ("expect_column_values_to_be_in_set", {"column": "country", "value_set": ["SE", "NO", "DK"]}),
        ("expect_column_values_to_match_regex", {"column": "customer", "regex": "^customer-[0-9]+$"}),
        ("expect_column_value_lengths_to_be_between", {"column": "customer", "max_value": 12 if failing else 20}),
        ("expect_column_values_to_be_unique", {"column": "id"}),
        ("expect_column_mean_to_be_between", {"column": "total", "min_value": 40, "max_value": 60}),
        ("expect_column_mean_to_be_between", {"column": "score", "min_value": 0.4, "max_value": 0.6}),
        ("expect_column_stdev_to_be_between", {"column": "total", "min_value": 1, "max_value": 100}),
        ("expect_column_max_to_be_between", {"column": "shop", "max_value": 96}),
        ("expect_column_min_to_be_between", {"column": "shop", "min_value": 0}),
        ("expect_column_sum_to_be_between", {"column": "discount", "min_value": 1}),
        ("expect_column_unique_value_count_to_be_between", {"column": "country", "min_value": 1, "max_value": 3}),
        ("expect_table_row_count_to_be_between", {"min_value": rows, "max_value": rows}),
    ]
    assert len(entries) == 24
    return [{"type": kind, "kwargs": kwargs} for kind, kwargs in entries]


def bare(expectations: list[dict[str, Any]]) -> float:
    """Return the seconds that Great Expectations takes by itself."""
    import great_expectations as gx

    from airflow_mlops.core.validation.expectations import read_expectations
    from airflow_mlops.core.validation.library import quiet

    read = read_expectations(expectations)
    with quiet():
        began = time.perf_counter()
        context = gx.get_context(mode="ephemeral")
        source = context.data_sources.add_postgres("warehouse", connection_string=os.environ["MLOPS_SQL_URL"])
        asset = source.add_table_asset("orders", table_name="orders")
        batch = asset.add_batch_definition_whole_table("whole").get_batch()
        made = gx.ExpectationSuite(name="orders", expectations=[one.built() for one in read])
        result = batch.validate(made, result_format={"result_format": "BOOLEAN_ONLY"})
        seconds = time.perf_counter() - began
    assert len(result.results) == len(expectations)
    return seconds


def pushed(expectations: list[dict[str, Any]]) -> float:
    """Return the seconds that the step takes: connecting, types, verdicts, counts and report."""
    import great_expectations  # noqa: F401
    import jinja2  # noqa: F401
    import pyarrow  # noqa: F401

    from airflow_mlops.core.steps import run_step
    from airflow_mlops.core.validation.expectations import read_expectations

    read_expectations(expectations)
    with tempfile.TemporaryDirectory() as store:
        began = time.perf_counter()
        run_step({"step": "validate_data", "store": store, "args": {"table": "orders", "expectations": expectations}})
        return time.perf_counter() - began


WAYS = {"bare": bare, "pushed": pushed}


def measure(way: str, rows: int, failing: bool, url: str) -> dict[str, float]:
    """Run one way in a new process."""
    done = subprocess.run(
        [sys.executable, __file__, "--way", way, "--rows", str(rows), *(["--failing"] if failing else [])],
        env={**os.environ, "MLOPS_SQL_URL": url, "GX_ANALYTICS_ENABLED": "false"},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Print the figures and whether they meet the targets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--failing", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        seconds = WAYS[options.way](suite(options.rows, options.failing))
        print(json.dumps({"seconds": seconds, "mb": peak_mb()}))
        return 0
    server = start_postgres()
    try:
        server.execute(TABLE.format(rows=options.rows), "alter table orders add primary key (id)", "analyze orders")
        ways = (("bare", False), ("pushed", False), ("bare", True), ("pushed", True))
        rounds = [
            {way: measure(way[0], options.rows, way[1], server.url) for way in ways} for _ in range(options.rounds)
        ]
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
    best = {way: min(r[way]["seconds"] for r in rounds) for way in ways}
    peak = {way: max(r[way]["mb"] for r in rounds) for way in ways}
    print(f"validation in Postgres: {options.rows} rows x 24 expectations")
    for way, failing in ways:
        print(
            f"  {way:7} {'3 fail' if failing else 'all hold':9} {best[way, failing]:6.2f} s "
            f"{peak[way, failing]:5.0f} MB"
        )
    ratio, most = best["pushed", False] / best["bare", False], max(peak["pushed", False], peak["pushed", True])
    return report(
        Figure("24 expectations in Postgres, against bare GX", ratio, MAX_RATIO, "times"),
        Figure("the worker's memory", most, MAX_MB, "MB"),
    )


if __name__ == "__main__":
    sys.exit(main())
