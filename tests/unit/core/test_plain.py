"""Whatever the libraries bring becomes plain JSON."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.plain import clean
from airflow_mlops.core.vocabulary import Window


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float64("nan"), None),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.uint8(255), 255),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([[1.0, np.nan], [2.0, np.inf]]), [[1.0, None], [2.0, None]]),
        (np.array(["a", None], dtype=object), ["a", None]),
        (np.datetime64("2013-01-01T00:00:00.000000000"), "2013-01-01T00:00:00.000000000"),
        (np.datetime64("NaT"), None),
        (np.array(["2013-01-01", "NaT"], dtype="datetime64[D]"), ["2013-01-01", None]),
        (pd.NA, None),
        (pd.NaT, None),
        (pd.Timestamp("2013-01-01T06:00Z"), "2013-01-01T06:00:00+00:00"),
        (pd.Timedelta("1D"), "1 days 00:00:00"),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([pd.Timestamp("2013-01-01"), pd.NaT]), ["2013-01-01T00:00:00", None]),
        (pd.Index(["a", "b"]), ["a", "b"]),
        (pd.Categorical(["x", "y"]), ["x", "y"]),
        (pa.scalar(5), 5),
        (pa.scalar(None, pa.int64()), None),
        (pa.array([1, None]), [1, None]),
        (decimal.Decimal("10"), 10),
        (decimal.Decimal("1.25"), 1.25),
        (decimal.Decimal("NaN"), None),
        (b"caf\xc3\xa9 \xff", "café \\xff"),
        ("\ud800", "\\ud800"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (dt.date(2013, 1, 2), "2013-01-02"),
        (dt.time(6, 30), "06:30:00"),
        (dt.datetime(2013, 1, 2, tzinfo=dt.timezone.utc), "2013-01-02T00:00:00+00:00"),
        ((1, (2,)), [1, [2]]),
        ({3, 1}, [1, 3]),
        (range(3), [0, 1, 2]),
        (MappingProxyType({"a": np.int8(1)}), {"a": 1}),
        ({np.int64(1): 1, 2.5: 2}, {"1": 1, "2.5": 2}),
        (Path("/a/b"), "/a/b"),
        (2**200, 2**200),
    ],
)
def test_clean(value: Any, plain: Any) -> None:
    made = clean(value)
    assert made == plain
    assert type(made) is type(plain)
    json.dumps(made, allow_nan=False).encode()


def test_one_of_our_own_becomes_its_dict() -> None:
    window = Window.of({"end": "2013-02-01", "length": "1d"})
    assert window is not None
    assert clean({"window": window}) == {"window": window.to_dict()}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(JSON)
def test_what_is_cleaned_is_json_that_utf_8_holds_and_stays_as_it_is(value: Any) -> None:
    once = clean(value)
    text = json.dumps(once, allow_nan=False, ensure_ascii=False).encode()
    assert clean(once) == once == json.loads(text)
