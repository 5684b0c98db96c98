"""What data is held against: profiles, the same season before, a subject's own past, several at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.data.dataset import resolve
from airflow_mlops.core.drift.binding import store_profile
from airflow_mlops.core.drift.profile import Profile, build
from airflow_mlops.core.drift.reading import open_dataset
from airflow_mlops.core.drift.step import detect_drift
from airflow_mlops.core.errors import IntegrityError, SpecError
from airflow_mlops.core.monitoring import history
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore

DAYS = 140


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    return StepContext(store=LocalStore(tmp_path / "store"), key="etl/run/drift/-1", run={"dag_id": "etl"})


@pytest.fixture
def seasons(tmp_path: Path) -> str:
    """Rows of 140 days whose level has a season of 70 days: the second season is like the first."""
    random = np.random.default_rng(11)
    day = np.repeat(np.arange(DAYS), 60)
    table = {
        "day": pa.array(day, pa.int32()).cast(pa.date32()),
        "x": random.normal(3 * np.sin(2 * np.pi * day / 70), 0.5),
        "c": random.choice(["a", "b"], len(day)),
        "secret": random.choice(["Ada", "Bob"], len(day)),
    }
    pq.write_table(pa.table(table), tmp_path / "seasons.parquet")
    return str(tmp_path / "seasons.parquet")


def window(start: int, end: int) -> dict[str, str]:
    first = np.datetime64("1970-01-01")
    return {"start": str(first + start), "end": str(first + end)}


def run(context: StepContext, current: str, reference: Any, **more: Any) -> dict[str, Any]:
    return detect_drift(
        context, current=current, reference=reference, roles={"time": "day", "private": "secret"}, **more
    )


def details_of(context: StepContext, report: dict[str, Any]) -> Any:
    return json.loads(context.store.get_bytes(str(context.store.key_of(report["details_uri"]))))


def test_the_same_season_before(context: StepContext, seasons: str) -> None:
    week = window(77, 84)
    report = run(context, seasons, {"offset": "-70d"}, window=week, columns=["x"])
    assert report["passed"]
    assert details_of(context, report)["rows"] == {"reference": 420, "current": 420}
    assert run(context, seasons, {"offset": "-35d"}, window=week, columns=["x"])["metrics"]["drifted_columns"] == 1
    with pytest.raises(SpecError, match="window"):
        run(context, seasons, {"offset": "-70d"})


def test_unlike_each_of_several(context: StepContext, seasons: str) -> None:
    both = [{"offset": "-35d"}, {"offset": "-70d"}]
    week = window(77, 84)
    every = run(context, seasons, both, window=week, columns=["x"], drift_share=0.3)
    either = run(context, seasons, both, window=week, columns=["x"], drift_share=0.3, combine="any")
    assert every["metrics"]["drifted_columns"] == 0
    assert either["metrics"]["drifted_columns"] == 1
    columns = {one["name"]: one for one in details_of(context, every)["columns"]}
    assert columns["x"]["references"] == 2


def test_own_history_learns_first(context: StepContext, seasons: str) -> None:
    def week(number: int) -> dict[str, Any]:
        return run(
            context, seasons, {"history": 2}, window=window(7 * number, 7 * number + 7), subject="s", columns=["c"]
        )

    first = week(0)
    assert first["passed"]
    assert first["severity"] == "ok"
    assert "learn" in first["summary"]
    second = week(1)
    assert second["metrics"]["compared_columns"] == 1
    assert second["passed"]
    again = week(1)
    assert again["metrics"] == second["metrics"]
    assert len(list(context.store.keys("drift"))) == 2
    assert len(history.read(context.store, "s", kind="drift")) == 2
    with pytest.raises(SpecError, match="subject"):
        run(context, seasons, {"history": 2}, window=window(0, 7))


def test_a_profile_is_the_dataset_within_bounds(context: StepContext, seasons: str) -> None:
    opened = open_dataset(context.store, resolve(context.store, seasons, roles={"private": "secret"}))
    profile = build(opened)
    text = json.dumps(profile.to_dict())
    assert "Ada" not in text
    read = Profile.from_dict(json.loads(text))
    assert read.rows == 60 * DAYS
    assert read.to_dict() == profile.to_dict()
    points = np.linspace(-4, 4, 50)
    least, most = read.columns["x"].below(points)
    true = np.searchsorted(np.sort(pq.read_table(seasons)["x"].to_numpy()), points)
    assert (least <= true).all()
    assert (true <= most).all()


def test_a_profile_that_was_altered_or_is_of_another_version_is_refused(context: StepContext, seasons: str) -> None:
    key = store_profile(context, seasons)
    value = context.store.get_json(key)
    with pytest.raises(IntegrityError, match="altered"):
        Profile.from_dict({**value, "rows": value["rows"] - 1})
    with pytest.raises(SpecError, match="version 99"):
        Profile.from_dict({**value, "version": 99})


def test_a_stored_profile_of_30_columns_is_small(context: StepContext, tmp_path: Path) -> None:
    random, n = np.random.default_rng(11), 100_000
    columns = {f"f{i}": random.normal(size=n) * 10.0**i for i in range(20)}
    columns |= {f"c{i}": random.choice([f"value {v}" for v in range(200)], n) for i in range(10)}
    pq.write_table(pa.table(columns), tmp_path / "wide.parquet")
    key = store_profile(context, str(tmp_path / "wide.parquet"))
    assert context.store.stat(key).size < 1_000_000


@pytest.mark.parametrize("asked", [{"thresholds": "learn"}, {"by": "c"}])
@pytest.mark.parametrize("reference", [{"history": 4}, [{"offset": "-70d"}, {"history": 4}]])
def test_what_needs_rows_is_refused_against_a_history_at_once(
    context: StepContext, seasons: str, asked: dict[str, Any], reference: Any
) -> None:
    """Not in the fifth window, when there is a history at last."""
    with pytest.raises(SpecError, match="only a profile of each window: give a dataset"):
        run(context, seasons, reference, window=window(77, 84), subject="s", **asked)
    assert list(context.store.keys("drift")) == []
