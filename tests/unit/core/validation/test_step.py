"""The step: a dataset in, one report out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.errors import MissingExtraError, MissingSourceError, SpecError
from airflow_mlops.core.plain import clean
from airflow_mlops.core.steps import StepContext, run_step
from airflow_mlops.core.validation.step import validate_data
from airflow_mlops.core.xcom import fit_xcom

NOT_NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age"}}
KNOWN = {
    "type": "expect_column_values_to_be_in_set",
    "kwargs": {"column": "name", "value_set": ["Anna"]},
    "severity": "warning",
}


@pytest.fixture
def people(tmp_path: Path) -> str:
    path = tmp_path / "people.parquet"
    pd.DataFrame({"age": pd.array([25, None], "Int64"), "name": ["Anna", "<b>QQSECRET</b>"]}).to_parquet(path)
    return str(path)


def read(uri: str) -> str:
    return Path(unquote(urlsplit(uri).path)).read_text(encoding="utf-8")


def test_the_report_and_what_it_points_at(context: StepContext, people: str) -> None:
    report = validate_data(context, dataset=people, expectations=[KNOWN, NOT_NULL], name="staff")

    assert (report["kind"], report["passed"], report["severity"]) == ("validation", False, "error")
    assert report["metrics"] == {"schema_skew": 0, "value_skew": 2, "rows": 2, "columns": 2, "expectations": 2}
    assert report["checks"] == {"total": 2, "failed": 2}
    assert [failure["column"] for failure in report["failures"]] == ["age", "name"]
    assert (
        report["summary"]
        == "staff: value skew in 2 of 2 expectations on 2 rows. Worst: age: 1 of 2 values (50.0%) are null."
    )
    assert report["subject"] == report["dataset"]["digest"]
    assert report["dataset"]["kind"] == "dataset"
    details = json.loads(read(report["details_uri"]))
    assert {"type", "column", "passed", "severity", "skew", "unexpected", "total"} <= set(details["expectations"][0])
    assert details["types"] == {"age": "int64", "name": "string"}


def test_the_page(context: StepContext, people: str) -> None:
    gone = {"type": "expect_column_to_exist", "kwargs": {"column": "gone"}}
    fine = {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 2}}

    page = read(validate_data(context, dataset=people, expectations=[NOT_NULL, KNOWN, gone, fine])["report_uri"])

    order = [page.index(text) for text in ("Failed", "Schema skew: 1", "Value skew: 2", "As expected: 1")]
    assert order == sorted(order)
    assert "SECRET" not in page


def test_values_are_shown_when_asked_for_and_only_in_the_store(
    context: StepContext, people: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    report = validate_data(context, dataset=people, expectations=[KNOWN], show_values=True)

    assert "&lt;b&gt;QQSECRET" in read(report["report_uri"])
    assert "<b>QQSECRET" not in read(report["report_uri"])
    assert "<b>QQSECRET</b>" in read(report["details_uri"])
    assert "SECRET" not in json.dumps(report) + caplog.text


def test_private_columns_show_no_value(context: StepContext, people: str) -> None:
    report = validate_data(context, dataset=people, expectations=[KNOWN], show_values=True, roles={"private": "name"})

    assert "SECRET" not in read(report["report_uri"]) + read(report["details_uri"])


def test_integers_with_nulls_are_still_integers(context: StepContext, people: str) -> None:
    suite = [{"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "age", "type_": "int64"}}]

    assert validate_data(context, dataset=people, expectations=suite)["passed"]


def test_again_is_the_same_report(context: StepContext, people: str) -> None:
    first = validate_data(context, dataset=people, expectations=[KNOWN])
    again = validate_data(context, dataset=people, expectations=[KNOWN])
    other = validate_data(context, dataset=people, expectations=[NOT_NULL])

    assert (again["report_uri"], again["digest"]) == (first["report_uri"], first["digest"])
    assert other["report_uri"] != first["report_uri"]


def test_an_empty_file_fails_with_a_reason(context: StepContext, tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    pq.write_table(pa.table({"age": pa.array([], pa.int64())}), path)

    report = validate_data(context, dataset=str(path), expectations=[NOT_NULL])

    assert (report["passed"], report["failures"][0]["message"]) == (False, "there are no rows")
    assert "Not judged: 1" in read(report["report_uri"])


def test_two_columns_of_one_name(context: StepContext, tmp_path: Path) -> None:
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["age", "age"]), path)

    with pytest.raises(SpecError, match="'age'"):
        validate_data(context, dataset=str(path), expectations=[NOT_NULL])


def test_hundreds_of_failures_fit_xcom(context: StepContext, tmp_path: Path) -> None:
    path = tmp_path / "wide.parquet"
    names = [f"spalte_{'ü' * 40}_{i}" for i in range(300)]
    pq.write_table(pa.table({name: [None, 1] for name in names}), path)
    suite = [{**NOT_NULL, "kwargs": {"column": name}} for name in names]

    report = validate_data(context, dataset=str(path), expectations=suite)

    assert report["checks"]["failed"] == 300
    assert len(report["failures"]) == 20
    assert len(json.dumps(fit_xcom(clean(report)), ensure_ascii=False).encode()) <= 16 * 1024
    assert len(json.loads(read(report["details_uri"]))["expectations"]) == 300


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"dataset": "nowhere/*.parquet"}, MissingSourceError, "nowhere"),
        ({"show_values": "yes"}, SpecError, "show_values must be True or False"),
        ({"roles": {"privat": "name"}}, SpecError, "did you mean 'private'"),
        ({"expectation": []}, SpecError, "has no argument 'expectation'; did you mean 'expectations'"),
    ],
)
def test_bad_arguments(people: str, tmp_path: Path, arguments: dict[str, Any], error: type, says: str) -> None:
    args = {"dataset": people, "expectations": [NOT_NULL], **arguments}

    with pytest.raises(error, match=says):
        run_step({"step": "validate_data", "args": args, "store": str(tmp_path / "store")})


def test_without_the_library_it_says_how_to_install_it(people: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "great_expectations", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'airflow-provider-mlops\[great-expectations\]'"):
        validate_data(StepContext(store=None), dataset=people, expectations=[NOT_NULL])  # type: ignore[arg-type]
