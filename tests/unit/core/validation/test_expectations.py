"""What users write as expectations, and what they are told when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.validation.expectations import read_expectations

NOT_NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "age"}}


def made() -> list[dict[str, Any]]:
    return [NOT_NULL]


def needs_something(table: str) -> list[dict[str, Any]]:
    return [NOT_NULL]


@pytest.mark.parametrize("form", [[NOT_NULL], {"name": "suite", "expectations": [NOT_NULL]}, made, f"{__name__}:made"])
def test_every_form_gives_the_same(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[made.__module__])

    (found,) = read_expectations(form)

    assert (found.type, found.kwargs, found.grade) == (NOT_NULL["type"], {"column": "age"}, "error")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("suite.json", json.dumps([NOT_NULL])),
        ("suite.yaml", "- type: expect_column_values_to_not_be_null\n  kwargs: {column: age}\n"),
        ("suite.yml", "expectations:\n  - {type: expect_column_values_to_not_be_null, kwargs: {column: age}}\n"),
    ],
)
def test_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    for form in (str(tmp_path / name), tmp_path / name, (tmp_path / name).as_uri()):
        assert read_expectations(form)[0].kwargs == {"column": "age"}


def test_objects_of_great_expectations_may_be_used_again_and_again() -> None:
    import great_expectations as gx
    import great_expectations.expectations as gxe

    expectation = gxe.ExpectColumnValuesToNotBeNull(column="age", severity="warning")
    suite = gx.ExpectationSuite(name="mine", expectations=[expectation])

    for form in ([expectation], suite, [expectation]):
        (found,) = read_expectations(form)
        assert (found.kwargs["column"], found.grade) == ("age", "warning")


def test_the_name_of_the_former_version_and_duplicates_are_kept() -> None:
    old = {"expectation_type": NOT_NULL["type"], "kwargs": {"column": "age"}, "meta": {}}

    assert [e.type for e in read_expectations([old, NOT_NULL])] == [NOT_NULL["type"]] * 2


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (
            {"type": "expect_column_values_to_not_be_nul", "kwargs": {"column": "age"}},
            "expectation 2: Great Expectations has no 'expect_column_values_to_not_be_nul'; "
            "did you mean 'expect_column_values_to_not_be_null'?",
        ),
        (
            {**NOT_NULL, "kwargs": {"colum": "age"}},
            "expect_column_values_to_not_be_null .* 'colum'; did you mean 'column'",
        ),
        ({**NOT_NULL, "kwargs": {}}, "expect_column_values_to_not_be_null lacks 'column'"),
        ({**NOT_NULL, "kwargs": ["age"]}, "'kwargs' must be a dict, got a list"),
        ({**NOT_NULL, "kwrgs": {}}, "unknown key 'kwrgs'; did you mean 'kwargs'"),
        ({**NOT_NULL, "severity": "criticl"}, "severity 'criticl' is none of .*; did you mean 'critical'"),
        ({"kwargs": {}}, "expectation 2 has no 'type'"),
        ("expect_column_to_exist", "expectation 2 must be a dict"),
        (
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "age", "min_value": "low"}},
            "expect_column_mean_to_be_between: min_value: value is not a valid float",
        ),
        (
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "a", "min_value": 2, "max_value": 1}},
            "min_value 2 is above max_value 1",
        ),
        (
            {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "a", "min_value": {"$PARAMETER": "x"}}},
            "min_value is a .PARAMETER",
        ),
        (
            {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "a", "regex": "["}},
            r"'\[' is not a regular expression",
        ),
        (
            {"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "a", "type_": "strng"}},
            "called 'strng'; did you mean 'string'",
        ),
    ],
)
def test_a_mistake_is_named_with_the_nearest_that_is_right(entry: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        read_expectations([NOT_NULL, entry])


def test_a_mistake_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "people.yaml"
    path.write_text("- {type: expect_colum_to_exist, kwargs: {column: age}}")

    with pytest.raises(SpecError, match=r"expectation 1 in people\.yaml.*did you mean 'expect_column_to_exist'"):
        read_expectations(str(path))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("broken.json", "[{]", "broken.json is not valid: .*line 1"),
        ("broken.yaml", "- {type: x\n- y", "broken.yaml is not valid: .*line 2"),
        ("empty.yaml", "", "in empty.yaml must be a list"),
        ("none.json", "[]", "no expectation in none.json"),
        ("other.json", '{"rules": []}', "in other.json: a dict must be a suite"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(SpecError, match=says):
        read_expectations(str(tmp_path / name))


def test_a_file_that_is_not_there_with_the_one_that_is(tmp_path: Path) -> None:
    (tmp_path / "expectations.yaml").write_text("[]")

    with pytest.raises(SpecError, match=r"no file of expectations at .*; did you mean 'expectations\.yaml'"):
        read_expectations(str(tmp_path / "expectation.yaml"))


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ([], "checks nothing"),
        (7, "got a int"),
        ("a word", "got 'a word'"),
        ("json:lods", "json has no 'lods'; did you mean 'loads'"),
        ("nowhere.at_all:fn", "no module 'nowhere'"),
        (needs_something, "needs_something must be callable without arguments"),
    ],
)
def test_forms_that_are_none(form: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        read_expectations(form)
