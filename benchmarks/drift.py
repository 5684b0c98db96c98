"""What a comparison of two datasets costs, beside Evidently, a bare Arrow scan of the files, and against a profile.

30 columns a side: 20 numbers of many shapes, 10 categories. Ratios are of two sides that ran in turn. Each run is a
process of its own, so that its peak memory is its own. ``--rows 50`` adds the growth up to 50 million rows a side, in
files of 5 million that are the same one on the disk. ``--no-evidently`` leaves out the slow side.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from figures import Figure, report

NUMBERS, CATEGORIES = 20, 10

MAKE = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
path, rows, seed, numbers, categories = sys.argv[1], *map(int, sys.argv[2:])
random = np.random.default_rng(seed)
fields = [(f"n{i}", pa.float64()) for i in range(numbers)] + [(f"c{i}", pa.string()) for i in range(categories)]
schema = pa.schema(fields)
labels = [np.array([f"value {v}" for v in range(4 + 12 * i)]) for i in range(categories)]
with pq.ParquetWriter(path, schema) as writer:
    for start in range(0, rows, 250_000):
        n = min(250_000, rows - start)
        columns = []
        for i in range(numbers):
            x = random.normal(0.02 * seed, 1, n)
            columns.append((x, np.exp(x), x * 10.0**i + 5, np.round(x * 40), random.standard_cauchy(n))[i % 5])
        for i in range(categories):
            columns.append(pa.DictionaryArray.from_arrays(
                random.integers(0, len(labels[i]), n).astype("int32"), labels[i]).cast(pa.string()))
        writer.write_table(pa.table(columns, schema=schema))
"""
TIMED = """
import json, resource, sys, time
began = time.perf_counter()
{body}
took = time.perf_counter() - began
print(json.dumps({{"seconds": took, "own": own if "own" in dir() else took,
                  "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                  "more": more if "more" in dir() else None}}))
"""
SCAN = """
import pyarrow.parquet as pq
start = time.perf_counter()
for path in sys.argv[1:3]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=65536):
            pass
own = time.perf_counter() - start
"""
OURS = """
from airflow_mlops.core.drift.step import detect_drift
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
import pyarrow.parquet, numpy
context = StepContext(store=LocalStore(sys.argv[3]))
start = time.perf_counter()
more = detect_drift(context, current=sys.argv[2], reference=sys.argv[1])["metrics"]
own = time.perf_counter() - start
"""
PROFILE = """
import dataclasses
from airflow_mlops.core.data.dataset import resolve
from airflow_mlops.core.drift.binding import store_profile
from airflow_mlops.core.drift.columns import plan
from airflow_mlops.core.drift.compare import Side, compare
from airflow_mlops.core.drift.profile import Profile
from airflow_mlops.core.drift.reading import open_dataset
from airflow_mlops.core.drift.summarize import summarize
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.steps import StepContext
import pyarrow.parquet, numpy
context = StepContext(store=LocalStore(sys.argv[3]))
key = store_profile(context, sys.argv[1])
more = context.store.stat(key).size / 1e6
start = time.perf_counter()
profile = Profile.from_dict(context.store.get_json(key))
now = open_dataset(context.store, resolve(context.store, sys.argv[2]))
planned = plan(profile.schema, now.schema, asked=None, roles={})
current = Side(now.rows, summarize(now, {one.name: one.kind for one in planned if one.kind}), now)
compare(planned, Side(profile.rows, profile.columns), current)
own = time.perf_counter() - start
"""
EVIDENTLY = """
import warnings; warnings.simplefilter("ignore")
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
start = time.perf_counter()
frames = [pd.read_parquet(path) for path in sys.argv[1:3]]
names = list(frames[0].columns)
numbers, categories = ([n for n in names if n[0] == kind] for kind in "nc")
definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
reference, current = (Dataset.from_pandas(one, data_definition=definition) for one in frames)
Report([DataDriftPreset()]).run(current, reference).dict()
own = time.perf_counter() - start
"""


def run(code: str, *arguments: str) -> Any:
    """Run one side in a process of its own and return what it printed last."""
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(body=code), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def in_turn(first: str, second: str, *arguments: str, times: int = 3) -> tuple[Any, Any]:
    """Return the fastest of some runs of two sides that alternate."""
    runs = [(run(first, *arguments), run(second, *arguments)) for _ in range(times)]
    return tuple(min((one[side] for one in runs), key=lambda found: found["own"]) for side in (0, 1))  # type: ignore[return-value]


def main() -> int:
    """Measure all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=5, help="millions of rows a side to go up to")
    parser.add_argument("--no-evidently", action="store_true")
    asked = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as folder:

        def files(rows: int) -> list[str]:
            paths = [str(Path(folder) / f"{side}-{rows}.parquet") for side in (1, 2)]
            for side, path in zip((1, 2), paths, strict=True):
                if not Path(path).exists():
                    sizes = map(str, (rows, side, NUMBERS, CATEGORIES))
                    subprocess.run([sys.executable, "-c", MAKE, path, *sizes], check=True)
            return paths

        def folders(millions: int) -> list[str]:
            """Return folders of files of 5 million rows, which are one file on the disk."""
            found = []
            for side, path in zip((1, 2), files(5_000_000), strict=True):
                many = Path(folder) / f"{side}-{millions}-million"
                many.mkdir()
                for number in range(millions // 5):
                    (many / f"{number}.parquet").hardlink_to(path)
                found.append(str(many))
            return found

        store = str(Path(folder) / "store")
        small = run(OURS, *files(10_000), store)
        figures.append(Figure("10,000 rows a side, imports included", small["seconds"], 1.0, "s"))
        for rows, limit in ((1_000_000, 4.0), (5_000_000, 2.5)):
            ours, scan = in_turn(OURS, SCAN, *files(rows), store)
            print(f"{rows:,} rows: {ours['own']:.2f} s in {ours['mb']:.0f} MB, scan {scan['own']:.2f} s", flush=True)
            figures.append(Figure(f"{rows:,} rows a side, bare Arrow scans", ours["own"] / scan["own"], limit, "times"))
            if rows == 5_000_000:
                figures.append(Figure("5,000,000 rows a side, peak memory", ours["mb"], 350, "MB"))
            else:
                two, one = in_turn(OURS, PROFILE, *files(rows), store)
                figures.append(Figure("against a profile, of two-sided time", one["own"] / two["own"], 0.6, "times"))
                figures.append(Figure("profile of 30 columns", one["more"], 1.0, "MB"))
                if not asked.no_evidently:
                    theirs = run(EVIDENTLY, *files(rows))
                    print(f"Evidently: {theirs['own']:.1f} s in {theirs['mb']:.0f} MB", flush=True)
                    share = ours["own"] / theirs["own"]
                    figures.append(Figure("1,000,000 rows, share of the time of Evidently", share, 1 / 40, "times"))
        before = None
        for rows in (1, 5, 10, 25, 50):
            if rows > max(asked.rows, 5):
                break
            found = run(OURS, *(files(rows * 1_000_000) if rows <= 5 else folders(rows)), store)
            per = found["own"] / rows
            print(f"{rows} million rows: {found['own']:.1f} s, {per:.2f} s a million, {found['mb']:.0f} MB", flush=True)
            before = before or found
            if rows > 5:
                title = f"{rows} million rows, time a row beside 1 million"
                figures.append(Figure(title, per / before["own"], 1.3, "times"))
                figures.append(Figure(f"{rows} million rows, peak memory", found["mb"], 350, "MB"))
    return report(*figures)


if __name__ == "__main__":
    sys.exit(main())
