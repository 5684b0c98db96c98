"""What a user may write as tests, and what they are told about the rest."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.evaluation.kinds import KINDS
from airflow_mlops.core.evaluation.specs import check_tests, identity
from airflow_mlops.core.imports import load


def test_defaults_and_names_are_filled_in() -> None:
    found = check_tests(
        [
            {"kind": "metric", "metric": "roc_auc", "min": 0.8},
            {"kind": "champion", "metric": "roc_auc"},
            {"kind": "slices", "by": ["sex", ["sex", "age"]], "metric": "f1", "max_gap": 0.1, "severity": "warning"},
            {"kind": "metric", "metric": "roc_auc", "max": 0.99},
        ]
    )
    assert [spec["name"] for spec in found] == [
        "roc_auc",
        "roc_auc against the champion",
        "f1 by sex, sex×age",
        "roc_auc (2)",
    ]
    assert [spec["severity"] for spec in found] == ["error", "error", "warning", "error"]
    assert found[1] | {"require": "not_worse", "margin": 0.0, "min_rows": 100, "on_unclear": "keep"} == found[1]


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        ([{"kind": "metrics", "metric": "f1", "min": 0}], "test 1: there is no kind 'metrics'; did you mean 'metric'?"),
        ([{"metric": "f1", "min": 0}], "test 1 has no 'kind'; there are: metric, champion"),
        ([{"kind": "metric", "min": 0.8}], r"test 1 \(metric\) needs 'metric': the name of a metric"),
        ([{"kind": "metric", "metric": "f1"}], r"test 1 \(metric\) needs 'min' or 'max'"),
        ([{"kind": "metric", "metric": "f1", "mni": 1}], "has no option 'mni'; did you mean 'min'?"),
        ([{"kind": "metric", "metric": "rocauc", "min": 1}], "there is no metric 'rocauc'; did you mean 'roc_auc'?"),
        ([{"kind": "metric", "metric": "f1", "min": "high"}], "'min' must be a finite number, got 'high'"),
        ([{"kind": "metric", "metric": "f1", "min": float("nan")}], "'min' must be a finite number, got nan"),
        ([{"kind": "metric", "metric": "f1", "min": True}], "'min' must be a finite number, got True"),
        ([{"kind": "metric", "metric": "f1", "min": 0.9, "max": 0.1}], "'min' 0.9 is above 'max' 0.1"),
        ([{"kind": "size"}, {"kind": "latency"}], r"test 1 \(size\) needs 'max_mb'"),
        (
            [{"kind": "signature"}, {"kind": "latency", "p95_ms": 0}],
            r"test 2 \(latency\): 'p95_ms' must be milliseconds",
        ),
        ([{"kind": "champion", "metric": "f1", "require": "best"}], "'require' must be 'not_worse' or 'better'"),
        ([{"kind": "champion", "metric": "f1", "on_unclear": "pass"}], "'on_unclear' must be 'keep' or 'promote'"),
        ([{"kind": "slices", "by": [], "metric": "f1", "min": 0}], "'by' must be a column, or a list of columns"),
        ([{"kind": "signature", "severity": "critical"}], "'severity' must be 'error' or 'warning', got 'critical'"),
        (
            [{"kind": "fairness", "by": "sex", "criterion": "equalized_odds"}],
            r"test 1 \(fairness\) needs 'max_difference' or 'min_ratio'",
        ),
        (["signature"], "test 1 must be a dict like"),
        ({"kind": "signature"}, "tests must be a list of dicts"),
        ([], "tests is empty: nothing would be tested"),
    ],
)
def test_a_mistake_is_named_with_its_cure(tests: object, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        check_tests(tests)


def test_templates_wait_until_they_are_rendered_and_numbers_may_come_as_text() -> None:
    tests = [{"kind": "metric", "metric": "roc_auc", "min": "{{ params.min_auc }}", "min_rows": "{{ params.rows }}"}]
    check_tests(tests, rendered=False)
    with pytest.raises(SpecError, match="'min' must be a finite number"):
        check_tests(tests)
    (spec,) = check_tests([{"kind": "metric", "metric": "roc_auc", "min": "0.8", "min_rows": "50"}])
    assert (spec["min"], spec["min_rows"]) == (0.8, 50)


def test_every_kind_has_its_function() -> None:
    for name, kind in KINDS.items():
        assert callable(load(kind.run, name))


def test_a_function_is_known_by_its_import_string_in_every_process() -> None:
    (spec,) = identity(check_tests([{"kind": "custom", "function": check_tests}]))
    assert spec["function"] == "airflow_mlops.core.evaluation.specs:check_tests"


def test_the_check_imports_no_heavy_library() -> None:
    code = (
        "import sys; from airflow_mlops.core.evaluation.specs import check_tests;"
        "check_tests([{'kind': 'slices', 'by': 'a', 'metric': 'f1', 'min': 0}]);"
        "print([m for m in ('pandas', 'numpy', 'sklearn', 'mlflow', 'pyarrow', 'airflow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_page_on_model_tests_has_every_kind_with_its_options_and_an_example() -> None:
    page = (Path(__file__).parents[4] / "docs" / "model-tests.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page, flags=re.S | re.M))
    assert set(sections) == set(KINDS)
    for name, text in sections.items():
        (example,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)
        (spec,) = check_tests([ast.literal_eval(example)])
        assert spec["kind"] == name
        rows = dict(re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.*?) \|", text, flags=re.M))
        said = [option for cell in rows for option in re.findall(r"`(\w+)`", cell)]
        assert sorted(said) == sorted(KINDS[name].options), name
        for cell, default in rows.items():
            for option in re.findall(r"`(\w+)`", cell):
                known = KINDS[name].options[option]
                if known.default is not None:
                    assert default.strip("`") == f"{known.default:g}" if known.number else known.default, option
                elif known.required:
                    assert default == "needed", option
