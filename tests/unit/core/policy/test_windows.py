"""What a retraining trains on and tries: labels are waited for, and no search sees the test rows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import EmptyDataError, SpecError
from airflow_mlops.core.policy.windows import best, search_window, snapshots_in, training_window, trials


def days(window: dict[str, str]) -> tuple[str, str]:
    return window["start"][:10], window["end"][:10]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"start": "2013-01-01"}, ("2013-01-01", "2013-07-01")),
        ({"start": "2013-01-01", "label_delay": "30d"}, ("2013-01-01", "2013-06-01")),
        ({"kind": "sliding", "length": "60d", "label_delay": "30d"}, ("2013-04-02", "2013-06-01")),
        ({"kind": "sliding", "length": "600d", "start": "2013-01-01"}, ("2013-01-01", "2013-07-01")),
        ({"kind": "since_drift", "drifted_at": "2013-05-10"}, ("2013-05-10", "2013-07-01")),
        ({"kind": "since_drift", "drifted_at": "2013-06-25", "at_least": "28d"}, ("2013-06-03", "2013-07-01")),
    ],
)
def test_the_period_ends_where_labels_are_known(arguments: dict[str, Any], expected: tuple[str, str]) -> None:
    assert days(training_window("2013-07-01", **arguments)) == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"kind": "rolling"}, "kind must be one of"),
        ({"kind": "sliding"}, "needs length"),
        ({"kind": "since_drift"}, "needs drifted_at"),
        ({}, "needs start"),
        ({"start": "0001-01-01T00:00+05:00"}, "outside the years 1 to 9999"),
    ],
)
def test_a_period_that_cannot_be_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        training_window("2013-07-01", **arguments)
    with pytest.raises(EmptyDataError, match="label_delay of 90d"):
        training_window("2013-07-01", start="2013-06-01", label_delay="90d")
    with pytest.raises(EmptyDataError, match="train later, or give at_least"):
        training_window("2013-07-01", kind="since_drift", drifted_at="2013-06-25", label_delay="30d")
    assert training_window("2013-07-01", kind="sliding", length="99999w", start="2013-01-01")["start"][:4] == "2013"


def test_one_window_is_one_whatever_zone_it_is_written_in() -> None:
    utc = {"start": "2013-02-01", "end": "2013-03-01"}
    other = {"start": "2013-02-01T01:00+01:00", "end": "2013-02-28T23:00-01:00"}
    told = [{"digest": str(n), "window": one, "created_at": str(n)} for n, one in enumerate((utc, other))]
    assert [one["digest"] for one in snapshots_in({"start": "2013-01-01", "end": "2013-04-01"}, told)] == ["1"]


def test_snapshots_of_a_period_are_whole_in_order_and_the_latest_of_each_month() -> None:
    def month(number: int, made: str = "1") -> dict[str, Any]:
        window = {"start": f"2013-{number:02}-01", "end": f"2013-{number + 1:02}-01"}
        return {"kind": "dataset", "digest": f"{number}{made}", "window": window, "created_at": made}

    found = snapshots_in({"start": "2013-02-01", "end": "2013-04-15"}, [month(3), month(2), month(4), month(3, "2")])
    assert [one["digest"] for one in found] == ["21", "32"]
    with pytest.raises(EmptyDataError, match="no snapshot lies between"):
        snapshots_in({"start": "2014-01-01", "end": "2014-04-15"}, [month(3)])


def test_a_grid_begins_with_the_champion_and_repeats_nothing() -> None:
    found = trials({"depth": [3, 5], "rate": [0.1]}, champion={"depth": 5, "rate": 0.1, "seed": 1})
    assert found == [{"depth": 5, "rate": 0.1, "seed": 1}, {"depth": 3, "rate": 0.1, "seed": 1}]


@given(seed=st.integers(0, 10_000), count=st.integers(1, 50))
def test_what_is_drawn_is_in_its_range_and_the_same_again(seed: int, count: int) -> None:
    space = {"a": {"low": 1, "high": 9}, "b": {"low": 1e-4, "high": 1.0, "log": True}, "c": ["x", "y"]}
    found = trials(space, count=count, seed=seed)
    assert found == trials(space, count=count, seed=seed)
    for one in found:
        assert one["a"] in range(1, 10)
        assert 1e-4 <= one["b"] <= 1
        assert one["c"] in ("x", "y")


@pytest.mark.parametrize(
    ("space", "more", "says"),
    [
        ({}, {}, "dict of lists and ranges"),
        ({"a": {"low": 1, "high": 2}}, {}, "cannot stand in a grid"),
        ({"a": list(range(200))}, {}, "from 1 to 100"),
        ({"a": {"low": 2, "high": 1}}, {"count": 2}, "low below high"),
        ({"a": 3}, {"count": 2}, "list of values"),
        ({"a": []}, {"champion": {"a": 1}}, "no value for a"),
        ({"a": []}, {"count": 2}, "no value for a"),
        ({"a": {"low": "1", "high": 2}}, {"count": 2}, "numbers as low and high"),
        ({"a": {"low": 1, "high": float("inf")}}, {"count": 2}, "numbers as low and high"),
    ],
)
def test_a_space_that_cannot_be_is_refused(space: Any, more: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        trials(space, **more)


def test_the_best_is_chosen_on_rows_before_the_test_rows_alone() -> None:
    window = search_window({"start": "2013-01-01", "end": "2013-07-01"}, test="28d", gap="2d")
    assert days(window) == ("2013-01-01", "2013-06-01")

    def model(uri: str, value: float | None, end: str = "2013-06-01") -> dict[str, Any]:
        metrics = {"roc_auc": value, "log_loss": value}
        return {"uri": uri, "metrics": metrics, "test_dataset": {"window": {"start": "2013-05-01", "end": end}}}

    models = [model("a", 0.7), model("b", 0.8), model("c", 0.8), model("d", None)]
    assert best(models, "roc_auc", before=window["end"])["uri"] == "b"
    assert best(models, "log_loss", before=window["end"])["uri"] == "a"
    assert best([None, models[0]], "roc_auc", before=window["end"])["uri"] == "a", "a trial that failed has none"
    with pytest.raises(SpecError, match="each of its trials failed"):
        best([], "roc_auc", before=window["end"])
    with pytest.raises(SpecError, match="saw rows up to 2013-06-20"):
        best([*models, model("e", 0.9, "2013-06-20")], "roc_auc", before=window["end"])
    with pytest.raises(SpecError, match="none of the 1 models"):
        best([model("d", None)], "roc_auc", before=window["end"])
    with pytest.raises(SpecError, match="leave nothing"):
        search_window({"start": "2013-01-01", "end": "2013-01-07"}, test="28d")
