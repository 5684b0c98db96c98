"""The digest of content: equal for equal content however it lies in files, unequal for everything else."""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.data.content import digest_of
from airflow_mlops.core.data.reading import open_source
from airflow_mlops.core.errors import SpecError, UnsupportedError

FLOATS = st.floats(width=64) | st.just(float("nan"))
SCALARS: dict[str, tuple[pa.DataType, Any]] = {
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint8": (pa.uint8(), st.integers(0, 255)),
    "double": (pa.float64(), FLOATS),
    "bool": (pa.bool_(), st.booleans()),
    "string": (pa.string(), st.text(max_size=6)),
    "binary": (pa.binary(), st.binary(max_size=6)),
    "date": (pa.date32(), st.dates()),
    "timestamp": (pa.timestamp("us"), st.datetimes()),
    "decimal": (pa.decimal128(10, 2), st.decimals(-9999, 9999, places=2)),
    "null": (pa.null(), st.none()),
}
NESTED: dict[str, tuple[pa.DataType, Any]] = {
    "list": (pa.list_(pa.string()), st.lists(st.none() | st.text(max_size=3), max_size=3)),
    "struct": (
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.float64()))]),
        st.fixed_dictionaries(
            {"a": st.none() | st.integers(-5, 5), "b": st.none() | st.lists(st.floats(0, 1), max_size=2)}
        ),
    ),
    "map": (pa.map_(pa.string(), pa.int64()), st.dictionaries(st.text(max_size=2), st.integers(0, 9), max_size=2)),
}
KINDS = SCALARS | NESTED


@st.composite
def tables(draw: st.DrawFn, kinds: dict[str, Any] = KINDS) -> pa.Table:
    """Tables of one to four columns of any kinds, up to 12 rows, with nulls."""
    rows = draw(st.integers(1, 12))
    columns = {}
    for i, kind in enumerate(draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=4))):
        arrow, values = kinds[kind]
        columns[f"{kind} {i} é"] = pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), arrow)
    return pa.table(columns)


def digest(table: pa.Table) -> str:
    return digest_of(table.to_batches(), table.schema)


def cut(table: pa.Table, borders: list[int]) -> list[pa.Table]:
    edges = sorted({0, table.num_rows, *(b % (table.num_rows + 1) for b in borders)})
    return [table.slice(a, b - a) for a, b in itertools.pairwise(edges)]


@given(tables(), st.lists(st.integers(0, 100), max_size=5))
def test_chunks_do_not_show(table: pa.Table, borders: list[int]) -> None:
    parts = cut(table, borders)
    assert digest_of(parts, table.schema) == digest(table)
    assert digest(pa.concat_tables(parts)) == digest(table)


@settings(max_examples=60)
@given(table=tables(), borders=st.lists(st.integers(0, 100), max_size=3), group=st.integers(1, 5), coding=st.booleans())
def test_files_and_row_groups_do_not_show(
    table: pa.Table, borders: list[int], group: int, coding: bool, tmp_path: Path
) -> None:
    for old in tmp_path.glob("*.parquet"):
        old.unlink()
    for i, part in enumerate(cut(table, borders)):
        pq.write_table(part, tmp_path / f"{i:02}.parquet", row_group_size=group, use_dictionary=coding)
    source = open_source(f"{tmp_path}/*.parquet")
    assert digest_of(source.batches(rows=3), source.schema) == digest(table)


@given(st.lists(st.none() | st.text(max_size=5), min_size=1, max_size=20))
def test_encodings_of_text_do_not_show(values: list[str | None]) -> None:
    plain = pa.table({"t": pa.array(values, pa.string())})
    for other in (
        plain["t"].dictionary_encode(),
        plain["t"].cast(pa.large_string()),
        plain["t"].cast(pa.string_view()),
        pa.chunked_array([plain["t"].combine_chunks().slice(0, 1), plain["t"].combine_chunks().slice(1)]),
    ):
        assert digest(pa.table({"t": other})) == digest(plain)


@given(tables(), st.data())
def test_any_changed_value_shows(table: pa.Table, data: st.DataObject) -> None:
    column = data.draw(st.sampled_from(table.column_names))
    kind = column.split(" ")[0]
    if kind == "null":
        return
    arrow, strategy = KINDS[kind]
    values = table[column].to_pylist()
    row = data.draw(st.integers(0, len(values) - 1))
    new = data.draw(st.none() | strategy)
    before, after = pa.array([values[row]], arrow), pa.array([new], arrow)
    same = before.equals(after) or (before[0].as_py() != before[0].as_py() and after[0].as_py() != after[0].as_py())
    changed = table.set_column(
        table.column_names.index(column), column, pa.array([*values[:row], new, *values[row + 1 :]], arrow)
    )
    if same and str(before) == str(after):
        assert digest(changed) == digest(table)
    elif not same:
        assert digest(changed) != digest(table)


@given(tables(SCALARS), st.randoms(use_true_random=False))
def test_the_order_of_rows_counts(table: pa.Table, random: Any) -> None:
    order = list(range(table.num_rows))
    random.shuffle(order)
    shuffled = table.take(order)
    # repr tells NaN from NaN as equal and -0.0 from 0.0 as different, as the digest does.
    assert (digest(shuffled) == digest(table)) == (repr(shuffled.to_pylist()) == repr(table.to_pylist()))


BASE = pa.table({"a": [1, 2], "b": ["x", "y"]})


@pytest.mark.parametrize(
    "other",
    [
        BASE.rename_columns(["a", "c"]),
        BASE.select(["b", "a"]),
        BASE.select(["a"]),
        BASE.slice(0, 1),
        pa.concat_tables([BASE, BASE]),
        pa.table({"a": pa.array([1, 2], pa.int32()), "b": ["x", "y"]}),
        pa.table({"a": [1.0, 2.0], "b": ["x", "y"]}),
        pa.table({"a": [1, None], "b": ["x", "y"]}),
        pa.table({"a": [1, 2], "b": [b"x", b"y"]}),
        pa.table({"a": [1, 2], "b": ["xy", ""]}),
        pa.table({"a": [1, 2], "b": ["x", None]}),
    ],
    ids=["name", "order of columns", "fewer", "rows", "twice", "width", "type", "null", "binary", "border", "no text"],
)
def test_what_is_different_differs(other: pa.Table) -> None:
    assert digest(other) != digest(BASE)


def test_a_fixed_size_list_is_a_list_like_any_other() -> None:
    values = [[1, 2], None, [3, 4]]
    fixed, free = pa.array(values, pa.list_(pa.int32(), 2)), pa.array(values, pa.list_(pa.int32()))
    assert digest(pa.table({"x": fixed})) == digest(pa.table({"x": free}))
    assert digest(pa.table({"x": fixed.slice(1)})) == digest(pa.table({"x": free.slice(1)}))


def test_borders_between_lists_and_nulls_under_values_show() -> None:
    def of(values: list[Any], kind: pa.DataType) -> str:
        return digest(pa.table({"x": pa.array(values, kind)}))

    texts = pa.list_(pa.string())
    seen = [
        of(v, texts) for v in ([["a"], ["b"]], [["a", "b"], []], [["ab"], []], [[], ["a", "b"]], [["a", "b"], None])
    ]
    assert len(set(seen)) == len(seen)
    assert of([None, 0], pa.int64()) != of([0, None], pa.int64()) != of([0, 0], pa.int64())
    assert of([None], pa.list_(pa.int64())) != of([[]], pa.list_(pa.int64())) != of([[None]], pa.list_(pa.int64()))
    assert of([{"a": None}], pa.struct([("a", pa.int64())])) != of([None], pa.struct([("a", pa.int64())]))


def test_every_nan_is_the_same_and_what_lies_under_a_null_does_not_count() -> None:
    import numpy as np

    quiet = np.array([0x7FF8000000000000], dtype=np.uint64).view(np.float64)
    other = np.array([0xFFF8000000000001], dtype=np.uint64).view(np.float64)
    assert digest(pa.table({"x": pa.array(quiet)})) == digest(pa.table({"x": pa.array(other)}))
    assert digest(pa.table({"x": pa.array([float("nan")])})) != digest(pa.table({"x": pa.array([None], pa.float64())}))
    mask = np.array([True, False])
    under = [pa.array(np.array([junk, 5]), mask=mask) for junk in (1, 99)]
    assert digest(pa.table({"x": under[0]})) == digest(pa.table({"x": under[1]}))


def test_units_of_time_and_spellings_of_utc_do_not_show() -> None:
    at = [dt.datetime(2013, 1, 1, 12), None]
    assert digest(pa.table({"x": pa.array(at, pa.timestamp("s"))})) == digest(
        pa.table({"x": pa.array(at, pa.timestamp("us"))})
    )
    aware = [dt.datetime(2013, 1, 1, 12, tzinfo=dt.timezone.utc)]
    assert digest(pa.table({"x": pa.array(aware, pa.timestamp("ms", "+00:00"))})) == digest(
        pa.table({"x": pa.array(aware, pa.timestamp("us", "UTC"))})
    )
    assert digest(pa.table({"x": pa.array(aware, pa.timestamp("us", "UTC"))})) != digest(
        pa.table({"x": pa.array([dt.datetime(2013, 1, 1, 12)], pa.timestamp("us"))})
    )


def test_the_definition_of_the_digest_is_pinned() -> None:
    """Refs are kept for years: if this fails, the digest needs a new version, not a new expectation."""
    table = pa.table(
        {
            "i": pa.array([1, None, 3], pa.int64()),
            "f": pa.array([1.5, float("nan"), None], pa.float64()),
            "t": pa.array(["ä", "", None], pa.string()),
            "d": pa.array([dt.date(2013, 1, 1), None, None], pa.date32()),
            "m": pa.array([Decimal("1.10"), None, None], pa.decimal128(5, 2)),
            "l": pa.array([[1], [], None], pa.list_(pa.int8())),
            "b": pa.array([True, None, False], pa.bool_()),
        }
    )
    assert digest(table) == "sha256:ca136c268445a484711579d33d2e65622046509441f0cbbcabeca0a33f7a2055"


@pytest.mark.parametrize(
    "kind",
    [
        pa.run_end_encoded(pa.int32(), pa.int64()),
        pa.month_day_nano_interval(),
        pa.dense_union([pa.field("a", pa.int64()), pa.field("b", pa.string())]),
        pa.list_(pa.month_day_nano_interval()),
    ],
    ids=["run-end", "interval", "union", "inside a list"],
)
def test_types_that_cannot_be_stored_are_refused_by_name(kind: pa.DataType) -> None:
    with pytest.raises(UnsupportedError, match="column 'x'"):
        digest_of([], pa.schema([pa.field("x", kind)]))


def test_columns_of_the_same_name_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(SpecError, match="more than one column named 'a'"):
        digest(table)
