"""Which rows a model is judged on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import MissingColumnError, SpecError
from airflow_mlops.core.evaluation.rows import Rows, check_role_columns, leave_out_seen, weights_of
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.training.rowkeys import hash_rows, save_row_keys
from airflow_mlops.core.vocabulary import ModelRef

ROLES = {"key": "id", "time": "day"}


def model(training: dict[str, Any] | None) -> ModelRef:
    return ModelRef(uri="models:/m-1", training=training)


def everything(frame: pd.DataFrame) -> Rows:
    return Rows(kept=np.ones(len(frame), dtype=bool))


def keys_of(store: LocalStore, frame: pd.DataFrame) -> dict[str, Any]:
    return {"row_keys_uri": save_row_keys(store, hash_rows(frame, ROLES)), "row_key_columns": ["id"]}


def test_training_rows_and_rows_before_the_cutoff_are_left_out_and_counted(
    store: LocalStore, frame: pd.DataFrame
) -> None:
    training = {**keys_of(store, frame.iloc[100:150]), "split": {"by": "time", "cutoff": "2013-01-03T00:00:00+00:00"}}
    rows = everything(frame)
    leave_out_seen(rows, store, model(training), frame, ROLES, "the model")
    assert rows.left_out == [
        {"why": "the model was trained on them", "rows": 50},
        {"why": "before the cutoff of the model, 2013-01-03T00:00:00+00:00, or without a time", "rows": 48},
    ]
    assert rows.count == 502
    assert not rows.kept[:48].any()
    assert not rows.kept[100:150].any()
    assert rows.caveats == []


def test_a_cutoff_of_a_random_split_leaves_no_row_out(store: LocalStore, frame: pd.DataFrame) -> None:
    training = {**keys_of(store, frame.iloc[:0]), "split": {"by": "random", "cutoff": "2013-01-03T00:00:00+00:00"}}
    rows = everything(frame)
    leave_out_seen(rows, store, model(training), frame, ROLES, "the model")
    assert rows.count == 600


def test_without_row_keys_the_training_window_stands_for_them(store: LocalStore, frame: pd.DataFrame) -> None:
    window = {"start": "2013-01-02T00:00:00+00:00", "end": "2013-01-03T00:00:00+00:00"}
    rows = everything(frame)
    leave_out_seen(rows, store, model({"window": window}), frame, ROLES, "the champion")
    assert rows.count == 576
    assert not rows.kept[24:48].any()


@pytest.mark.parametrize("training", [None, {}, {"rows": 5}])
def test_unknown_training_data_keeps_all_rows_and_says_so(
    store: LocalStore, frame: pd.DataFrame, training: dict[str, Any] | None
) -> None:
    rows = everything(frame)
    leave_out_seen(rows, store, model(training), frame, ROLES, "the champion")
    assert rows.count == 600
    assert "not known which rows the champion was trained on" in rows.caveats[0]


def test_row_keys_that_are_gone_are_a_caveat_and_no_crash(store: LocalStore, frame: pd.DataFrame) -> None:
    rows = everything(frame)
    leave_out_seen(rows, store, model({"row_keys_uri": store.uri_of("rowkeys/gone.npy")}), frame, ROLES, "the champion")
    assert rows.count == 600
    assert "cannot be read" in rows.caveats[0]


def test_key_columns_that_this_dataset_lacks_are_a_caveat(store: LocalStore, frame: pd.DataFrame) -> None:
    rows = everything(frame)
    training = keys_of(store, frame.head(10))
    leave_out_seen(rows, store, model(training), frame.drop(columns="id"), {}, "the champion")
    assert rows.count == 600
    assert "by columns that this dataset does not have" in rows.caveats[0]


def test_a_row_without_a_time_cannot_be_after_the_cutoff(store: LocalStore, frame: pd.DataFrame) -> None:
    frame = frame.assign(day=frame["day"].astype(str).where(frame.index % 2 == 0, None))
    training = {"split": {"by": "time", "cutoff": "2013-01-01"}}
    rows = everything(frame)
    leave_out_seen(rows, store, model(training), frame, ROLES, "the model")
    assert rows.count == 300


@given(seen=st.sets(st.integers(0, 59)), before=st.integers(0, 60))
def test_no_row_that_was_seen_is_ever_kept_and_every_row_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, seen: set[int], before: int
) -> None:
    store = LocalStore(tmp_path_factory.getbasetemp() / "rows-property")
    frame = pd.DataFrame({"id": range(60), "day": pd.date_range("2013-01-01", periods=60, freq="D", tz="UTC")})
    cutoff = (pd.Timestamp("2013-01-01", tz="UTC") + pd.Timedelta(days=before)).isoformat()
    training = {**keys_of(store, frame.iloc[sorted(seen)]), "split": {"by": "time", "cutoff": cutoff}}
    rows = everything(frame)
    leave_out_seen(rows, store, model(training), frame, ROLES, "the model")
    assert set(np.flatnonzero(rows.kept)) == set(range(before, 60)) - seen
    assert rows.count + sum(entry["rows"] for entry in rows.left_out) == 60


def test_a_missing_target_names_the_nearest_column(frame: pd.DataFrame) -> None:
    with pytest.raises(MissingColumnError, match=r"no target column 'lat'; did you mean 'late'"):
        check_role_columns(frame, ROLES, "lat")
    with pytest.raises(MissingColumnError, match="no role column 'tag'"):
        check_role_columns(frame, {"time": "tag"}, "late")


@pytest.mark.parametrize(
    ("weights", "says"),
    [([1.0, -1.0], "1 values that are missing, negative"), ([None, 1.0], "1 values"), ([0.0, 0.0], "holds only zeros")],
)
def test_weights_that_cannot_weigh_are_refused(weights: list[Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        weights_of(pd.DataFrame({"w": weights}), {"weight": "w"})


def test_no_weight_role_means_no_weights(frame: pd.DataFrame, save: Callable[..., str]) -> None:
    assert weights_of(frame, {}) is None
