"""``thresholds="learn"`` in the step, and what each sensitivity would have cost."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.data.dataset import resolve
from airflow_mlops.core.drift.calibrate import calibrate
from airflow_mlops.core.drift.reading import open_dataset
from airflow_mlops.core.drift.step import detect_drift
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore

ROLES = {"key": "id", "time": "seen"}
WEEK = {"start": "2024-05-06T00:00:00+00:00", "end": "2024-05-13T00:00:00+00:00"}


def orders(rng: Any, weeks: int, start: str = "2024-01-01", rows: int = 600) -> pd.DataFrame:
    """Return weeks whose prices move up and down, far more than rows of one week tell."""
    parts = []
    for week in range(weeks):
        moment = pd.Timestamp(start, tz="UTC") + pd.Timedelta(days=7 * week)
        seen = moment + pd.to_timedelta(np.sort(rng.integers(0, 7 * 86_400, rows)), unit="s")
        price = (rng.lognormal(3 + rng.normal(0, 0.25), 0.5, rows)).round(2)
        shop = rng.choice(["north", "south", "east"], rows, p=[0.5, 0.3, 0.2])
        parts.append(pd.DataFrame({"seen": seen, "price": price, "shop": shop}))
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(id=range(len(frame)))


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    return StepContext(store=LocalStore(tmp_path / "store"), key="shop/run/drift/-1", run={"dag_id": "shop"})


@pytest.fixture
def reference(tmp_path: Path) -> str:
    path = tmp_path / "reference.parquet"
    orders(np.random.default_rng(0), 16).to_parquet(path)
    return str(path)


def watch(context: StepContext, reference: str, frame: pd.DataFrame, **more: Any) -> tuple[dict[str, Any], Any]:
    path = Path(reference).with_name("current.parquet")
    frame.to_parquet(path)
    report = detect_drift(context, current=str(path), reference=reference, roles=ROLES, window=WEEK, **more)
    details = json.loads(context.store.get_bytes(str(context.store.key_of(report["details_uri"]))))
    return report, details


def test_a_week_like_others_is_quiet_where_a_textbook_threshold_is_not(context: StepContext, reference: str) -> None:
    week = orders(np.random.default_rng(7), 1, "2024-05-06")
    week["price"] = (week["price"] * 1.3).round(2)
    textbook, _ = watch(context, reference, week)
    learnt, details = watch(context, reference, week, thresholds="learn")
    assert textbook["metrics"]["drifted_columns"] == 1
    assert (learnt["severity"], learnt["metrics"]["drifted_columns"]) == ("ok", 0)
    assert details["learnt"] == {"blocks": 16, "unit": "7 days"}
    price = next(one for one in details["columns"] if one["name"] == "price")
    assert price["test"] == "hellinger_squared"
    assert price["score"] < price["threshold"]
    assert set(price["learnt"]["scores"]) == {"distribution", "missing", "novel"}


def test_one_column_that_moved_is_a_warning(context: StepContext, reference: str) -> None:
    week = orders(np.random.default_rng(7), 1, "2024-05-06")
    report, details = watch(context, reference, week.assign(price=week["price"] * 40), thresholds="learn")
    assert report["metrics"]["drifted_columns"] == 1
    assert (report["severity"], details["findings"]) == ("warning", [])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"shop": lambda frame: frame["shop"].replace("south", "S")}, "new_values"),
        ({"price": lambda frame: frame["price"].mask(frame.index % 5 == 0)}, "missing"),
    ],
)
def test_broken_data_is_an_error(context: StepContext, reference: str, change: dict[str, Any], kind: str) -> None:
    week = orders(np.random.default_rng(7), 1, "2024-05-06").assign(**change)
    report, details = watch(context, reference, week, thresholds="learn")
    assert (report["passed"], report["severity"]) == (False, "error")
    assert [(one["kind"], one["column"]) for one in details["findings"]] == [(kind, next(iter(change)))]
    page = context.store.get_bytes(str(context.store.key_of(report["report_uri"]))).decode()
    assert "is usual" in page
    assert "north" not in page + json.dumps(details)


def test_swapped_columns_are_broken_data(context: StepContext, tmp_path: Path) -> None:
    def priced(seed: int, weeks: int, start: str = "2024-01-01") -> pd.DataFrame:
        frame = orders(np.random.default_rng(seed), weeks, start).rename(columns={"price": "gross"})
        return frame.assign(net=(frame["gross"] * 0.8).round(2))

    priced(0, 16).to_parquet(tmp_path / "reference.parquet")
    week = priced(7, 1, "2024-05-06")
    swapped = week.assign(gross=week["net"], net=week["gross"])
    whole, _ = watch(context, str(tmp_path / "reference.parquet"), week, thresholds="learn")
    report, details = watch(context, str(tmp_path / "reference.parquet"), swapped, thresholds="learn")
    assert (whole["severity"], report["severity"], report["passed"]) == ("ok", "error", False)
    assert [(one["kind"], one["column"]) for one in details["findings"]] == [("order", "gross"), ("order", "net")]
    message = details["findings"][0]["message"]
    assert "it is on the wrong side of net in" in message
    assert "were the two swapped?" in message


def test_what_a_sensitivity_can_be(context: StepContext, reference: str) -> None:
    week = orders(np.random.default_rng(7), 1, "2024-05-06")
    with pytest.raises(SpecError, match="'low', 'normal', 'high'"):
        watch(context, reference, week, thresholds="learn", sensitivity="max")
    with pytest.raises(SpecError, match="'evidently', 'learn'"):
        watch(context, reference, week, thresholds="guess")


def test_calibration_counts_what_each_sensitivity_would_have_cost(context: StepContext, tmp_path: Path) -> None:
    frame = orders(np.random.default_rng(1), 40)
    late = frame["seen"] >= pd.Timestamp("2024-08-26", tz="UTC")
    frame.loc[late, "price"] *= 100  # from some day on in cents
    frame.to_parquet(tmp_path / "past.parquet")
    ref = resolve(context.store, str(tmp_path / "past.parquet"), roles=ROLES)
    costs = calibrate(open_dataset(context.store, ref), length=dt.timedelta(days=7), reference=16)
    assert [cost.sensitivity for cost in costs] == ["low", "normal", "high"]
    assert {cost.windows for cost in costs} == {24}
    assert costs[0].alarms <= costs[1].alarms <= costs[2].alarms
    low = costs[0]
    assert (low.alarms, low.incidents) == (6, 1)
    assert next(iter(low.worst)) == "price"
    # Three windows in a row, a fortnight's rest, and three more.
    assert low.retrainings == 2
    assert low.a_year(low.incidents) == pytest.approx(365.25 / (24 * 7))


def test_calibration_needs_something_to_judge(context: StepContext, tmp_path: Path) -> None:
    orders(np.random.default_rng(1), 6).to_parquet(tmp_path / "past.parquet")
    ref = resolve(context.store, str(tmp_path / "past.parquet"), roles=ROLES)
    with pytest.raises(SpecError, match="nothing is left to judge"):
        calibrate(open_dataset(context.store, ref), length=dt.timedelta(days=7), reference=8)
    few = pd.DataFrame({"seen": pd.date_range("2024-01-01", periods=400, freq="D", tz="UTC"), "price": range(400)})
    few.to_parquet(tmp_path / "few.parquet")
    ref = resolve(context.store, str(tmp_path / "few.parquet"), roles={"time": "seen"})
    with pytest.raises(SpecError, match=r"of any of \d+ windows of 7 days could be judged .*take longer windows"):
        calibrate(open_dataset(context.store, ref), length=dt.timedelta(days=7), reference=16)
    ref = resolve(context.store, str(tmp_path / "past.parquet"))
    with pytest.raises(SpecError, match="time of each row"):
        calibrate(open_dataset(context.store, ref), length=dt.timedelta(days=7), reference=4)
