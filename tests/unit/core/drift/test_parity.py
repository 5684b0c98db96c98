"""The same choice of test, the same scores and the same verdicts as Evidently itself."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_mlops.core.drift.choice import TESTS, drift_test
from airflow_mlops.core.drift.columns import Column
from airflow_mlops.core.drift.compare import Side, Verdict, compare
from airflow_mlops.core.drift.step import detect_drift
from airflow_mlops.core.drift.summarize import feed, new_summary
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from drift_shapes import CATEGORICAL, NUMERIC

DAGS = Path(__file__).parents[4] / "dags"
#: Evidently's display names by ours.
TITLES = {
    "Wasserstein distance (normed)": "wasserstein",
    "K-S p_value": "ks",
    "chi-square p_value": "chisquare",
    "Z-test p_value": "z",
    "Jensen-Shannon distance": "jensenshannon",
    "PSI": "psi",
    "Hellinger distance": "hellinger",
    "Kullback-Leibler divergence": "kl_div",
}


def ours(kind: str, reference: Any, current: Any, test: str | None = None) -> Verdict:
    sides = []
    for values in (reference, current):
        array = pa.array(values)
        summary = new_summary(kind, array.type, len(array))
        feed({"x": summary}, [pa.record_batch({"x": part}) for part in (array[:777], array[777:]) if len(part)])
        sides.append(Side(len(array), {"x": summary}))
    return compare([Column("x", kind, test=drift_test(test) if test else None)], sides[0], sides[1])[0]


def evidently(kind: str, reference: Any, current: Any, test: str | None = None) -> tuple[str, float, bool]:
    from evidently.legacy.calculations.data_drift import get_one_column_drift
    from evidently.legacy.core import ColumnType
    from evidently.legacy.metric_results import DatasetColumns, DatasetUtilityColumns
    from evidently.legacy.options.data_drift import DataDriftOptions

    columns = DatasetColumns(
        utility_columns=DatasetUtilityColumns(date=None, id=None, target=None, prediction=None),
        target_type=None, task=None, target_names=None,
        num_feature_names=["x"] if kind == "numeric" else [],
        cat_feature_names=["x"] if kind == "categorical" else [],
        text_feature_names=[], datetime_feature_names=[],
    )  # fmt: skip
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = get_one_column_drift(
            current_data=pd.DataFrame({"x": current}),
            reference_data=pd.DataFrame({"x": reference}),
            column_name="x",
            options=DataDriftOptions(all_features_stattest=test),
            dataset_columns=columns,
            column_type=ColumnType.Numerical if kind == "numeric" else ColumnType.Categorical,
            agg_data=True,
        )
    return TITLES[found.stattest_name], float(found.drift_score), bool(found.drift_detected)


def same(verdict: Verdict, expected: tuple[str, float, bool]) -> None:
    test, score, drifted = expected
    assert verdict.skipped is None
    assert verdict.test == test
    if np.isfinite(score):
        assert verdict.score == pytest.approx(score, rel=1e-9, abs=1e-12)
    else:
        assert verdict.score is None
    assert verdict.drifted == drifted
    assert verdict.bound == 0


@pytest.mark.parametrize("shape", NUMERIC)
def test_numeric_default(shape: str) -> None:
    reference, current = NUMERIC[shape](np.random.default_rng(7))
    same(ours("numeric", reference, current), evidently("numeric", reference, current))


@pytest.mark.parametrize("shape", CATEGORICAL)
def test_categorical_default(shape: str) -> None:
    reference, current = CATEGORICAL[shape](np.random.default_rng(7))
    same(ours("categorical", reference, current), evidently("categorical", reference, current))


@pytest.mark.parametrize("test", ["wasserstein", "ks", "psi", "jensenshannon", "kl_div", "hellinger"])
def test_numeric_every_test(test: str) -> None:
    for shape, make in NUMERIC.items():
        reference, current = make(np.random.default_rng(7))
        try:
            expected = evidently("numeric", reference, current, test)
        except (ValueError, OverflowError) as error:
            # What Evidently cannot score itself.
            print(shape, error)
            continue
        if shape == "subnormal" and test == "hellinger":
            continue  # densities of bins so narrow overflow in Evidently
        print(shape)
        same(ours("numeric", reference, current, test), expected)


@pytest.mark.parametrize("test", ["psi", "jensenshannon", "kl_div", "hellinger", "chisquare", "z"])
def test_categorical_every_test(test: str) -> None:
    for shape, make in CATEGORICAL.items():
        reference, current = make(np.random.default_rng(7))
        print(shape)
        same(ours("categorical", reference, current, test), evidently("categorical", reference, current, test))


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    """Every flight of 2013 with its weather: the columns that a model of them takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DAGS)
        from flights.source import SCHEDULE, WEATHER, read_flights
    frame = read_flights()
    frame["month"] = frame["scheduled_departure"].dt.month
    return frame[[*SCHEDULE, *WEATHER, "late", "month"]]


@pytest.mark.parametrize(("before", "after", "rows"), [([1], [7], 900), ([1], [7], None), ([1, 2, 3], [7, 8, 9], None)])
def test_flights(flights: pd.DataFrame, before: list[int], after: list[int], rows: int | None, tmp_path: Path) -> None:
    """Real columns: few rows, where hypotheses are tested; a month; and a quarter, which is too large to keep."""
    sides = [flights[flights["month"].isin(months)].drop(columns="month") for months in (before, after)]
    sides[0] = sides[0][:rows]
    for side, name in zip(sides, ("reference", "current"), strict=True):
        side.to_parquet(tmp_path / name, index=False)
    context = StepContext(store=LocalStore(tmp_path / "store"))
    found = detect_drift(
        context, reference=f"{tmp_path}/reference", current=f"{tmp_path}/current", min_rows=1, drift_share=0.5
    )
    columns = json.loads(context.store.get_bytes(str(context.store.key_of(found["details_uri"]))))["columns"]
    assert [one["name"] for one in columns] == list(sides[0].columns)
    for one in columns:
        test, score, drifted = evidently(one["kind"], sides[0][one["name"]], sides[1][one["name"]])
        told = (one["name"], test, score, one)
        assert (one["test"], one["drifted"], one["skipped"]) == (test, drifted, None), told
        assert abs(one["score"] - score) <= one["bound"] + 1e-9 * abs(score), told
        assert one["bound"] <= 0.005, told
    exact = [one for one in columns if one["bound"] == 0]
    assert len(exact) >= (len(columns) - 4 if len(before) > 1 else len(columns))


def test_total_variation_is_evidentlys_distance() -> None:
    from evidently.legacy.calculations.stattests.tvd_stattest import _total_variation_distance

    for make in CATEGORICAL.values():
        reference, current = make(np.random.default_rng(7))
        sides = [pd.Series(side).dropna() for side in (reference, current)]
        keys = sorted({*sides[0], *sides[1]})
        counted = [pd.Series(pd.Categorical(side, keys)) for side in sides]
        shares = [side.value_counts(sort=False) / len(side) for side in counted]
        expected = 0.5 * float(np.abs(shares[0].to_numpy() - shares[1].to_numpy()).sum())
        assert ours("categorical", reference, current, "tvd").score == pytest.approx(expected, abs=1e-12)
    assert callable(_total_variation_distance)


def test_every_test_has_evidentlys_threshold() -> None:
    from evidently.legacy.calculations.stattests.registry import _registered_stat_tests

    for name, test in TESTS.items():
        theirs = next(iter(_registered_stat_tests["TVD" if name == "tvd" else name].values()))
        assert test.threshold == theirs.default_threshold
