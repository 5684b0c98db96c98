"""Quarantine: what fails is set aside with its reasons, what is left holds, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.data.dataset import read_frame, read_table
from airflow_mlops.core.data.snapshot import snapshot_data
from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.validation.expectations import read_expectations
from airflow_mlops.core.validation.outcome import Exposure
from airflow_mlops.core.validation.quarantine import Limits, set_aside
from airflow_mlops.core.validation.step import validate_data
from airflow_mlops.core.vocabulary import DatasetRef

AGES = ("expect_column_values_to_be_between", {"column": "age", "min_value": 18, "max_value": 99})
NAMED = ("expect_column_values_to_not_be_null", {"column": "name"})
UNIQUE = ("expect_column_values_to_be_unique", {"column": "id"})
HALF = {"max_share": 0.5}


def suite(*entries: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [{"type": e[0], "kwargs": e[1], "severity": e[2] if len(e) > 2 else "critical"} for e in entries]


@pytest.fixture
def people(context: StepContext, tmp_path: Path) -> dict[str, Any]:
    """Twenty people, of whom number 3 is too young, 5 has no name, 7 is both, 8 and 9 are one."""
    frame = pd.DataFrame(
        {
            "id": pd.Series([8 if i == 9 else i for i in range(20)], dtype="int32"),
            "age": [7 if i in (3, 7) else 30 + i for i in range(20)],
            "name": [None if i in (5, 7) else f"geheim{i}" for i in range(20)],
            "at": pd.date_range("2026-01-01", periods=20, tz="UTC"),
        }
    )
    frame.to_parquet(tmp_path / "people.parquet")
    return snapshot_data(
        context,
        source=str(tmp_path / "people.parquet"),
        name="people",
        roles={"key": "id", "time": "at", "private": ["name"]},
    )


@pytest.fixture
def check(context: StepContext, people: dict[str, Any]) -> Any:
    def run(*entries: tuple[Any, ...], **arguments: Any) -> dict[str, Any]:
        return validate_data(
            context, **{"dataset": people, "expectations": suite(*entries), "quarantine": HALF, **arguments}
        )

    return run


def frame_of(context: StepContext, ref: dict[str, Any]) -> pd.DataFrame:
    return read_frame(context.store, DatasetRef.from_dict(ref))


def details(report: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(report["details_uri"][7:]).read_text())
    return found


def test_rows_that_fail_are_set_aside_with_their_reasons(
    check: Any, context: StepContext, people: dict[str, Any]
) -> None:
    report = check(AGES, NAMED, UNIQUE)

    assert (report["passed"], report["severity"]) == (True, "warning")
    assert report["summary"].endswith("5 of 20 rows (25.00%) are in quarantine.")
    clean = frame_of(context, report["dataset"])
    assert clean["id"].tolist() == [0, 1, 2, 4, 6, *range(10, 20)]
    aside = frame_of(context, report["quarantine"])
    ages, named, unique = (
        "expect_column_values_to_be_between(age)",
        "expect_column_values_to_not_be_null(name)",
        "expect_column_values_to_be_unique(id)",
    )
    assert [list(reasons) for reasons in aside["quarantine_reasons"]] == [
        *([ages], [named], [ages, named], [unique], [unique])
    ]
    assert report["metrics"]["quarantined_rows"] == 5
    assert report["metrics"]["quarantined_share"] == 0.25
    assert report["metrics"]["quarantined"] == {ages: 2, named: 2, unique: 2}
    assert report["subject"] == report["dataset"]["digest"] != people["digest"]
    for ref, rows in ((report["dataset"], 15), (report["quarantine"], 5)):
        assert ref["rows"] == rows
        assert (ref["roles"], ref["window"], ref["source"]) == (people["roles"], people["window"], people["uri"])
    assert (report["dataset"]["name"], report["quarantine"]["name"]) == ("people", "people.quarantine")
    assert report["dataset"]["columns"] == people["columns"], "types are those of the snapshot"
    page = Path(report["report_uri"][7:]).read_text()
    assert "Quarantine: 5 rows" in page
    assert "geheim" not in page + json.dumps(report) + json.dumps(details(report))
    assert details(report)["quarantine"]["expectations"][0] == {"type": AGES[0], "column": "age", "rows": 2}


def test_what_goes_on_holds(check: Any, context: StepContext) -> None:
    report = check(AGES, NAMED, UNIQUE)
    again = check(AGES, NAMED, UNIQUE, dataset=report["dataset"])
    assert (again["severity"], again["metrics"]["quarantined_rows"]) == ("ok", 0)
    assert again["dataset"] == report["dataset"]
    assert "quarantine" not in again
    assert "Quarantine" not in Path(again["report_uri"][7:]).read_text()


def test_twice_is_once(check: Any, context: StepContext) -> None:
    first, keys = check(AGES, NAMED), sorted(context.store.keys(""))
    second = check(AGES, NAMED)
    assert sorted(context.store.keys("")) == keys
    drop = "created_at"
    assert {k: v for k, v in first.items() if k != drop} == {k: v for k, v in second.items() if k != drop}


@pytest.mark.parametrize(
    ("quarantine", "words"),
    [
        (True, "max_share is 0.05"),
        ({"max_share": 0.2}, "max_share is 0.2"),
        ({"max_share": 0.5, "max_rows": 4}, "max_rows is 4"),
    ],
)
def test_too_many_stop_the_run(
    check: Any, context: StepContext, people: dict[str, Any], quarantine: Any, words: str
) -> None:
    before = sorted(context.store.keys("data"))
    report = check(AGES, NAMED, UNIQUE, quarantine=quarantine)
    assert (report["passed"], report["severity"]) == (False, "error")
    assert report["summary"].endswith(f"rows (25.00%) fail, too many for quarantine: {words}.")
    assert report["dataset"] == people
    assert "quarantine" not in report
    assert report["metrics"]["quarantined_rows"] == 0
    assert sorted(context.store.keys("data")) == before
    assert "Nothing was set aside" in Path(report["report_uri"][7:]).read_text()


def test_all_rows_are_too_many_whatever_the_limit(check: Any) -> None:
    report = check(
        ("expect_column_values_to_be_between", {"column": "age", "max_value": 1}), quarantine={"max_share": 1}
    )
    assert report["severity"] == "error"
    assert "that is all of them" in report["summary"]


def test_failures_about_the_whole_still_fail(check: Any, context: StepContext) -> None:
    report = check(
        AGES,
        ("expect_table_row_count_to_be_between", {"min_value": 100}),
        ("expect_column_max_to_be_between", {"column": "age", "max_value": 40}),
    )
    assert report["severity"] == "error"
    assert report["quarantine"]["rows"] == 2
    assert [f["type"] for f in report["failures"] if f["severity"] == "error"] == [
        "expect_table_row_count_to_be_between",
        "expect_column_max_to_be_between",
    ]
    fewer = check(AGES, ("expect_table_row_count_to_be_between", {"min_value": 19}))
    assert fewer["severity"] == "error", "what goes on must hold too"
    schema = check(AGES, ("expect_column_to_exist", {"column": "wage"}))
    assert schema["severity"] == "error"
    assert schema["metrics"]["schema_skew"] == 1


def test_warnings_go_only_where_asked(check: Any) -> None:
    warning = (*AGES, "warning")
    kept = check(warning, NAMED)
    assert kept["quarantine"]["rows"] == 2
    gone = check(warning, NAMED, quarantine={"max_share": 0.5, "severity": "warning"})
    assert gone["quarantine"]["rows"] == 3
    stopped = check(warning, quarantine={"max_share": 0.01, "severity": "warning"})
    assert stopped["severity"] == "error"


def test_what_holds_within_its_tolerance_sends_nobody(check: Any) -> None:
    tolerant = (AGES[0], {**AGES[1], "mostly": 0.9})
    report = check(tolerant)
    assert (report["severity"], report["metrics"]["quarantined_rows"]) == ("ok", 0)


def test_a_tolerance_that_no_longer_holds_comes_up_in_the_next_round(context: StepContext, tmp_path: Path) -> None:
    """Of ten rows one is bad for b (mostly 0.9 holds); without two that are bad for a it is one of eight."""
    frame = pd.DataFrame({"a": [1] * 8 + [9, 9], "b": [9] + [1] * 9})
    frame.to_parquet(tmp_path / "x.parquet")
    report = validate_data(
        context,
        dataset=str(tmp_path / "x.parquet"),
        expectations=suite(
            ("expect_column_values_to_be_between", {"column": "a", "max_value": 5}),
            ("expect_column_values_to_be_between", {"column": "b", "max_value": 5, "mostly": 0.9}),
        ),
        quarantine=HALF,
    )
    assert report["severity"] == "warning"
    assert report["quarantine"]["rows"] == 3
    assert frame_of(context, report["dataset"])["b"].max() == 1


def test_several_columns_and_conditions(context: StepContext, tmp_path: Path) -> None:
    frame = pd.DataFrame({"low": [1, 5, 3, 4], "high": [2, 2, 3, 9], "g": ["x", "x", "y", "y"], "n": [1, 1, 2, 3]})
    frame.to_parquet(tmp_path / "x.parquet")

    def aside(kind: str, **kwargs: Any) -> list[int]:
        report = validate_data(
            context,
            dataset=str(tmp_path / "x.parquet"),
            expectations=suite((kind, kwargs)),
            quarantine={"max_share": 0.9},
        )
        return frame_of(context, report["quarantine"])["low"].tolist() if "quarantine" in report else []

    assert aside(
        "expect_column_pair_values_a_to_be_greater_than_b", column_A="high", column_B="low", or_equal=True
    ) == [5]
    assert aside("expect_compound_columns_to_be_unique", column_list=["g", "n"]) == [1, 5]
    assert aside("expect_multicolumn_sum_to_equal", column_list=["low", "high"], sum_total=7) == [1, 3, 4]
    condition = {"row_condition": 'g == "y"', "condition_parser": "pandas"}
    assert aside("expect_column_values_to_be_between", column="low", max_value=3, **condition) == [4]


def test_rows_judged_by_other_rows_stay(check: Any) -> None:
    report = check(("expect_column_values_to_be_increasing", {"column": "age"}))
    assert report["severity"] == "error"
    assert report["metrics"]["quarantined_rows"] == 0


def test_nested_and_null_columns_keep_their_types(context: StepContext, tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, None, 3], pa.int64()),
            "tags": pa.array([["a"], None, []], pa.list_(pa.string())),
            "quarantine_reasons": pa.array(["x", "y", "z"]),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    report = validate_data(
        context,
        dataset=str(tmp_path / "x.parquet"),
        expectations=suite(("expect_column_values_to_not_be_null", {"column": "id"})),
        quarantine=HALF,
    )
    assert read_table(context.store, DatasetRef.from_dict(report["dataset"])).to_pylist() == [
        {"id": 1, "tags": ["a"], "quarantine_reasons": "x"},
        {"id": 3, "tags": [], "quarantine_reasons": "z"},
    ]
    assert list(report["quarantine"]["columns"]) == ["id", "tags", "quarantine_reasons", "_quarantine_reasons"]


@pytest.mark.parametrize(
    ("quarantine", "words"),
    [
        ({"max_shares": 1}, "did you mean 'max_share'"),
        ({"max_share": 0}, "above 0"),
        ({"max_share": "much"}, "above 0"),
        ({"max_rows": 0.5}, "whole number"),
        ({"severity": "info"}, "'error' or 'warning'"),
        ("yes", "True or an object"),
    ],
)
def test_options_that_cannot_be(check: Any, quarantine: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        check(AGES, quarantine=quarantine)


def test_a_limit_from_a_template_is_text(check: Any) -> None:
    assert check(AGES, quarantine={"max_share": "0.5", "max_rows": "2"})["quarantine"]["rows"] == 2
    assert check(AGES, quarantine={"max_share": "0.5", "max_rows": "1"})["severity"] == "error"


def test_a_table_has_no_quarantine(context: StepContext) -> None:
    with pytest.raises(SpecError, match="take a snapshot"):
        validate_data(context, table="t", expectations=suite(AGES), quarantine=True)


VALUES = st.one_of(st.none(), st.integers(0, 9))
ROWS = st.lists(st.tuples(VALUES, VALUES, st.sampled_from(["x", "y", "z"])), min_size=1, max_size=25)
RULES: list[tuple[str, dict[str, Any]]] = [
    ("expect_column_values_to_not_be_null", {"column": "a"}),
    ("expect_column_values_to_not_be_null", {"column": "b", "mostly": 0.8}),
    ("expect_column_values_to_be_between", {"column": "a", "max_value": 6}),
    ("expect_column_values_to_be_between", {"column": "b", "min_value": 2, "mostly": 0.7}),
    ("expect_column_values_to_be_unique", {"column": "b"}),
    ("expect_column_values_to_be_in_set", {"column": "s", "value_set": ["x", "y"]}),
    ("expect_compound_columns_to_be_unique", {"column_list": ["a", "s"]}),
    ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "a", "column_B": "b", "or_equal": True}),
]


@given(ROWS, st.lists(st.sampled_from(range(len(RULES))), min_size=1, max_size=4, unique=True))
@settings(max_examples=25)
def test_clean_and_quarantined_are_all_and_clean_holds(rows: list[Any], chosen: list[int]) -> None:
    table = pa.table(
        {
            "a": pa.array([r[0] for r in rows], pa.int64()),
            "b": pa.array([r[1] for r in rows], pa.int64()),
            "s": [r[2] for r in rows],
            "n": list(range(len(rows))),
        }
    )
    types = {field.name: str(field.type) for field in table.schema}
    rules = read_expectations(suite(*[RULES[i] for i in chosen]))
    limits = Limits(max_share=1.0)

    found = set_aside(table.to_pandas(), rules, limits, types=types, exposure=Exposure())

    if found.refused:
        assert found.rows == len(rows)
        return
    clean, aside = found.split(table)
    assert sorted(clean["n"].to_pylist() + aside["n"].to_pylist()) == list(range(len(rows)))
    assert clean["n"].to_pylist() == sorted(clean["n"].to_pylist()), "the order stays"
    assert all(aside["quarantine_reasons"].to_pylist()), "each has a reason"
    again = set_aside(clean.to_pandas(), rules, limits, types=types, exposure=Exposure())
    assert (again.rows, [outcome.passed for outcome in again.outcomes]) == (0, [True] * len(rules))
