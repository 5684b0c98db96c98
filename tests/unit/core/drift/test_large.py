"""Columns too large to keep: bounds that hold, verdicts that are settled, summaries that merge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.data.dataset import resolve
from airflow_mlops.core.drift import exact
from airflow_mlops.core.drift.bounds import bounded_score
from airflow_mlops.core.drift.choice import TESTS
from airflow_mlops.core.drift.columns import Column
from airflow_mlops.core.drift.compare import Side, compare
from airflow_mlops.core.drift.grid import grid_for
from airflow_mlops.core.drift.numeric import NumericSummary
from airflow_mlops.core.drift.reading import Opened, open_dataset
from airflow_mlops.core.drift.scores import exact_score
from airflow_mlops.core.drift.summarize import summarize
from airflow_mlops.core.store import LocalStore
from drift_shapes import NUMERIC

LARGE = {
    name: make
    for name, make in NUMERIC.items()
    if "values" not in name and "constant" not in name and "binary" not in name
}


def summary(values: Any, keep: int) -> NumericSummary:
    found = NumericSummary(keep=keep)
    for part in np.array_split(np.asarray(values, dtype="float64"), 3):
        if len(part):
            found.add(pa.array(part, from_pandas=True))
    return found


@pytest.mark.parametrize("shape", LARGE)
def test_bounds_hold(shape: str) -> None:
    """Whatever the shape, the exact score lies within the bounds of that from counts on a grid."""
    reference, current = LARGE[shape](np.random.default_rng(5))
    kept = [summary(side, 10**9) for side in (reference, current)]
    coarse = [summary(side, 3) for side in (reference, current)]
    for test in TESTS.values():
        if "numeric" not in test.kinds or all(one.table is not None for one in coarse):
            continue
        if shape == "subnormal" and test.binned:
            continue
        if test.name == "hellinger" or not test.binned or kept[0].distinct > 20:
            true = exact_score(test, *kept)
            for pair in (coarse, (kept[0], coarse[1]), (coarse[0], kept[1])):
                if all(one.table is not None for one in pair):
                    continue
                if test.name == "ks" and max(one.count for one in pair) <= 10_000:
                    continue  # the p-value of few rows is another one
                score = bounded_score(test, *pair)
                assert score.low - 1e-12 <= true <= score.high + 1e-12, (test.name, score, true)


@pytest.mark.parametrize("shape", LARGE)
def test_merged_is_as_good_as_one(shape: str) -> None:
    values = np.asarray(LARGE[shape](np.random.default_rng(5))[0], dtype="float64")
    finite = values[np.isfinite(values)]
    parts = np.array_split(values, 4)
    for keep in (3, 10**9):
        merged = summary(parts[0], keep)
        for part in parts[1:]:
            merged = merged.merge(summary(part, keep))
        assert (merged.rows, merged.count) == (len(values), len(finite))
        assert merged.mean == pytest.approx(finite.mean(), rel=1e-9, abs=1e-300)
        assert merged.std == pytest.approx(finite.std(), rel=1e-6, abs=1e-300)
        points = np.sort(finite)[:: max(len(finite) // 50, 1)]
        least, most = merged.below(points)
        true = np.searchsorted(np.sort(finite), points, side="left")
        assert (least <= true).all()
        assert (true <= most).all()


def test_grids_chosen_apart_share_edges() -> None:
    random = np.random.default_rng(1)
    one, other = grid_for(random.normal(size=9999)), grid_for(random.normal(3, 1.5, size=9999))
    shared = np.intersect1d(one.edges(), other.edges())
    inside = shared[(shared > -2) & (shared < 2)]
    assert len(inside) > 1000


@pytest.fixture
def sides(tmp_path: Path) -> Any:
    def make(columns: tuple[dict[str, Any], dict[str, Any]]) -> list[Side]:
        store = LocalStore(tmp_path / "store")
        found = []
        for name, side in zip("rc", columns, strict=True):
            pq.write_table(pa.table(side), tmp_path / f"{name}.parquet", row_group_size=50_000)
            opened: Opened = open_dataset(store, resolve(store, str(tmp_path / f"{name}.parquet")))
            found.append(Side(opened.rows, summarize(opened, dict.fromkeys(side, "numeric")), opened))
        return found

    return make


@pytest.mark.parametrize("at_once", [exact.VALUES_AT_ONCE, 20_000])
def test_verdicts_within_the_bound_are_settled(sides: Any, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """With a threshold that the estimate cannot tell from the score, the score is the exact one."""
    monkeypatch.setattr(exact, "VALUES_AT_ONCE", at_once)
    random = np.random.default_rng(9)
    n = 150_000
    data = (
        {"a": random.normal(size=n), "b": random.lognormal(size=n), "c": random.normal(size=n)},
        {"a": random.normal(0.1, 1, size=n), "b": random.lognormal(0.02, size=n), "c": random.normal(3, 1, size=n)},
    )
    made = sides(data)
    true = {name: [summary(side[name], 10**9) for side in data] for name in "abc"}
    columns, expected = [], []
    for name, test in (("a", "wasserstein"), ("b", "ks"), ("c", "psi")):
        score = exact_score(TESTS[test], *true[name])
        columns.append(Column(name, "numeric", test=TESTS[test], threshold=score * (1 + 1e-7)))
        expected.append(score)
    found = compare(columns, *made)
    for verdict, score in zip(found, expected, strict=True):
        assert verdict.bound == 0
        assert verdict.settled
        assert verdict.score == pytest.approx(score, rel=1e-9)
    assert [one.drifted for one in found] == [False, True, False]
    columns = [Column(name, "numeric", test=TESTS["hellinger"]) for name in "abc"]
    for verdict in compare(columns, *made):
        assert verdict.score == pytest.approx(exact_score(TESTS["hellinger"], *true[verdict.name]), rel=1e-9)


def test_far_from_the_threshold_nothing_is_read_again(sides: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(9)
    made = sides(({"a": random.normal(size=100_000)}, {"a": random.normal(1, 1, size=100_000)}))
    monkeypatch.setattr("airflow_mlops.core.drift.compare.settle", None)
    (verdict,) = compare([Column("a", "numeric")], *made)
    assert verdict.drifted
    assert verdict.settled
    assert 0 < verdict.bound < 0.005
    assert abs(verdict.score - 1) < 0.02


WITHOUT_PANDAS = """
import json, sys
from airflow_mlops.core.drift.step import detect_drift
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
context = StepContext(store=LocalStore("store"))
more = json.loads(sys.argv[1])
found = detect_drift(context, current="one.parquet", reference="one.parquet", columns=list("xihcdbmt"), **more)
print(found["metrics"]["compared_columns"], found["metrics"]["drifted_columns"], "pandas" in sys.modules)
"""


@pytest.mark.parametrize("more", [{"roles": {"time": "t"}}, {"thresholds": "learn"}])
def test_pandas_is_not_imported(tmp_path: Path, more: dict[str, Any]) -> None:
    """It costs a second and 50 MB, and Arrow's own ``to_numpy`` imports it."""
    n = 2000
    columns = {
        "x": [None, 1.5] * (n // 2),
        "i": pa.array([i % 200 for i in range(n)], pa.uint8()),
        "h": pa.array([float(i % 7) for i in range(n)], pa.float32()).cast(pa.float16()),
        "c": ["a", None] * (n // 2),
        "d": pa.array([i % 9 for i in range(n)], pa.int32()).cast(pa.date32()),
        "b": [True, None] * (n // 2),
        "m": pa.array(range(n)).cast(pa.decimal128(30, 2)),
        "t": pa.array(range(n)).cast(pa.timestamp("ms", tz="UTC")),
    }
    pq.write_table(pa.table(columns), tmp_path / "one.parquet")
    command = [sys.executable, "-c", WITHOUT_PANDAS, json.dumps(more)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["8", "0", "False"], done.stderr
