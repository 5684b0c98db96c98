"""The dicts that go from task to task."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import (
    SCHEMA,
    DatasetRef,
    LedgerEntry,
    ModelRef,
    Report,
    Thing,
    Window,
    check_roles,
    parse_duration,
    parse_instant,
    role_columns,
)

THINGS: list[Thing] = [
    Window(start="2013-01-01T00:00:00+00:00", end="2013-02-01T00:00:00+00:00"),
    DatasetRef(name="d", uri="file:///d", digest="sha256:0", roles={"key": ["a", "b"]}),
    ModelRef(uri="models:/m-1", metrics={"auc": float("nan")}),
    Report(report="drift", passed=True, severity="ok", summary="quiet"),
    LedgerEntry(seq=1, action="promote", model="m", version=1, previous_version=None, alias="champion"),
]


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)
def test_a_dict_says_its_kind_and_schema_and_reads_back(thing: Thing) -> None:
    value = thing.to_dict()
    assert value["schema"] == SCHEMA
    assert value["kind"] == ("drift" if isinstance(thing, Report) else thing.kind)
    assert type(thing).from_dict(json.loads(json.dumps(value, allow_nan=False))).to_dict() == value


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)
def test_fields_of_a_later_minor_version_and_an_earlier_schema_are_read(thing: Thing) -> None:
    value = thing.to_dict()
    assert type(thing).from_dict({**value, "brand_new": 1, "schema": 0}).to_dict() == value
    del value["schema"]
    assert type(thing).from_dict(value) is not None


def test_a_newer_schema_says_to_upgrade() -> None:
    with pytest.raises(SpecError, match=r"schema 2; .* upgrade it where this task runs"):
        DatasetRef.from_dict({**THINGS[1].to_dict(), "schema": SCHEMA + 1})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("path", "as a dict, got str"),
        ({"kind": "model", "uri": "x"}, "expected a dataset, got a model"),
        ({"kind": "dataset", "name": "d"}, "lacks a field"),
        ({"schema": "1", "kind": "dataset"}, "schema 1"),
    ],
)
def test_what_is_no_dataset_is_said_to_be_none(value: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        DatasetRef.from_dict(value)


def test_what_is_no_report_is_said_to_be_none() -> None:
    with pytest.raises(SpecError, match="expected a report"):
        Report.from_dict(THINGS[1].to_dict())


@pytest.mark.parametrize(
    ("value", "start"),
    [
        ({"start": "2013-01-01", "end": "2013-02-01"}, "2013-01-01T00:00:00+00:00"),
        ({"end": "2013-02-01T00:00:00Z", "length": "7d"}, "2013-01-25T00:00:00+00:00"),
        ({"end": dt.date(2013, 2, 1), "length": "36h"}, "2013-01-30T12:00:00+00:00"),
        ({"start": "2013-01-01T00:00+02:00", "end": "2013-02-01"}, "2013-01-01T00:00:00+02:00"),
    ],
)
def test_a_window_as_users_write_it(value: dict[str, Any], start: str) -> None:
    window = Window.of(value)
    assert window is not None
    assert window.start == start
    assert Window.of(window.to_dict()) == window == Window.of(window)


@pytest.mark.parametrize("value", [None, "", {}])
def test_no_window_is_none(value: Any) -> None:
    assert Window.of(value) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"start": "2013-01-01"}, "a window is"),
        ("2013", "a window is"),
        ({"end": "2013-01-01"}, "'start' or a 'length'"),
        ({"start": "2013-02-01", "end": "2013-02-01"}, "not before its end"),
        ({"start": "soon", "end": "2013-02-01"}, "'soon' is not an instant"),
        ({"end": "2013-02-01", "length": "7 days"}, "not a duration"),
        ({"end": "2013-02-01", "length": "200000w"}, "before the year 1"),
        ({"end": "2013-02-01", "length": "9999999999999w"}, "longer than a duration"),
        ({"end": "2013-02-01", "length": "0d"}, "not before its end"),
    ],
)
def test_a_window_that_is_none_says_why(value: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        Window.of(value)


@pytest.mark.parametrize("text", ["2013-03-01T06:00:00.1Z", "2013-03-01T06:00:00.100000000+00:00"])
def test_fractions_of_any_length_are_read_on_every_python(text: str) -> None:
    assert parse_instant(text) == dt.datetime(2013, 3, 1, 6, 0, 0, 100_000, tzinfo=dt.timezone.utc)


@pytest.mark.parametrize("text", ["0001-01-01T00:00+05:00", "9999-12-31T23:00-05:00"])
def test_an_instant_that_utc_cannot_say_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="outside the years"):
        parse_instant(text)


@given(st.integers(0, 10_000), st.sampled_from("smhdw"))
def test_durations_are_what_they_say(number: int, unit: str) -> None:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}[unit]
    assert parse_duration(f"{number}{unit}").total_seconds() == number * seconds


def test_roles_name_columns_once_and_a_typo_is_met_with_the_nearest() -> None:
    roles = check_roles({"key": ["a", "b"], "time": "t", "group": "a", "weight": None, "label_delay": "90d"})
    assert roles == {"key": ["a", "b"], "time": "t", "group": "a", "label_delay": "90d"}
    assert role_columns(roles) == ["a", "b", "t"]
    assert role_columns(roles, "time") == ["t"]
    with pytest.raises(SpecError, match="'tiem' is not a role; did you mean 'time'"):
        check_roles({"tiem": "t"})
    with pytest.raises(SpecError, match=r"'qqq' is not a role\. Roles: key"):
        check_roles({"qqq": "t"})
