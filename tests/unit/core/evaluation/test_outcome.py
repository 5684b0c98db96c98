"""What a test's outcome says, and what it must not say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.core.evaluation.outcome import Outcome, within, without_values


@pytest.mark.parametrize(
    ("error", "names", "left"),
    [
        (
            ValueError("could not convert string to float: 'Müller'"),
            [],
            "ValueError: could not convert string to float: '…'",
        ),
        (ValueError("X has 3 features, but 4 are expected"), [], "ValueError: X has 3 features, but 4 are expected"),
        (KeyError("age"), ["age"], "KeyError: 'age'"),
        (KeyError("age"), [], "KeyError: '…'"),
        (ValueError("income 61234.17 is too large"), [], "ValueError: income … is too large"),
        (ValueError("two\n  lines"), [], "ValueError: two lines"),
    ],
)
def test_no_data_value_stands_in_an_error(error: Exception, names: list[str], left: str) -> None:
    assert without_values(error, names) == left


@given(value=st.text(min_size=1).filter(lambda t: "'" not in t and '"' not in t and t.strip() == t and t.isalnum()))
def test_quoted_text_goes_whatever_it_is(value: str) -> None:
    assert f"'{value}'" not in without_values(ValueError(f"unknown category '{value}' in column"))


def test_a_failure_for_xcom_names_no_slice() -> None:
    found = Outcome(
        name="f1 by sex",
        kind="slices",
        passed=False,
        slice="sex = diverse",
        message="f1 is 0.1 on sex = diverse",
        brief="f1 is 0.1 on one slice by sex",
    )
    assert "diverse" not in str(found.to_failure())
    assert found.to_dict()["slice"] == "sex = diverse"
    assert set(found.to_dict()) == {
        "name", "kind", "passed", "severity", "value", "threshold", "interval", "comparison", "slice",
        "message",
    }  # fmt: skip


@given(low=st.floats(0, 1), high=st.floats(0, 1), value=st.floats(0, 1))
def test_thresholds_include_their_ends(low: float, high: float, value: float) -> None:
    assert within({"min": low}, low)
    assert within({"max": high}, high)
    assert within({"min": low, "max": high}, value) == (low <= value <= high)
