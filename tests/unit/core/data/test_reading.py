"""Sources: which files they are, how text becomes columns, and what is said when they cannot be read."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.data import delimited, jsonlines
from airflow_mlops.core.data.reading import Source, open_source
from airflow_mlops.core.errors import (
    CorruptDataError,
    MissingColumnError,
    MissingSourceError,
    MixedSchemaError,
    MlopsError,
    SourceChangedError,
    SpecError,
    UnsupportedError,
)


def table_of(source: Source, columns: list[str] | None = None) -> pa.Table:
    batches = list(source.batches(columns))
    return pa.Table.from_batches(batches, batches[0].schema if batches else source.schema)


def csv(tmp_path: Path, text: str, name: str = "x.csv") -> Source:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return open_source(str(tmp_path / name))


@pytest.fixture(params=[64, 4 << 20], ids=["small blocks", "one block"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Text is parsed in blocks; what is read must not depend on where they end."""
    monkeypatch.setattr(delimited, "BLOCK", request.param)
    monkeypatch.setattr(jsonlines, "BLOCK", request.param)
    return request.param


# Files


def test_globs_folders_lists_and_uris_give_files_sorted_by_path(tmp_path: Path) -> None:
    folder = tmp_path / "größe [1]"
    (folder / "sub").mkdir(parents=True)
    for name, value in (("b.parquet", 2), ("a.parquet", 1), ("sub/c.parquet", 3), ("_SUCCESS", 0), (".x.parquet", 0)):
        pq.write_table(pa.table({"v": [value]}), folder / name)
    escaped = str(folder).replace("[", "[[]")
    assert table_of(open_source(f"{escaped}/*.parquet"))["v"].to_pylist() == [1, 2]
    assert table_of(open_source(f"{escaped}/**/*.parquet"))["v"].to_pylist() == [1, 2, 3]
    assert table_of(open_source(str(folder)))["v"].to_pylist() == [1, 2, 3]
    assert table_of(open_source((folder / "a.parquet").as_uri()))["v"].to_pylist() == [1]
    both = open_source([str(folder / "sub/c.parquet"), str(folder / "a.parquet"), f"{escaped}/a*"])
    assert table_of(both)["v"].to_pylist() == [1, 3]


def test_a_relative_path_is_read_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"v": [1]}), tmp_path / "a.parquet")
    monkeypatch.chdir(tmp_path)
    assert open_source("a.parquet").uri == str(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("flights-2013.csv.gz", "flights-2013"),
        ("flights-*.csv.gz", None),
        (["flights-2013.csv.gz"], "flights-2013"),
        ("", None),
    ],
)
def test_the_name_comes_from_the_file_or_its_folder(tmp_path: Path, given: Any, name: str | None) -> None:
    folder = tmp_path / "landing"
    folder.mkdir()
    with gzip.open(folder / "flights-2013.csv.gz", "wt") as file:
        file.write("a\n1\n")
    made = [str(folder / g) for g in given] if isinstance(given, list) else str(folder / given)
    assert open_source(made).name == (name or "landing")


def test_nothing_matches_and_the_nearest_is_named(tmp_path: Path) -> None:
    (tmp_path / "flights-2013-01.csv").write_text("a\n1\n")
    with pytest.raises(MissingSourceError, match=r"did you mean 'flights-2013-01\.csv'"):
        open_source(str(tmp_path / "flight-2013-01.csv"))
    with pytest.raises(MissingSourceError, match=r"has flights-2013-01\.csv"):
        open_source(str(tmp_path / "*.parquet"))
    with pytest.raises(MissingSourceError, match="there is no 'landign' in"):
        open_source(str(tmp_path / "landign" / "*.csv"))
    with pytest.raises(MissingSourceError, match="empty list"):
        open_source([])


def test_foreign_schemes_formats_and_table_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="gs://"):
        open_source("gs://bucket/x.parquet")
    (tmp_path / "x.xlsx").write_text("?")
    with pytest.raises(UnsupportedError, match=r"must end in \.parquet"):
        open_source(str(tmp_path / "x.xlsx"))
    with pytest.raises(SpecError, match="empty"):
        open_source(" ")
    with pytest.raises(SpecError, match="got int"):
        open_source(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("marker", "kind"),
    [("_delta_log/0.json", "Delta Lake"), ("metadata/v1.metadata.json", "Iceberg"), (".hoodie/x", "Hudi")],
)
def test_the_files_of_a_table_format_are_not_read_as_if_they_were_the_table(
    tmp_path: Path, marker: str, kind: str
) -> None:
    (tmp_path / "t" / marker).parent.mkdir(parents=True)
    (tmp_path / "t" / marker).write_text("{}")
    (tmp_path / "t" / "data").mkdir()
    pq.write_table(pa.table({"v": [1]}), tmp_path / "t" / "data" / "1.parquet")
    for source in (tmp_path / "t", tmp_path / "t" / "data" / "*.parquet", tmp_path / "t" / "data" / "1.parquet"):
        with pytest.raises(UnsupportedError, match=kind):
            open_source(str(source))


def test_a_folder_whose_names_hold_columns_is_refused_rather_than_read_without_them(tmp_path: Path) -> None:
    (tmp_path / "t" / "year=2013").mkdir(parents=True)
    pq.write_table(pa.table({"v": [1]}), tmp_path / "t" / "year=2013" / "1.parquet")
    with pytest.raises(UnsupportedError, match="year=2013"):
        open_source(str(tmp_path / "t"))


def test_files_of_two_formats_are_no_source(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "a.jsonl").write_text('{"a":1}\n')
    with pytest.raises(SpecError, match="csv, jsonl"):
        open_source(str(tmp_path / "a.*"))


def test_a_parquet_file_without_a_known_ending_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [1]}), tmp_path / "part-00000")
    assert open_source(str(tmp_path / "part-00000")).format == "parquet"


# Parquet


def test_mixed_schemas_name_file_column_and_both_types(tmp_path: Path) -> None:
    pq.write_table(pa.table({"age": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"age": ["old"]}), tmp_path / "b.parquet")
    with pytest.raises(MixedSchemaError) as error:
        _ = open_source(f"{tmp_path}/*.parquet").schema
    assert error.value.fields == {
        "path": str(tmp_path / "b.parquet"),
        "column": "age",
        "types": ["int64", "string"],
    }
    assert "b.parquet" in error.value.message
    assert "a.parquet" in error.value.message
    pq.write_table(pa.table({"age": [1], "extra": [1]}), tmp_path / "b.parquet")
    with pytest.raises(MixedSchemaError, match=r"column 'extra' is in .*b.parquet, but not in .*a.parquet"):
        _ = open_source(f"{tmp_path}/*.parquet").schema
    pq.write_table(pa.table({"other": [1]}), tmp_path / "b.parquet")
    with pytest.raises(MixedSchemaError, match="other"):
        _ = open_source(f"{tmp_path}/*.parquet").schema


def test_order_of_columns_all_null_files_and_encodings_may_differ(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.nulls(1), "b": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": pa.array(["y"]).dictionary_encode(), "a": [2]}), tmp_path / "2.parquet")
    table = table_of(open_source(f"{tmp_path}/*.parquet"))
    assert table.to_pydict() == {"a": [None, 2], "b": ["x", "y"]}
    assert [str(f.type) for f in table.schema] == ["int64", "string"]


def test_a_given_type_settles_what_files_disagree_on(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1], pa.int32())}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [2.0]}), tmp_path / "2.parquet")
    assert table_of(open_source(f"{tmp_path}/*.parquet", types={"a": "int64"}))["a"].to_pylist() == [1, 2]
    pq.write_table(pa.table({"a": [2.5]}), tmp_path / "2.parquet")
    with pytest.raises(UnsupportedError, match="column 'a' cannot be turned from double into int64"):
        table_of(open_source(f"{tmp_path}/*.parquet", types={"a": "int64"}))


def test_an_unnamed_pandas_index_is_no_column(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": [1, 2, 3]})
    frame[frame["a"] != 2].to_parquet(tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    assert source.columns == {"a": "int64"}
    assert table_of(source).to_pandas().to_dict("list") == {"a": [1, 3]}


@pytest.mark.parametrize("damage", ["empty", "text", "cut short", "flipped"])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, damage: str) -> None:
    for name in ("a", "b"):
        pq.write_table(pa.table({"v": list(range(50_000))}), tmp_path / f"{name}.parquet", compression="gzip")
    path = tmp_path / "b.parquet"
    data = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "text": b"hello",
            "cut short": data[: len(data) // 2],
            "flipped": data[:5000] + bytes(2000) + data[7000:],
        }[damage]
    )
    with pytest.raises(CorruptDataError, match=r"b\.parquet cannot be read as parquet"):
        table_of(open_source(f"{tmp_path}/*.parquet"))


def test_a_file_that_grows_while_it_is_read_is_a_changed_source_not_a_corrupt_one(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"v": [1]}), path)
    source = open_source(str(path))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(SourceChangedError, match=r"a\.parquet was written to") as error:
        table_of(source)
    assert error.value.retryable


@pytest.mark.parametrize("change", ["written", "replaced", "removed", "added"])
def test_every_change_of_the_files_is_noticed(tmp_path: Path, change: str) -> None:
    for name in ("a", "b"):
        pq.write_table(pa.table({"v": [1]}), tmp_path / f"{name}.parquet")
    source = open_source(f"{tmp_path}/*.parquet")
    table_of(source)
    source.check_unchanged()
    path, new = tmp_path / "b.parquet", tmp_path / "new"
    before = path.stat()
    if change == "written":
        path.write_bytes(path.read_bytes() + b"x")
    elif change == "replaced":
        new.write_bytes(path.read_bytes())
        os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
        new.rename(path)
    elif change == "removed":
        path.unlink()
    else:
        pq.write_table(pa.table({"v": [1]}), tmp_path / "c.parquet")
    with pytest.raises(SourceChangedError, match=r"c\.parquet appeared" if change == "added" else r"b\.parquet"):
        source.check_unchanged()


def test_duplicate_names_are_refused_in_every_format(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["é", "é"]), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("é,b,é\n1,2,3\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"é": 1, "é": 2}\n', encoding="utf-8")
    for name in ("a.parquet", "a.csv", "a.jsonl"):
        with pytest.raises(MlopsError, match=r"'é'|same key twice"):
            _ = open_source(str(tmp_path / name)).schema


def test_a_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    source = csv(tmp_path, "carrier,origin\nUA,JFK\n")
    with pytest.raises(MissingColumnError, match="did you mean 'carrier'"):
        table_of(source, ["carier"])
    with pytest.raises(MissingColumnError, match="did you mean 'origin'"):
        _ = open_source(str(tmp_path / "x.csv"), types={"orgin": "string"}).schema
    assert table_of(source, ["origin", "carrier"]).to_pydict() == {"origin": ["JFK"], "carrier": ["UA"]}


def test_a_dotted_name_is_a_name_and_not_a_path(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "a.b": [2], "c": [{"d": 3}]}), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    assert table_of(source, ["a"]).to_pydict() == {"a": [1]}
    assert table_of(source, ["a.b"]).to_pydict() == {"a.b": [2]}


# CSV


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        (["1", "NA", "-3"], "int64", [1, None, -3]),
        (["1", "", "2.5"], "double", [1.0, None, 2.5]),
        (["1", "2", "nan"], "int64", [1, 2, None]),
        ([" 1", "2 ", " NA "], "int64", [1, 2, None]),
        (["1e3", "inf", "-1"], "double", [1000.0, float("inf"), -1.0]),
        (["true", "False", "NULL"], "bool", [True, False, None]),
        (["1", "true", "0"], "bool", [True, True, False]),
        (["2013-01-01", "", "2013-02-01"], "date32[day]", [dt.date(2013, 1, 1), None, dt.date(2013, 2, 1)]),
        (
            ["2013-01-01", "2013-01-01 10:00", "2013-01-01T10:00:01.5"],
            "timestamp[us]",
            [dt.datetime(2013, 1, 1), dt.datetime(2013, 1, 1, 10), dt.datetime(2013, 1, 1, 10, 0, 1, 500000)],
        ),
        (
            ["2013-01-01T10:00:00Z", "2013-01-01T10:00:00+02:00"],
            "timestamp[us, tz=UTC]",
            [dt.datetime(2013, 1, 1, h, tzinfo=dt.timezone.utc) for h in (10, 8)],
        ),
        (["1", "2", "three"], "string", ["1", "2", "three"]),
        (["NA", "x", "", "null"], "string", ["NA", "x", None, "null"]),
        (["12345678901234567890123", "12345678901234567890124"], "string", None),
        (["", "NA", ""], "null", [None, None, None]),
        (["9223372036854775807", "1"], "int64", [2**63 - 1, 1]),
    ],
)
def test_a_csv_column_has_the_first_type_that_holds_everywhere(
    tmp_path: Path, block: int, values: list[str], kind: str, read: list[Any] | None
) -> None:
    text = "é,other\n" + "".join(f"{v},row {i} of the file\n" for i, v in enumerate(values))
    source = csv(tmp_path, text)
    assert source.columns == {"é": kind, "other": "string"}
    assert source.rows == len(values)
    assert table_of(source)["é"].to_pylist() == (read if read is not None else values)


def test_csv_types_hold_for_all_files_and_not_the_first_block(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n" + "1,2013-01-01\n" * 300_000)
    (tmp_path / "2.csv").write_text("b,a\n,1.5\n")
    source = open_source(f"{tmp_path}/*.csv")
    assert source.columns == {"a": "double", "b": "date32[day]"}
    assert source.rows == 300_001
    assert table_of(source)["a"].to_pylist()[-1] == 1.5


def test_csv_quoting_bom_line_ends_and_unnamed_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.csv").write_bytes('\ufeff,"a ""q"", b",c\r\n0,"line 1\nline 2","x, y"\r\n1,"",\r\n'.encode())
    table = table_of(open_source(str(tmp_path / "x.csv")))
    assert table.to_pydict() == {
        "Unnamed: 0": [0, 1],
        'a "q", b': ["line 1\nline 2", None],
        "c": ["x, y", None],
    }


@settings(max_examples=50)
@given(
    rows=st.lists(
        st.tuples(st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.floats(allow_nan=False, width=32)),
        min_size=1,
        max_size=10,
    )
)
def test_numbers_come_back_from_csv_as_they_went(tmp_path: Path, rows: list[tuple[int | None, float | None]]) -> None:
    text = "i,f\n" + "".join(f"{'' if i is None else i},{'' if f is None else repr(f)}\n" for i, f in rows)
    read = table_of(csv(tmp_path, text)).to_pylist()
    assert [(r["i"], r["f"]) for r in read] == rows


def test_a_csv_row_with_too_few_fields_is_named_without_its_values(tmp_path: Path, block: int) -> None:
    with pytest.raises(CorruptDataError, match=r"x\.csv .* has 2 fields, but the first line names 3") as error:
        _ = csv(tmp_path, "a,b,c\n1,2,3\nsecret,2\n").schema
    assert "secret" not in str(error.value)


def test_zeros_that_a_code_begins_with_are_not_lost_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert csv(tmp_path, "zip,n,word\n00123,10,01a\n99999,0,x\n").schema.types[:2] == [pa.int64(), pa.int64()]
    (told,) = caplog.messages
    assert "numbers in 'zip' begin with zeros" in told
    assert "schema={'zip': 'string'}" in told
    caplog.clear()
    source = open_source(str(tmp_path / "x.csv"), types={"zip": "string"})
    assert source.schema.field("zip").type == pa.string()
    assert not caplog.messages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a;b;c\n1;2;3\n", r"3 names separated by semicolons.*sep=';', decimal=\",\"\)"),
        ("a;b\n1,5;2,5\n", "2 names separated by semicolons"),
        ("a\tb\n1\t2\n", r"2 names separated by tabs.*sep='\\t'\)"),
        ("a|b|c\n", "3 names separated by bars"),
    ],
)
def test_another_separator_is_named_with_the_cure(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CorruptDataError, match=message):
        _ = csv(tmp_path, text).schema
    assert csv(tmp_path, "a\n1\n").schema.names == ["a"], "one column is no fault"


def test_a_csv_value_that_is_not_of_the_given_type_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n1\nsecret\n")
    with pytest.raises(CorruptDataError, match=r"column 'a' has values that are not int64") as error:
        table_of(open_source(str(tmp_path / "x.csv"), types={"a": "int64"}))
    assert "secret" not in str(error.value)
    assert table_of(open_source(str(tmp_path / "x.csv"), types={"a": "string"}))["a"].to_pylist() == ["1", "secret"]


def test_leading_zeros_stay_where_the_type_is_given(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("zip,at\n01234,2013-01-01\n")
    source = open_source(str(tmp_path / "x.csv"), types={"zip": "string", "at": "timestamp"})
    assert table_of(source).to_pydict() == {"zip": ["01234"], "at": [dt.datetime(2013, 1, 1)]}
    with pytest.raises(SpecError, match="did you mean 'timestamp'"):
        open_source(str(tmp_path / "x.csv"), types={"at": "timestmp"})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a\nÄ\n".encode("latin-1"), "not UTF-8"),
        ("Ä\n1\n".encode("latin-1"), "UTF-8"),
        (b'a,b\n1,"open\n2,3\n', "cannot"),
    ],
)
def test_a_damaged_csv_file_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(CorruptDataError, match=rf"x\.csv .*{message}"):
        table_of(open_source(str(tmp_path / "x.csv")))


@pytest.mark.parametrize("end", ['""', '"x"', '"x"""', 'x"', '"x\ny"', "", '"a ""b"""'])
@pytest.mark.parametrize("newline", ["", "\n"])
def test_values_in_quotes_at_the_end_of_a_file_are_whole(tmp_path: Path, end: str, newline: str) -> None:
    for name in ("x.csv", "x.csv.gz"):
        opener = gzip.open if name.endswith("gz") else open
        with opener(tmp_path / name, "wt") as file:
            file.write(f"a,b\n1,{end}{newline}")
        assert table_of(open_source(str(tmp_path / name))).num_rows == 1


def test_an_open_quote_in_a_gzip_file_is_noticed_too(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.csv.gz", "wt") as file:
        file.write('a,b\n1,"open\n2,3\n')
    with pytest.raises(CorruptDataError, match="not closed"):
        table_of(open_source(str(tmp_path / "x.csv.gz")))


def test_a_gzip_file_that_is_cut_short_is_corrupt(tmp_path: Path) -> None:
    for name, line in (("x.csv.gz", b"a,b\n"), ("x.jsonl.gz", b'{"a": 1}\n')):
        rows = b"".join(b"%d,%d\n" % (i, i * 7919) for i in range(9999)) if "csv" in name else line * 9
        data = gzip.compress(line + rows)
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(CorruptDataError, match=name):
            table_of(open_source(str(tmp_path / name)))


# JSON lines


def test_json_lines_have_one_schema_over_all_files(tmp_path: Path, block: int) -> None:
    rows: list[dict[str, Any]] = [
        {"a": 1, "when": "2013-01-01", "late": None, "nest": {"x": [1]}},
        *({"a": i, "when": f"2013-01-{i:02}T00:00:00"} for i in range(1, 9)),
        {"a": 1.5, "when": "soon", "late": True, "nest": {"y": "é"}, "new": 3},
    ]
    (tmp_path / "1.jsonl").write_text("\ufeff" + "\n".join(json.dumps(r) for r in rows[:5]) + "\n\n", "utf-8")
    (tmp_path / "2.jsonl").write_text("\n" + "\n".join(json.dumps(r) for r in rows[5:]), "utf-8")
    (tmp_path / "3.jsonl").write_text("")
    source = open_source(f"{tmp_path}/*.jsonl")
    assert source.columns == {
        "a": "double",
        "when": "string",
        "late": "bool",
        "nest": "struct<x: list<element: int64>, y: string>",
        "new": "int64",
    }
    table = table_of(source)
    assert source.rows == table.num_rows == 10
    assert table["when"].to_pylist() == [r["when"] for r in rows]
    assert table["nest"].to_pylist() == [{"x": [1], "y": None}, *[None] * 8, {"x": None, "y": "é"}]


def test_json_instants_are_timestamps_where_all_are(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"at": "2013-01-01T10:00:00"}\n{"at": null}\n')
    source = open_source(str(tmp_path / "x.jsonl"))
    assert source.columns == {"at": "timestamp[us]"}
    assert table_of(source)["at"].to_pylist() == [dt.datetime(2013, 1, 1, 10), None]


def test_a_json_number_that_is_elsewhere_text_names_column_and_file(tmp_path: Path, block: int) -> None:
    (tmp_path / "1.jsonl").write_text('{"age": 4}\n' * 20)
    (tmp_path / "2.jsonl").write_text('{"age": "secret"}\n')
    with pytest.raises(MixedSchemaError, match=r"'age' is string in .*2\.jsonl, but int64 .*1\.jsonl") as error:
        _ = open_source(f"{tmp_path}/*.jsonl").schema
    assert "secret" not in str(error.value)
    (tmp_path / "1.jsonl").write_text('{"age": 4}\n{"age": "secret"}\n')
    with pytest.raises(MixedSchemaError, match=r"column 'age'"):
        _ = open_source(f"{tmp_path}/1.jsonl").schema


@pytest.mark.parametrize(
    ("text", "message"),
    [("[{}]", "one JSON array"), ('{"a": 1}\n{"a": ', "JSON lines"), ("hello\n", "JSON lines"), ("3\n", "JSON lines")],
)
def test_a_damaged_json_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(CorruptDataError, match=rf"x\.jsonl .*{message}"):
        table_of(open_source(str(tmp_path / "x.jsonl")))


def test_a_given_type_counts_for_json_too(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": "2013-01-01", "b": 1}\n')
    source = open_source(str(tmp_path / "x.jsonl"), types={"a": "string", "b": "double"})
    assert table_of(source).to_pydict() == {"a": ["2013-01-01"], "b": [1.0]}
    with pytest.raises(CorruptDataError, match="not of the type that schema= gives"):
        _ = open_source(str(tmp_path / "x.jsonl"), types={"a": "int64"}).schema
