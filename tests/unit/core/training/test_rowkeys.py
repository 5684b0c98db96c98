from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.errors import IntegrityError, MissingColumnError
from airflow_mlops.core.training.rowkeys import hash_rows, load_row_keys, save_row_keys, seen

PINNED = ["0xc1073574760223cf", "0x6ecf1d725dc1413f", "0x855a0dbae38d0e32"]


def frame():
    return pd.DataFrame(
        {
            "id": [1, 2, 3],
            "naïve": ["a", "b", None],
            "at": pd.to_datetime(["2013-01-01T00:00Z", "2013-01-02T00:00Z", None]),
            "x": [0.5, np.nan, 2.0],
        }
    )


def test_pinned_keys():
    """The keys of models that are on record must never change."""
    assert [hex(k) for k in hash_rows(frame(), {})] == PINNED


def test_same_in_another_process():
    code = (
        "import pandas as pd; from airflow_mlops.core.training.rowkeys import hash_rows;"
        "print(hash_rows(pd.DataFrame({'k': ['x', 'é'], 'n': [1, 2]}), {}).tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str(hash_rows(pd.DataFrame({"k": ["x", "é"], "n": [1, 2]}), {}).tolist())


def test_types_that_carry_equal_values_agree():
    def keys(values, dtype):
        return hash_rows(pd.DataFrame({"k": pd.Series(values, dtype=dtype)}), {}).tolist()

    for dtype in ("float64", "Int64", "int8", "uint16", "Float64", "category", "int64[pyarrow]"):
        assert keys([1, 2], dtype) == keys([1, 2], "int64"), dtype
    for dtype in ("str", "string", "category", "string[pyarrow]"):
        assert keys(["a", "ß"], dtype) == keys(["a", "ß"], "object"), dtype
    zone = pd.Series(pd.to_datetime(["2013-01-01T05:00Z"])).dt.tz_convert("America/New_York")
    for other in (zone.astype("datetime64[ns, America/New_York]"), zone.dt.tz_convert(None)):
        assert hash_rows(other.to_frame("k"), {}).tolist() == hash_rows(zone.to_frame("k"), {}).tolist()


def test_nested_values():
    import pyarrow as pa

    table = pa.table({"l": [[1, 2], [1], None], "s": [{"a": 1}, {"a": 2}, {"a": None}]}).to_pandas()
    keys = hash_rows(table, {})
    assert len(set(keys.tolist())) == 3
    assert keys.tolist() == hash_rows(table.copy(), {}).tolist()


def test_the_order_of_columns_and_rows_does_not_matter():
    one = hash_rows(frame(), {})
    other = hash_rows(frame()[["x", "at", "naïve", "id"]].iloc[::-1], {})
    assert one.tolist() == other[::-1].tolist()


def test_the_key_role_alone_identifies_a_row():
    changed = frame().assign(x=[9.0, 9.0, 9.0])
    assert hash_rows(changed, {"key": "id"}).tolist() == hash_rows(frame(), {"key": ["id"]}).tolist()
    assert hash_rows(changed, {}).tolist() != hash_rows(frame(), {}).tolist()


def test_a_missing_key_column():
    with pytest.raises(MissingColumnError, match=r"'naive'.*did you mean 'naïve'"):
        hash_rows(frame(), {"key": "naive"})


def test_stored_keys_come_back(store):
    keys = hash_rows(frame(), {})
    uri = save_row_keys(store, keys)
    assert uri == save_row_keys(store, keys[::-1])
    known = load_row_keys(store, uri)
    assert seen(hash_rows(frame().iloc[[1]], {}), known).tolist() == [True]
    assert seen(hash_rows(frame().assign(id=7), {}), known).tolist() == [False] * 3


def test_altered_keys_are_refused(store):
    uri = save_row_keys(store, hash_rows(frame(), {}))
    store.put_bytes(store.key_of(uri), b"altered")
    with pytest.raises(IntegrityError, match="altered"):
        load_row_keys(store, uri)


@given(st.lists(st.integers(-(2**62), 2**62), unique=True, max_size=200))
def test_distinct_integers_have_distinct_keys(values):
    assert len(set(hash_rows(pd.DataFrame({"k": values}, dtype="int64"), {}).tolist())) == len(values)


@given(st.lists(st.tuples(st.text(max_size=5), st.floats(allow_nan=False)), unique=True, max_size=100))
def test_distinct_rows_have_distinct_keys(rows):
    table = pd.DataFrame(rows, columns=["a", "b"])
    assert len(set(hash_rows(table, {}).tolist())) == len(rows)
