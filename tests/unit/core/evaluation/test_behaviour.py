"""What happens to the predictions when the rows change: real models, binary, multiclass and regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from airflow_mlops.core.errors import MissingColumnError, SpecError
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.steps import StepContext

FEATURES = ["größe", "distance"]
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def tests_of(context: StepContext, save: Callable[..., str], log_model: Any, frame: pd.DataFrame) -> Run:
    """Return what some tests say of a model, without the one that is always on."""

    def run(*tests: dict[str, Any], model: Any = None, rows: pd.DataFrame | None = None, **more: Any) -> Any:
        ref = log_model(model=model, **more)
        report = evaluate_model(
            context,
            model=ref.to_dict(),
            dataset=save(frame if rows is None else rows),
            roles={"key": "id", "time": "day"},
            target="late",
            tests=list(tests),
        )
        found: list[dict[str, Any]] = context.store.get_json(context.store.key_of(report["details_uri"]) or "")["tests"]
        return found[1:]

    return run


def by_airport(rows: pd.DataFrame, column: str = "airport") -> Any:
    """Return a model that goes by the airport more than by the numbers."""
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), [column]), remainder="passthrough")
    return make_pipeline(encode, LogisticRegression()).fit(rows[[*FEATURES, column]], rows["late"])


@pytest.fixture
def biased(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows whose target goes by the airport."""
    return frame.assign(late=((frame["airport"] == "JFK") ^ (np.arange(len(frame)) % 10 == 0)).astype("int64"))


def test_a_smooth_model_is_robust_and_one_that_splits_hairs_is_not(tests_of: Run, frame: pd.DataFrame) -> None:
    test = {"kind": "robustness", "max_flips": 0.05, "noise": 0.05, "missing": 0}
    (found,) = tests_of(test)
    assert found["passed"], found["message"]
    # Classes by the third decimal: right on its own rows, and gone with a breath of noise.
    rows = frame.assign(late=(frame["größe"] * 1000).round().astype(int) % 2)
    hairs = DecisionTreeClassifier(random_state=0).fit(rows[FEATURES], rows["late"])
    (found,) = tests_of(test, model=hairs, rows=rows)
    assert not found["passed"]
    assert 0.3 < found["value"] < 0.7
    assert "With noise (0.05)" in found["message"]
    assert "must be ≤ 0.05" in found["message"]


def test_noise_is_what_it_says(tests_of: Run, frame: pd.DataFrame) -> None:
    # A straight line moves by its slope times the noise: E|N(0, s)| = s * sqrt(2 / pi) in standard deviations.
    rows = frame.assign(late=frame["größe"] * 100 + 0.5)
    line = LinearRegression().fit(rows[["größe"]], rows["late"])
    (found,) = tests_of(
        {"kind": "robustness", "max_flips": 0.2, "noise": 0.1, "missing": 0}, model=line, rows=rows, columns=["größe"]
    )
    assert found["value"] == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.1)
    assert "of their standard deviation on average" in found["message"]


def test_a_model_that_takes_no_missing_values_is_told_so(tests_of: Run) -> None:
    noise, missing = tests_of({"kind": "robustness", "max_flips": 1, "missing": 0.1})
    assert noise["passed"], noise["message"]
    assert not missing["passed"]
    assert "cannot predict" in missing["message"]
    assert "missing=0 leaves this out" in missing["message"]


def test_swapped_categories_change_a_model_that_goes_by_them(tests_of: Run, biased: pd.DataFrame) -> None:
    test = {"kind": "robustness", "max_flips": 0.2, "noise": 0, "missing": 0, "swap": 1}
    (found,) = tests_of(
        test, model=by_airport(biased), rows=biased, columns=[*FEATURES, "airport"], serialization_format="cloudpickle"
    )
    jfk = (biased["airport"] == "JFK").mean()
    # Every row gets another row's airport: those flip that change sides.
    assert found["value"] == pytest.approx(2 * jfk * (1 - jfk), abs=0.06)
    assert not found["passed"]


def test_only_the_models_columns_are_changed(tests_of: Run) -> None:
    (found,) = tests_of({"kind": "robustness", "max_flips": 0, "noise": 0, "missing": 0, "swap": 1})
    assert (found["passed"], "No column can be changed" in found["message"]) == (False, True)


def test_a_model_depends_on_a_column_or_does_not(tests_of: Run, biased: pd.DataFrame) -> None:
    test = {"kind": "invariance", "column": "airport", "max_flips": 0.01}
    unused, used = {**test, "name": "unused"}, {**test, "name": "used"}
    (found,) = tests_of(unused)
    assert (found["passed"], found["message"]) == (True, "The model does not take airport")
    (found,) = tests_of(used, model=by_airport(biased), rows=biased, columns=[*FEATURES, "airport"])
    # Whatever a row's airport is, another one puts it on the other side.
    assert found["value"] > 0.95
    assert "With another value of airport" in found["message"]


def test_a_column_of_many_values_is_shuffled(tests_of: Run, frame: pd.DataFrame) -> None:
    found = tests_of(
        {"kind": "invariance", "column": "distance", "max_flips": 0.05},
        {"kind": "invariance", "column": "größe", "max_flips": 0.05},
        model=LogisticRegression().fit(frame[FEATURES].assign(distance=0.0), frame["late"]),
    )
    assert [(one["passed"], one["value"] > 0.2) for one in found] == [(True, False), (False, True)]


def test_more_of_it_must_move_the_prediction_up(tests_of: Run) -> None:
    up = {"kind": "directional", "column": "größe", "expect": "increase", "change": 0.5}
    found = tests_of(up, {**up, "expect": "decrease"}, {**up, "change": -0.5, "expect": "decrease"})
    assert [one["passed"] for one in found] == [True, False, True]
    assert found[1]["value"] == 1.0
    assert "100.0% of 600 predictions go the wrong way when größe changes" in found[1]["message"]


def test_of_many_classes_one_is_watched(tests_of: Run, make_rows: Any) -> None:
    def three(seed: int) -> pd.DataFrame:
        rows = make_rows(600, seed=seed)
        return rows.assign(late=np.array(["early", "on time", "very late"])[np.digitize(rows["größe"], [-0.6, 0.6])])

    train = three(9)
    model = LogisticRegression().fit(train[FEATURES], train["late"])
    up = {"kind": "directional", "column": "größe", "change": 0.5, "max_wrong": 0.1}
    found = tests_of(
        {**up, "expect": "increase", "of_class": "very late"},
        {**up, "expect": "decrease", "of_class": "early"},
        {"kind": "robustness", "max_flips": 0.1, "noise": 0.05, "missing": 0},
        {"kind": "invariance", "column": "größe", "max_flips": 0.1},
        model=model, rows=three(0),
    )  # fmt: skip
    assert [one["passed"] for one in found] == [True, True, True, False]
    with pytest.raises(SpecError, match="needs of_class"):
        tests_of({**up, "expect": "increase"}, model=model, rows=three(0))


def test_whole_numbers_stay_whole_and_a_change_too_small_for_them_is_a_mistake(tests_of: Run, make_rows: Any) -> None:
    def whole(seed: int) -> pd.DataFrame:
        rows = make_rows(seed=seed)
        # Unsigned and of one byte: noise below 0 must not come out as 255.
        return rows.assign(distance=(rows["distance"] * 3 + 10).clip(0, 255).round().astype("uint8"))

    train = whole(9)
    model = LogisticRegression().fit(train[FEATURES], train["late"])
    up = {"kind": "directional", "column": "distance", "expect": "increase"}
    noise = {"kind": "robustness", "max_flips": 0.1, "noise": 0.1, "missing": 0}
    found = tests_of(noise, {**up, "change": 1}, {**up, "factor": 1.2}, model=model, rows=whole(0))
    assert [one["passed"] for one in found] == [True, True, True]
    with pytest.raises(SpecError, match="changes no value of 'distance', which holds uint8 numbers"):
        tests_of({**up, "change": 0.2}, model=model, rows=whole(0))


def test_mistakes_name_the_column(tests_of: Run, biased: pd.DataFrame) -> None:
    with pytest.raises(MissingColumnError, match="did you mean 'distance'"):
        tests_of({"kind": "invariance", "column": "distnce"})
    (found,) = tests_of({"kind": "directional", "column": "airport", "expect": "increase", "change": 1})
    assert (found["passed"], found["message"]) == (False, "The model does not take airport: it moves nothing")
    with pytest.raises(SpecError, match="by a number, and it holds none"):
        tests_of(
            {"kind": "directional", "column": "airport", "expect": "increase", "change": 1},
            model=by_airport(biased), rows=biased, columns=[*FEATURES, "airport"],
        )  # fmt: skip
