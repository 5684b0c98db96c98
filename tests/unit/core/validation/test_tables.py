"""Tables and queries held to expectations where they are, on a real Postgres and on SQLite."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.data.dataset import read_table
from airflow_mlops.core.data.sql_connection import VARIABLE
from airflow_mlops.core.errors import (
    CannotReachError,
    MissingColumnError,
    NotFoundError,
    SpecError,
    UnsupportedError,
)
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.validation.step import validate_data
from airflow_mlops.core.vocabulary import DatasetRef

PEOPLE = """
create schema if not exists hr;
drop table if exists hr.people;
create table hr.people (
    id bigint primary key, age integer, "Full Name" text, pay numeric(10, 2), score double precision, team text,
    joined timestamptz, born date, active boolean, tags integer[]
);
insert into hr.people select
    i, case when i % 10 = 0 then null else 18 + i % 50 end, 'Name ' || i, 1000 + i * 1.25, i / 7.0,
    (array['red', 'green', 'blue', 'geheim'])[1 + i % 4], timestamptz '2026-01-01' + i * interval '1 hour',
    date '1980-01-01' + i, i % 2 = 0, array[i]
from generate_series(1, 200) i;
"""
NAME = "Full Name"
#: Each with whether it holds.
EXPECTATIONS: list[tuple[str, dict[str, Any], bool]] = [
    ("expect_column_values_to_not_be_null", {"column": "id"}, True),
    ("expect_column_values_to_not_be_null", {"column": "age"}, False),
    ("expect_column_values_to_not_be_null", {"column": "age", "mostly": 0.9}, True),
    ("expect_column_values_to_be_between", {"column": "age", "min_value": 18, "max_value": 67}, True),
    ("expect_column_values_to_be_between", {"column": "age", "min_value": 30}, False),
    ("expect_column_values_to_be_unique", {"column": "id"}, True),
    ("expect_column_values_to_be_unique", {"column": "team"}, False),
    ("expect_column_values_to_be_in_set", {"column": "team", "value_set": ["red", "green", "blue"]}, False),
    ("expect_column_values_to_match_regex", {"column": NAME, "regex": "^Name [0-9]+$"}, True),
    ("expect_column_values_to_match_regex", {"column": NAME, "regex": "^Name 1"}, False),
    ("expect_column_value_lengths_to_be_between", {"column": NAME, "max_value": 7}, False),
    ("expect_column_mean_to_be_between", {"column": "pay", "min_value": 1000, "max_value": 1200}, True),
    ("expect_column_mean_to_be_between", {"column": "score", "max_value": 1}, False),
    ("expect_column_stdev_to_be_between", {"column": "score", "min_value": 1}, True),
    ("expect_column_median_to_be_between", {"column": "score", "max_value": 1}, False),
    ("expect_column_max_to_be_between", {"column": "id", "max_value": 199}, False),
    ("expect_column_sum_to_be_between", {"column": "id", "min_value": 20100, "max_value": 20100}, True),
    ("expect_column_unique_value_count_to_be_between", {"column": "team", "max_value": 3}, False),
    (
        "expect_column_values_to_be_between",
        {"column": "joined", "min_value": "2026-01-01", "max_value": "2026-01-05"},
        False,
    ),
    ("expect_column_values_to_be_between", {"column": "joined", "min_value": "2026-01-01T00:30Z"}, True),
    ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "id", "column_B": "pay"}, False),
    ("expect_compound_columns_to_be_unique", {"column_list": ["team", "active"]}, False),
    ("expect_compound_columns_to_be_unique", {"column_list": ["team", "id"]}, True),
    ("expect_multicolumn_sum_to_equal", {"column_list": ["id", "pay"], "sum_total": 20}, False),
    ("expect_table_row_count_to_be_between", {"min_value": 100}, True),
    ("expect_table_row_count_to_equal", {"value": 199}, False),
    (
        "expect_column_quantile_values_to_be_between",
        {"column": "score", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 1]]}},
        False,
    ),
    # The schema
    ("expect_column_to_exist", {"column": "age"}, True),
    ("expect_column_to_exist", {"column": "wage"}, False),
    ("expect_table_column_count_to_equal", {"value": 10}, True),
    ("expect_table_columns_to_match_set", {"column_set": ["id", "age"], "exact_match": False}, True),
    ("expect_column_values_to_be_of_type", {"column": "pay", "type_": "float"}, True),
    ("expect_column_values_to_be_of_type", {"column": "id", "type_": "int64"}, True),
    ("expect_column_values_to_be_of_type", {"column": "id", "type_": "string"}, False),
    ("expect_column_values_to_be_in_type_list", {"column": "joined", "type_list": ["timestamp"]}, True),
    ("expect_column_values_to_be_of_type", {"column": "active", "type_": "boolean"}, True),
    ("expect_column_values_to_not_be_null", {"column": "wage"}, False),
    ("expect_column_mean_to_be_between", {"column": "team", "max_value": 1}, False),
]


def suite(*entries: tuple[Any, ...], severity: str = "critical") -> list[dict[str, Any]]:
    return [{"type": e[0], "kwargs": e[1], "severity": severity} for e in entries]


@pytest.fixture(scope="module")
def database(postgres: Any) -> Any:
    postgres.execute(PEOPLE)
    return postgres


@pytest.fixture
def check(database: Any, context: StepContext, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(VARIABLE, database.url)

    def run(*entries: tuple[Any, ...], **arguments: Any) -> dict[str, Any]:
        if "sql" not in arguments:
            arguments.setdefault("table", "hr.people")
        return validate_data(context, expectations=suite(*entries), **arguments)

    return run


def details(report: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(report["details_uri"][7:]).read_text())["expectations"]
    return found


@pytest.fixture(scope="module")
def frame_file(database: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same people as a file."""
    n = np.arange(1, 201)
    frame = pd.DataFrame(
        {
            "id": n,
            "age": pd.array([None if i % 10 == 0 else 18 + i % 50 for i in n], dtype="Int32"),
            NAME: [f"Name {i}" for i in n],
            "pay": 1000 + n * 1.25,
            "score": n / 7.0,
            "team": [("red", "green", "blue", "geheim")[i % 4] for i in n],
            "joined": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(n, unit="h"),
            "born": [dt.date(1980, 1, 1) + dt.timedelta(days=int(i)) for i in n],
            "active": n % 2 == 0,
            "tags": [[int(i)] for i in n],
        }
    )
    path = tmp_path_factory.mktemp("people") / "people.parquet"
    frame.to_parquet(path)
    return path


def test_it_says_what_it_says_of_the_same_rows_in_a_frame(check: Any, frame_file: Path, context: StepContext) -> None:
    report = check(*EXPECTATIONS)
    on_frame = validate_data(context, expectations=suite(*EXPECTATIONS), dataset=str(frame_file))
    pushed, framed = details(report), details(on_frame)
    for (kind, kwargs, holds), one, other in zip(EXPECTATIONS, pushed, framed, strict=True):
        told = (kind, kwargs, one["message"], other["message"])
        assert one["passed"] is holds, told
        assert (one["passed"], one["skew"], one["severity"]) == (other["passed"], other["skew"], other["severity"]), (
            told
        )
        if not holds:
            assert (one["unexpected"], one["total"]) == (other["unexpected"], other["total"]), told
    assert report["metrics"] == on_frame["metrics"]
    assert report["checks"] == on_frame["checks"]
    assert "geheim" not in json.dumps(report) + Path(report["report_uri"][7:]).read_text()


def test_what_breaks_takes_nothing_along(check: Any) -> None:
    report = check(
        ("expect_column_values_to_match_regex", {"column": "age", "regex": "x"}),
        ("expect_column_values_to_not_be_null", {"column": "age"}),
        ("expect_column_values_to_be_in_set", {"column": "tags", "value_set": [1]}),
        ("expect_column_values_to_be_between", {"column": "age", "min_value": 18}),
    )
    found = details(report)
    assert [(one["passed"], one["skew"]) for one in found] == [
        (False, "schema"),
        (False, "value"),
        (False, "schema"),
        (True, None),
    ]
    assert "operator does not exist: integer ~" in found[0]["message"]
    assert "psycopg2" not in found[0]["message"]
    assert found[1]["unexpected"] == 20


def test_only_what_failed_is_asked_twice(check: Any, monkeypatch: Any) -> None:
    from airflow_mlops.core.validation import pushdown

    asked: list[tuple[str, int]] = []
    plain = pushdown._Engine.results

    def results(self: Any, built: Any, kind: str, examples: int = 0) -> Any:
        asked.append((kind, len(built)))
        return plain(self, built, kind, examples)

    monkeypatch.setattr(pushdown._Engine, "results", results)
    check(
        ("expect_column_values_to_not_be_null", {"column": "age"}),
        ("expect_column_values_to_not_be_null", {"column": "id"}),
        ("expect_column_values_to_not_be_null", {"column": "team"}),
    )
    assert asked == [("BOOLEAN_ONLY", 3), ("BASIC", 1)]


def test_the_ref_says_where_and_how_much(check: Any, database: Any, context: StepContext) -> None:
    rule = ("expect_table_row_count_to_be_between", {"min_value": 1})
    report = check(rule, roles={"time": "joined", "key": "id"}, target="score")
    ref = report["dataset"]
    assert (ref["name"], ref["format"], ref["rows"]) == ("people", "table", 200)
    assert ref["uri"] == f"postgresql://127.0.0.1:{database.port}/warehouse#hr.people"
    assert ref["columns"][NAME] == "string"
    assert ref["roles"] == {"time": "joined", "key": "id", "target": "score"}
    assert ref["window"] == {"start": "2026-01-01T01:00:00+00:00", "end": "2026-01-09T08:00:00.000001+00:00"}
    assert report["subject"] == ref["digest"]
    assert "s3cr" not in json.dumps(report)
    again = check(rule, roles={"time": "joined", "key": "id"}, target="score")
    assert again["dataset"]["digest"] == ref["digest"]
    other = check(rule, roles={"time": "joined"}, window={"start": "2026-01-02", "end": "2026-01-03"})
    assert other["dataset"]["digest"] != ref["digest"]
    with pytest.raises(UnsupportedError, match="snapshot"):
        read_table(context.store, DatasetRef.from_dict(ref))


def test_only_the_rows_in_the_window_are_judged(check: Any) -> None:
    window = {"start": "2026-01-02", "end": "2026-01-03"}
    report = check(
        ("expect_table_row_count_to_equal", {"value": 24}),
        ("expect_column_values_to_be_between", {"column": "id", "min_value": 24, "max_value": 47}),
        roles={"time": "joined"},
        window=window,
    )
    assert report["passed"]
    assert report["window"]["start"].startswith("2026-01-02")
    by_day = check(
        ("expect_table_row_count_to_equal", {"value": 3}),
        roles={"time": "born"},
        window={"start": "1980-01-05", "end": "1980-01-08"},
    )
    assert by_day["passed"]
    with pytest.raises(SpecError, match="needs the role 'time'"):
        check(("expect_table_row_count_to_equal", {"value": 3}), window=window)
    with pytest.raises(SpecError, match="must be a timestamp or a date"):
        check(("expect_table_row_count_to_equal", {"value": 3}), window=window, roles={"time": "team"})


def test_no_rows(check: Any) -> None:
    report = check(
        ("expect_column_values_to_not_be_null", {"column": "age"}),
        ("expect_column_to_exist", {"column": "age"}),
        roles={"time": "joined"},
        window={"start": "2030-01-01", "end": "2030-02-01"},
    )
    assert [one["passed"] for one in details(report)] == [None, True, False]
    assert "there are no rows" in report["summary"]


def test_columns_may_have_other_names(check: Any) -> None:
    report = check(
        ("expect_column_values_to_match_regex", {"column": "name", "regex": "^Name"}),
        ("expect_column_values_to_be_between", {"column": "when", "min_value": "2026-01-02"}),
        columns={"name": NAME, "when": "joined"},
        roles={"time": "when", "private": "name"},
        window={"start": "2026-01-02", "end": "2026-01-03"},
    )
    assert report["passed"]
    assert "name" in report["dataset"]["columns"]
    assert NAME not in report["dataset"]["columns"]
    rule = ("expect_table_row_count_to_be_between", {"min_value": 1})
    with pytest.raises(MissingColumnError, match=r"'name' stands for 'Full Nam'.*did you mean 'Full Name'"):
        check(rule, columns={"name": "Full Nam"})
    with pytest.raises(SpecError, match="map that one too"):
        check(rule, columns={"age": "pay"})
    with pytest.raises(MissingColumnError, match="the role 'key' names the column 'idd'"):
        check(rule, roles={"key": "idd"})


def test_a_query_with_parameters(check: Any) -> None:
    report = check(
        ("expect_column_values_to_be_between", {"column": "n", "min_value": 40, "max_value": 50}),
        ("expect_column_values_to_be_unique", {"column": "team"}),
        sql="select team, count(*) as n from hr.people where team <> :not and id <= 200 group by team",
        parameters={"not": "geheim"},
    )
    assert report["passed"], report["summary"]
    assert (report["dataset"]["format"], report["dataset"]["name"], report["dataset"]["rows"]) == ("query", "people", 3)


def test_a_condition(check: Any) -> None:
    condition = {"row_condition": 'col("team") == "red"', "condition_parser": "great_expectations"}
    report = check(
        ("expect_column_values_to_be_between", {"column": "id", "max_value": 100, **condition}),
        ("expect_column_values_to_be_in_set", {"column": "team", "value_set": ["red"], **condition}),
    )
    first, second = details(report)
    assert (first["unexpected"], first["total"]) == (25, 50)
    assert second["passed"]
    with pytest.raises(SpecError, match="condition_parser 'great_expectations'"):
        check(
            (
                "expect_column_values_to_be_between",
                {"column": "id", "max_value": 1, "row_condition": "team == 'red'", "condition_parser": "pandas"},
            )
        )


def test_values_of_a_column_come_to_the_worker_only_if_they_are_few(check: Any, monkeypatch: Any) -> None:
    from airflow_mlops.core.validation import pushdown

    teams = {"column": "team", "value_set": ["red", "green", "blue", "geheim"]}
    rules = [
        ("expect_column_distinct_values_to_equal_set", teams),
        ("expect_column_distinct_values_to_contain_set", teams),
        ("expect_column_most_common_value_to_be_in_set", {**teams, "ties_okay": True}),
    ]
    assert check(*rules)["passed"]
    failing = [(kind, {"column": "team", "value_set": ["pink"]}) for kind, _ in rules[:2]]
    more, less = {**teams, "value_set": [*teams["value_set"], "pink"]}, {**teams, "value_set": ["red"]}
    kinds = [f"expect_column_distinct_values_to_{end}" for end in ("equal_set", "contain_set", "be_in_set")]
    found = check(*((kind, more) for kind in kinds), *((kind, less) for kind in kinds))
    assert [one["passed"] for one in details(found)] == [False, False, True, False, True, False]
    monkeypatch.setattr(pushdown, "MAX_VALUES", 3)
    for shown in (False, True):
        assert [one["passed"] for one in details(check(*failing, show_values=shown))] == [False, False]
    with pytest.raises(UnsupportedError, match="'team' has more than 3 different values"):
        check(("expect_column_values_to_not_be_null", {"column": "id"}), rules[2])


def test_values_are_shown_only_on_demand(check: Any) -> None:
    rules = [
        ("expect_column_values_to_be_in_set", {"column": "team", "value_set": ["red", "green", "blue"]}),
        ("expect_column_max_to_be_between", {"column": "pay", "max_value": 3}),
    ]
    hidden, shown = check(*rules), check(*rules, show_values=True)
    assert "geheim" not in Path(hidden["details_uri"][7:]).read_text()
    assert details(shown)[0]["examples"] == ["geheim"] * 20
    assert details(shown)[1]["observed"] == 1250
    assert "geheim" not in json.dumps(shown)
    private = check(*rules, show_values=True, roles={"private": ["team", "pay"]})
    assert "geheim" not in Path(private["details_uri"][7:]).read_text()


def test_what_does_not_run_in_a_database(check: Any) -> None:
    with pytest.raises(SpecError, match=r"does not run in a database.*take a snapshot"):
        check(("expect_column_values_to_be_dateutil_parseable", {"column": "team"}))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"table": "hr.nobody"}, NotFoundError, 'relation "hr.nobody" does not exist'),
        ({"table": "a.b.c.d"}, SpecError, "'schema.name'"),
        ({"table": "hr.people; drop table hr.people"}, SpecError, "'schema.name'"),
        ({"sql": "select * from hr.nobody"}, NotFoundError, "does not exist"),
        ({"table": "hr.people", "sql": "select 1"}, SpecError, "got table and sql"),
        ({"table": ""}, SpecError, "got none"),
        ({"dataset": "x.parquet", "table": "", "columns": {"a": "b"}}, SpecError, "'columns' goes with 'table'"),
    ],
)
def test_bad_arguments(check: Any, database: Any, arguments: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        check(("expect_table_row_count_to_be_between", {"min_value": 1}), **arguments)
    assert database.execute("select count(*) from hr.people") == [(200,)]


def test_a_database_that_goes_away_is_no_verdict(
    check: Any, database: Any, context: StepContext, monkeypatch: Any
) -> None:
    from airflow_mlops.core.validation import pushdown

    plain = pushdown._Engine.results

    def results(self: Any, *more: Any) -> Any:
        database.restart()
        return plain(self, *more)

    monkeypatch.setattr(pushdown._Engine, "results", results)
    with pytest.raises(CannotReachError) as caught:
        check(("expect_column_values_to_not_be_null", {"column": "age"}))
    assert caught.value.retryable
    assert list(context.store.keys("reports")) == []


def test_the_verdict_is_about_one_instant(check: Any, database: Any, monkeypatch: Any) -> None:
    from airflow_mlops.core.validation import pushdown

    database.execute(
        "drop table if exists hr.live", "create table hr.live as select 1 as a from generate_series(1, 100)"
    )
    plain = pushdown._Engine.results

    def results(self: Any, *more: Any) -> Any:
        database.execute("insert into hr.live values (null), (2)")
        return plain(self, *more)

    monkeypatch.setattr(pushdown._Engine, "results", results)
    report = check(
        ("expect_column_values_to_be_in_set", {"column": "a", "value_set": [3]}),
        ("expect_column_values_to_not_be_null", {"column": "a"}),
        ("expect_column_values_to_match_regex", {"column": "a", "regex": "x"}),
        table="hr.live",
    )
    first, second, _ = details(report)
    assert (first["unexpected"], first["total"], second["passed"]) == (100, 100, True)
    assert report["dataset"]["rows"] == 100


def test_the_other_driver_says_the_same(check: Any, database: Any, monkeypatch: Any) -> None:
    expected = details(check(*EXPECTATIONS))
    monkeypatch.setenv(VARIABLE, database.url.replace("+psycopg2", "+psycopg"))
    found = details(check(*EXPECTATIONS))
    drop = ("message", "observed")
    assert [{k: v for k, v in one.items() if k not in drop} for one in found] == [
        {k: v for k, v in one.items() if k not in drop} for one in expected
    ]


def test_sqlite(context: StepContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hr.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table people (id integer primary key, age integer, team text, pay real)")
        connection.executemany(
            "insert into people values (?, ?, ?, ?)",
            [(i, None if i % 10 == 0 else 18 + i % 50, ("red", "geheim")[i % 2], i / 2) for i in range(1, 101)],
        )
    connection.close()
    monkeypatch.setenv(VARIABLE, f"sqlite:///{path}")
    report = validate_data(
        context,
        table="people",
        expectations=suite(
            ("expect_column_values_to_not_be_null", {"column": "age"}),
            ("expect_column_values_to_be_between", {"column": "age", "min_value": 18}),
            ("expect_column_values_to_be_unique", {"column": "team"}),
            ("expect_column_mean_to_be_between", {"column": "pay", "max_value": 1}),
            ("expect_column_stdev_to_be_between", {"column": "pay", "min_value": 1}),
            ("expect_column_values_to_be_of_type", {"column": "pay", "type_": "float"}),
            ("expect_column_values_to_be_of_type", {"column": "pay", "type_": "int"}),
            ("expect_column_values_to_not_be_null", {"column": "wage"}),
            ("expect_column_values_to_match_regex", {"column": "team", "regex": "^(red|geheim)$"}),
        ),
    )
    assert [(one["passed"], one["skew"]) for one in details(report)] == [
        (False, "value"),
        (True, None),
        (False, "value"),
        (False, "value"),
        (True, None),
        (True, None),
        (False, "schema"),
        (False, "schema"),
        (True, None),
    ]
    assert report["dataset"]["uri"] == f"sqlite:///{path}#people"
