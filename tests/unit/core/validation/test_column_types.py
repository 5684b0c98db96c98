"""Types under the names that people write, whatever pandas calls them."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.validation.column_types import check_name, column_type

ARROW = {
    "int64": (
        pa.array([1, None], pa.int64()),
        ["int64", "int", "integer", "bigint", "number"],
        ["int32", "str", "float32"],
    ),
    "uint8": (pa.array([1, 2], pa.uint8()), ["uint8", "int"], ["int8"]),
    "float": (pa.array([1.5], pa.float32()), ["float32", "float", "np.float32"], ["float64", "double", "int"]),
    "double": (pa.array([1.5]), ["float64", "double", "float"], ["float32", "int64"]),
    "text": (
        pa.array(["a", None]),
        ["str", "string", "object", "large_string", "VARCHAR", "string[pyarrow]"],
        ["bytes"],
    ),
    "bool": (pa.array([True, None]), ["bool", "boolean"], ["int", "str"]),
    "instant": (
        pa.array([dt.datetime(2020, 1, 1)], pa.timestamp("ns")),
        ["timestamp", "datetime", "datetime64[us]", "datetime64[ns]", "pd.Timestamp"],
        ["datetime64[us, UTC]", "date", "timestamptz"],
    ),
    "zoned": (
        pa.array([dt.datetime(2020, 1, 1)], pa.timestamp("us", "UTC")),
        ["timestamp", "timestamp[us, tz=UTC]", "datetime64[ns, UTC]", "timestamptz"],
        ["datetime64[us]", "timestamp[us, tz=Europe/Berlin]"],
    ),
    "date": (pa.array([dt.date(2020, 1, 1)]), ["date", "date32", "date32[day]", "object"], ["timestamp", "str"]),
    "time": (pa.array([dt.time(1)]), ["time", "time64[us]"], ["date"]),
    "duration": (pa.array([1], pa.duration("s")), ["timedelta64[ns]", "duration"], ["int"]),
    "decimal": (
        pa.array([decimal.Decimal("1.2")]),
        ["decimal", "decimal128(2, 1)", "numeric"],
        ["float", "decimal128(9, 2)"],
    ),
    "bytes": (pa.array([b"a"]), ["bytes", "binary"], ["str"]),
    "list": (pa.array([[1]]), ["list", "array"], ["str"]),
    "struct": (pa.array([{"a": 1}]), ["struct", "dict"], ["list"]),
    "category": (pa.array(["a"]).dictionary_encode(), ["category", "string"], ["int"]),
}


@pytest.mark.parametrize("name", ARROW)
def test_a_column_read_from_a_file_answers_to_its_names_and_to_no_others(name: str) -> None:
    values, good, bad = ARROW[name]
    found = column_type(pa.table({"x": values}).to_pandas()["x"], str(values.type))

    assert {n: found.answers_to([n]) for n in good + bad} == dict.fromkeys(good, True) | dict.fromkeys(bad, False)
    for written in good + bad:
        check_name(written)


@pytest.mark.parametrize(
    ("values", "dtype", "good", "bad"),
    [
        ([1, None], "Int64", ["Int64", "int"], ["float"]),
        ([1.0, None], "Float64", ["Float64", "float"], ["int"]),
        ([True, None], "boolean", ["bool"], ["int"]),
        (["a", "b"], "string", ["str", "object"], ["category"]),
        (["a", "b"], "object", ["str", "object", "string"], ["int"]),
        (["a", "b"], "category", ["category"], ["int"]),
        ([1, 2], "int64[pyarrow]", ["int64", "int64[pyarrow]"], ["int32"]),
        ([dt.date(2020, 1, 1)], "object", ["date", "object"], ["str"]),
        (["a", 1], "object", ["object"], ["str", "int"]),
        ([None, None], "object", ["str", "int", "float", "timestamp"], []),
    ],
)
def test_a_frame_that_was_never_a_file(values: list[object], dtype: str, good: list[str], bad: list[str]) -> None:
    found = column_type(pd.Series(values, dtype=dtype))

    assert {n: found.answers_to([n]) for n in good + bad} == dict.fromkeys(good, True) | dict.fromkeys(bad, False)


@given(st.text(max_size=20))
def test_a_name_is_refused_or_can_be_compared(name: str) -> None:
    with contextlib.suppress(SpecError):
        check_name(name)
        assert column_type(pd.Series([1])).answers_to([name]) in (True, False)
