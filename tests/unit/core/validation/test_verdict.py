"""Frames held to expectations: skew, severity, odd data, and what of the data is given away."""

from __future__ import annotations

import datetime as dt
import gc
import json
import logging
import os
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.validation.outcome import Outcome
from airflow_mlops.core.validation.verdict import Validation

Validate = Callable[..., Validation]
One = Callable[..., Outcome]

PEOPLE = pd.DataFrame(
    {
        "age": [25.0, 31.0, np.nan, 47.0],
        "name": ["Anna", "Béla", "Xenia", "Zoé"],
        "born": pd.to_datetime(["1999-01-01", "1993-05-05", "1990-10-10", "1977-07-07"]),
        "größe": [160, 170, 180, 190],
    }
)


@pytest.mark.parametrize(
    ("kind", "kwargs", "says"),
    [
        ("expect_column_values_to_not_be_null", {"column": "Age"}, "the column 'Age' is missing; did you mean 'age'?"),
        ("expect_column_to_exist", {"column": "nam"}, "the column 'nam' is missing; did you mean 'name'?"),
        ("expect_column_to_exist", {"column": "age", "column_index": 2}, "'age' is number 0, expected number 2"),
        ("expect_table_column_count_to_equal", {"value": 3}, "there are 4 columns, expected 3"),
        (
            "expect_table_columns_to_match_set",
            {"column_set": ["age", "sex"]},
            "the column 'sex' is missing; not expected",
        ),
        (
            "expect_table_columns_to_match_ordered_list",
            {"column_list": ["name", "age", "born", "größe"]},
            "number 0 is 'age', expected 'name'",
        ),
        ("expect_column_values_to_be_of_type", {"column": "name", "type_": "int64"}, "expected int64"),
        (
            "expect_column_values_to_be_in_type_list",
            {"column": "age", "type_list": ["int", "str"]},
            "expected int or str",
        ),
        (
            "expect_column_mean_to_be_between",
            {"column": "name", "min_value": 1},
            "cannot be evaluated on 'name' of type",
        ),
        (
            "expect_column_values_to_be_between",
            {"column": "name", "min_value": 1},
            "cannot be evaluated on 'name' of type",
        ),
        ("expect_compound_columns_to_be_unique", {"column_list": ["age", "sex"]}, "the column 'sex' is missing"),
        (
            "expect_column_pair_values_to_be_equal",
            {"column_A": "p", "column_B": "q"},
            "the columns 'p', 'q' are missing",
        ),
        (
            "expect_column_mean_to_be_between",
            {"column": "age", "min_value": 1, "row_condition": "gone > 1", "condition_parser": "pandas"},
            "name 'gone' is not defined",
        ),
    ],
)
def test_schema_skew(one: One, kind: str, kwargs: dict[str, Any], says: str) -> None:
    found = one(PEOPLE, kind, **kwargs)

    assert (found.passed, found.skew) == (False, "schema")
    assert says in found.message


@pytest.mark.parametrize(
    ("kind", "kwargs", "unexpected", "total", "says"),
    [
        ("expect_column_values_to_not_be_null", {"column": "age"}, 1, 4, "1 of 4 values (25.0%) are null"),
        (
            "expect_column_values_to_be_between",
            {"column": "age", "max_value": 40},
            1,
            3,
            "1 of 3 values (33.3%) are outside",
        ),
        ("expect_column_values_to_be_in_set", {"column": "name", "value_set": ["Anna"]}, 3, 4, "are outside the set"),
        ("expect_column_mean_to_be_between", {"column": "größe", "max_value": 1}, None, None, "at most 1"),
        (
            "expect_column_max_to_be_between",
            {"column": "größe", "max_value": 1},
            None,
            None,
            "the maximum is not as expected",
        ),
        (
            "expect_table_row_count_to_be_between",
            {"min_value": 10},
            None,
            None,
            "the row count is 4, expected at least 10",
        ),
        (
            "expect_column_quantile_values_to_be_between",
            {"column": "größe", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 1]]}},
            None,
            None,
            "the quantiles are not as expected",
        ),
    ],
)
def test_value_skew(
    one: One, kind: str, kwargs: dict[str, Any], unexpected: int | None, total: int | None, says: str
) -> None:
    found = one(PEOPLE, kind, **kwargs)

    assert (found.passed, found.skew) == (False, "value")
    assert (found.unexpected, found.total) == (unexpected, total)
    assert says in found.message
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_missing_column_does_not_swallow_the_others(validate: Validate) -> None:
    found = validate(
        PEOPLE,
        ("expect_column_values_to_be_unique", {"column": "gone"}),
        ("expect_column_values_to_be_unique", {"column": "name"}),
        ("expect_column_mean_to_be_between", {"column": "name", "min_value": 0}),
        ("expect_column_values_to_be_unique", {"column": "name"}),
    )

    assert [o.passed for o in found.outcomes] == [False, True, False, True]
    assert found.metrics == {"schema_skew": 2, "value_skew": 0, "rows": 4, "columns": 4, "expectations": 4}


@pytest.mark.parametrize(
    ("severity", "verdict", "passed"),
    [("critical", "error", False), ("warning", "warning", True), ("info", "ok", True)],
)
def test_severity(validate: Validate, severity: str, verdict: str, passed: bool) -> None:
    found = validate(PEOPLE, ("expect_column_values_to_not_be_null", {"column": "age"}, severity))

    assert (found.severity, found.passed) == (verdict, passed)
    assert len(found.failed) == 1


def test_a_column_that_is_gone_is_an_error_unless_its_absence_is_graded(validate: Validate) -> None:
    about_values = ("expect_column_values_to_not_be_null", {"column": "gone"}, "warning")

    assert validate(PEOPLE, about_values).severity == "error"
    assert (
        validate(PEOPLE, about_values, ("expect_column_to_exist", {"column": "gone"}, "warning")).severity == "warning"
    )


def test_the_worst_comes_first_and_the_summary_says_it(validate: Validate) -> None:
    found = validate(
        PEOPLE,
        ("expect_column_values_to_be_in_set", {"column": "name", "value_set": []}, "warning"),
        ("expect_column_values_to_not_be_null", {"column": "age"}),
        ("expect_column_to_exist", {"column": "gone"}),
    )

    assert [o.expectation.subject for o in found.failed] == ["gone", "age", "name"]
    assert found.summary("people") == (
        "people: schema skew in 1 and value skew in 2 of 3 expectations on 4 rows. Worst: the column 'gone' is missing."
    )


def test_no_rows_fails_and_says_so_and_still_judges_the_schema(validate: Validate) -> None:
    found = validate(
        PEOPLE.head(0),
        ("expect_column_to_exist", {"column": "gone"}, "warning"),
        ("expect_column_values_to_not_be_null", {"column": "age"}),
        ("expect_column_mean_to_be_between", {"column": "age", "min_value": 1}),
    )

    assert [o.passed for o in found.outcomes] == [False, None, None, False]
    assert found.outcomes[-1].message == "there are no rows"
    assert found.severity == "error"


def test_one_row(validate: Validate) -> None:
    found = validate(
        PEOPLE.head(1),
        ("expect_column_values_to_be_unique", {"column": "name"}),
        ("expect_column_mean_to_be_between", {"column": "age", "min_value": 0}),
        ("expect_column_stdev_to_be_between", {"column": "age", "min_value": 0}),
    )

    assert [o.passed for o in found.outcomes[:2]] == [True, True]
    # A mean of one value is that value.
    assert "25" not in json.dumps([o.to_dict() for o in found.outcomes])


def test_a_column_of_nulls(validate: Validate) -> None:
    frame = pd.DataFrame({"empty": [None, None], "id": [1, 2]})

    found = validate(
        frame,
        ("expect_column_values_to_not_be_null", {"column": "empty"}),
        ("expect_column_values_to_be_of_type", {"column": "empty", "type_": "string"}),
        ("expect_column_values_to_be_between", {"column": "empty", "min_value": 0}),
    )

    assert [o.passed for o in found.outcomes] == [False, True, True]


def test_infinity_and_nan(one: One) -> None:
    frame = pd.DataFrame({"x": [1.0, np.inf, np.nan, 2.0]})

    assert one(frame, "expect_column_values_to_be_between", column="x", max_value=5).unexpected == 1
    mean = one(frame, "expect_column_mean_to_be_between", column="x", max_value=5)
    assert (mean.passed, mean.message) == (False, "the mean is not a finite number, expected at most 5")
    json.dumps(mean.to_dict(), allow_nan=False)


def test_two_columns_of_one_name_are_refused(validate: Validate) -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=["größe", "id", "größe"])

    with pytest.raises(SpecError, match="more than one column called 'größe'"):
        validate(frame, ("expect_column_to_exist", {"column": "id"}))


def test_names_that_are_no_text(validate: Validate) -> None:
    assert validate(pd.DataFrame({0: [1], 1: [2]}), ("expect_column_values_to_be_unique", {"column": "1"})).passed


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("bound", ["1990-10-10", "1990-10-10T00:00:00", "1990-10-10T00:00:00Z", dt.date(1990, 10, 10)])
def test_instants_are_written_as_text(one: One, zone: str | None, bound: Any) -> None:
    frame = pd.DataFrame({"born": PEOPLE["born"].dt.tz_localize("UTC").dt.tz_convert(zone or "UTC")})
    if zone is None:
        frame["born"] = frame["born"].dt.tz_localize(None)

    assert one(frame, "expect_column_values_to_be_between", column="born", min_value=bound).unexpected == 1
    assert one(frame, "expect_column_values_to_be_in_set", column="born", value_set=[bound]).unexpected == 3
    assert one(frame, "expect_column_max_to_be_between", column="born", max_value=bound).passed is False


def test_what_runs_on_databases_only_is_refused(validate: Validate) -> None:
    with pytest.raises(SpecError, match="unexpected_rows_expectation runs on databases only"):
        validate(PEOPLE, ("unexpected_rows_expectation", {"unexpected_rows_query": "SELECT * FROM {batch}"}))


SECRET = pd.DataFrame(
    {
        "pin": ["QQSECRETQQ" + "x" * i for i in range(30)],
        "code": range(987654000, 987654030),
        "mixed": ["77123QQ", *range(29)],
    }
)
TELLING = [
    ("expect_column_values_to_be_in_set", {"column": "pin", "value_set": ["a"]}),
    ("expect_column_distinct_values_to_be_in_set", {"column": "pin", "value_set": ["a"]}),
    ("expect_column_distinct_values_to_equal_set", {"column": "pin", "value_set": ["a"]}),
    ("expect_column_distinct_values_to_contain_set", {"column": "pin", "value_set": ["a"]}),
    ("expect_column_most_common_value_to_be_in_set", {"column": "pin", "value_set": ["a"]}),
    ("expect_column_values_to_match_regex", {"column": "pin", "regex": "^a"}),
    ("expect_column_values_to_be_between", {"column": "pin", "min_value": 1}),
    ("expect_column_values_to_be_json_parseable", {"column": "pin"}),
    ("expect_column_values_to_be_dateutil_parseable", {"column": "pin"}),
    ("expect_column_mean_to_be_between", {"column": "mixed", "min_value": 1}),
    ("expect_column_values_to_be_between", {"column": "mixed", "min_value": 1}),
    ("expect_column_max_to_be_between", {"column": "code", "max_value": 1}),
    ("expect_column_min_to_be_between", {"column": "code", "max_value": 1}),
    ("expect_column_values_to_be_between", {"column": "code", "max_value": 1}),
    ("expect_column_pair_values_to_be_equal", {"column_A": "pin", "column_B": "code"}),
    ("expect_multicolumn_sum_to_equal", {"column_list": ["pin", "code"], "sum_total": 1}),
    (
        "expect_column_quantile_values_to_be_between",
        {"column": "code", "quantile_ranges": {"quantiles": [0.0, 1.0], "value_ranges": [[0, 1], [0, 1]]}},
    ),
    (
        "expect_column_kl_divergence_to_be_less_than",
        {"column": "pin", "partition_object": {"values": ["a"], "weights": [1.0]}, "threshold": 0.1},
    ),
]


def test_no_value_of_the_data_gets_out(
    validate: Validate, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)

    found = validate(SECRET, *TELLING)

    told = json.dumps(found.to_dict()) + found.summary("secret") + caplog.text + "".join(capfd.readouterr())
    assert all(outcome.passed is False for outcome in found.outcomes)
    for value in ("QQ", "9876540", "77123"):
        assert value not in told


def test_values_that_were_asked_for_are_in_the_details_only_and_never_private_ones(validate: Validate) -> None:
    found = validate(SECRET, *TELLING, show_values=True)

    first = found.outcomes[0]
    assert first.examples[0] == "QQSECRETQQ"
    assert len(first.examples) == 20
    told = json.dumps([o.summary() for o in found.outcomes]) + found.summary("secret")
    assert not any(value in told for value in ("QQ", "9876540"))
    hidden = validate(SECRET, *TELLING, show_values=True, private=["pin", "mixed"])
    assert "QQ" not in json.dumps(hidden.to_dict())
    assert "9876540" in json.dumps(hidden.to_dict())


def test_aggregates_over_many_rows_are_shown(one: One) -> None:
    found = one(SECRET, "expect_column_mean_to_be_between", column="code", max_value=1)

    assert found.observed == pytest.approx(987654014.5)
    assert "the mean is 987,654,014, expected at most 1" in found.message


def test_the_frame_is_let_go(validate: Validate) -> None:
    frame = pd.DataFrame({"age": [1.0, None]})
    alive = weakref.ref(frame)

    validate(frame, ("expect_column_values_to_not_be_null", {"column": "age"}))
    del frame
    gc.collect()

    assert alive() is None


def test_the_library_writes_nothing_says_nothing_and_leaves_the_frame_alone(tmp_path: Path) -> None:
    code = """
        import logging; logging.basicConfig(level=logging.DEBUG)
        import pandas as pd
        from airflow_mlops.core.validation.expectations import read_expectations
        from airflow_mlops.core.validation.verdict import validate_frame
        frame = pd.DataFrame({"a": [1, None]}); before = frame.copy()
        suite = read_expectations([{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "a"}}])
        assert not validate_frame(frame, suite).passed
        pd.testing.assert_frame_equal(frame, before)
    """
    folders = {name: tmp_path / name for name in ("HOME", "TMPDIR", "cwd")}
    for folder in folders.values():
        folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "GX_ANALYTICS_ENABLED", "DO_NOT_TRACK")}

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folders["cwd"],
        env=environment | {k: str(v) for k, v in folders.items() if k != "cwd"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert [str(p) for folder in folders.values() for p in folder.rglob("*")] == []
    assert "great_expectations" not in done.stderr
    assert "posthog" not in done.stderr
    assert done.stdout == ""
