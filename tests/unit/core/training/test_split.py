from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, SpecError
from airflow_mlops.core.training.split import resolve_split, split_rows, validation_split

ROLES = {"time": "at", "group": "who"}


def frame(days: int = 100) -> pd.DataFrame:
    at = pd.date_range("2013-01-01", periods=days, freq="D", tz="UTC").repeat(2)
    return pd.DataFrame({"at": at, "who": [f"w{i % 10}" for i in range(2 * days)], "x": range(2 * days)})


def split(frame, roles=ROLES, window=None, **spec):
    return split_rows(frame, resolve_split(spec, roles), roles, window)


class TestDefaults:
    @pytest.mark.parametrize(
        ("roles", "by"), [(ROLES, "time"), ({"group": "who"}, "group"), ({}, "random"), ({"key": "x"}, "random")]
    )
    def test_the_way_follows_from_the_roles(self, roles, by):
        assert resolve_split(None, roles)["by"] == by

    def test_the_gap_is_the_label_delay(self):
        assert resolve_split(None, {"time": "at", "label_delay": "30d"})["gap"] == "30d"
        assert "gap" not in resolve_split({"gap": 0}, {"time": "at", "label_delay": "30d"})

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ({"by": "tyme"}, "did you mean 'time'"),
            ({"by": "time", "tset": 0.2}, "did you mean 'test'"),
            ({"by": "random", "gap": "1d"}, "by random has no 'gap'"),
            ({"by": "random", "test": "28d"}, "a duration needs by='time'"),
            ({"test": 1.5}, "between 0 and 1"),
            ({"test": "a month"}, "not a duration"),
            ({"by": "random", "seed": "x"}, "whole number"),
        ],
    )
    def test_mistakes_are_named(self, spec, message):
        with pytest.raises(SpecError, match=message):
            resolve_split(spec, ROLES)

    def test_a_missing_role(self):
        with pytest.raises(SpecError, match="needs the dataset's group role"):
            resolve_split({"by": "group"}, {"time": "at"})

    def test_numbers_that_a_template_rendered_as_text(self):
        assert resolve_split({"by": "random", "test": "0.3", "seed": "4"}, {}) == {
            "by": "random",
            "test": 0.3,
            "validation": 0.2,
            "seed": 4,
        }


class TestByTime:
    def test_a_duration_counts_back_from_the_last_row(self):
        found = split(frame(), test="10d")
        assert found.cutoff == "2013-03-31T00:00:00+00:00"
        assert len(found.test) == 22
        assert len(found.train) == 178

    def test_a_duration_counts_back_from_the_end_of_the_window(self):
        window = {"start": "2013-01-01T00:00:00+00:00", "end": "2013-04-11T00:00:00+00:00"}
        found = split(frame(), test="10d", window=window)
        assert found.cutoff == "2013-04-01T00:00:00+00:00"
        assert len(found.test) == 20

    def test_the_gap_belongs_to_no_side(self):
        found = split(frame(), test="10d", gap="5d")
        last = frame()["at"].iloc[found.train].max()
        assert last < pd.Timestamp("2013-03-26", tz="UTC")
        assert found.left_out == 200 - len(found.train) - len(found.test) == 10

    def test_labels_that_came_after_the_cutoff_do_not_train(self):
        rows = frame().assign(known=lambda f: f["at"] + pd.Timedelta(days=3))
        found = split(rows, {**ROLES, "available_at": "known"}, test="10d")
        assert rows["known"].iloc[found.train].max() <= pd.Timestamp(found.cutoff)
        assert "label came after" in found.text

    def test_rows_without_a_time_are_left_out_and_counted(self):
        rows = frame()
        rows.loc[[0, 1, 199], "at"] = pd.NaT
        assert split(rows, test=0.2).left_out == 3

    def test_one_instant_cannot_be_split(self):
        rows = frame().assign(at=pd.Timestamp("2013-01-01", tz="UTC"))
        with pytest.raises(EmptyDataError, match="same time"):
            split(rows, test=0.2)

    def test_a_test_window_longer_than_the_data(self):
        with pytest.raises(EmptyDataError, match="leaves no training rows"):
            split(frame(), test="200d")

    @pytest.mark.parametrize(
        "values",
        [
            lambda f: f["at"].dt.tz_localize(None),
            lambda f: f["at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            lambda f: f["at"].dt.date,
            lambda f: f["at"].dt.tz_convert("America/New_York"),
        ],
    )
    def test_instants_in_other_types_make_the_same_split(self, values):
        rows = frame()
        other = rows.assign(at=values(rows))
        assert split(other, test=0.2).test.tolist() == split(rows, test=0.2).test.tolist()

    def test_no_instants(self):
        with pytest.raises(SpecError, match="holds numbers"):
            split(frame(), {"time": "x"}, by="time")
        with pytest.raises(SpecError, match="does not hold instants"):
            split(frame(), {"time": "who"}, by="time")
        with pytest.raises(MissingColumnError, match="did you mean 'at'"):
            split(frame(), {"time": "att"}, by="time")

    @settings(max_examples=100)
    @given(
        st.lists(st.integers(0, 20), min_size=2, max_size=60).filter(lambda v: len(set(v)) > 1), st.floats(0.01, 0.99)
    )
    def test_no_instant_is_on_both_sides(self, days, share):
        rows = pd.DataFrame({"at": [dt.datetime(2013, 1, 1 + d) for d in days]})
        found = split(rows, {"time": "at"}, test=share)
        assert rows["at"].iloc[found.train].max() < rows["at"].iloc[found.test].min()
        assert len(found.train) + len(found.test) == len(rows)


class TestByGroup:
    def test_no_group_is_on_both_sides(self):
        found = split(frame(), by="group", test=0.2)
        who = frame()["who"]
        assert not set(who.iloc[found.train]) & set(who.iloc[found.test])
        assert len(found.test) == 40

    def test_the_same_groups_whatever_the_order_of_the_rows(self):
        rows = frame()
        other = rows.sample(frac=1, random_state=1)
        assert set(rows["who"].iloc[split(rows, by="group").test]) == set(
            other["who"].iloc[split(other, by="group").test]
        )

    def test_one_group_cannot_be_split(self):
        with pytest.raises(EmptyDataError, match="one group"):
            split(frame().assign(who="w"), by="group")

    @settings(max_examples=50)
    @given(st.lists(st.integers(0, 5), min_size=2, max_size=40).filter(lambda v: len(set(v)) > 1), st.integers(0, 9))
    def test_both_sides_have_rows(self, groups, seed):
        found = split(pd.DataFrame({"who": groups}), {"group": "who"}, by="group", seed=seed)
        assert len(found.train) > 0
        assert len(found.test) > 0


class TestAtRandom:
    def test_it_is_the_seed_that_decides(self):
        one, same, other = (split(frame(), by="random", seed=s).test.tolist() for s in (0, 0, 1))
        assert one == same != other
        assert len(one) == 40

    @pytest.mark.parametrize("rows", [0, 1])
    def test_too_few_rows(self, rows):
        with pytest.raises(EmptyDataError, match="at least 2"):
            split(frame().head(rows), by="random")

    def test_two_rows_are_one_each(self):
        found = split(frame().head(2), by="random")
        assert (len(found.train), len(found.test)) == (1, 1)


def test_validation_is_the_end_of_the_training_rows():
    rows = frame()
    spec = resolve_split({"test": "10d", "gap": "5d"}, ROLES)
    found = split_rows(rows, spec, ROLES)
    inner = validation_split(rows, spec, ROLES, found.train)
    part = rows.iloc[found.train]
    assert part["at"].iloc[inner.train].max() < part["at"].iloc[inner.test].min()
    assert len(inner.train) + len(inner.test) == len(found.train)
    assert not set(part.index[inner.test]) & set(np.asarray(found.test))
