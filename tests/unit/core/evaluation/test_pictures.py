"""What the report draws: real models, and scikit-learn's own figures."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import confusion_matrix, roc_curve

from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.steps import StepContext

FEATURES = ["größe", "distance"]


@pytest.fixture
def drawn(context: StepContext, save: Callable[..., str], log_model: Any) -> Any:
    """Return what is drawn of a model, and the page."""

    def run(rows: pd.DataFrame, model: Any, **more: Any) -> tuple[dict[str, Any], str]:
        options = {"roles": {"key": "id"}, "tests": [{"kind": "signature"}], **more}
        report = evaluate_model(
            context, model=log_model(model=model).to_dict(), dataset=save(rows), target="late", **options
        )
        details = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
        page = context.store.get_bytes(context.store.key_of(report["report_uri"]) or "").decode()
        # The page is served under a policy that runs no script and loads nothing.
        assert not re.search(r"<script|javascript:|\son\w+=|(?:src|href)=", page)
        return details["pictures"], page

    return run


def test_both_curves_are_scikit_learns_on_the_same_rows(
    drawn: Any, log_model: Any, make_rows: Any, frame: pd.DataFrame
) -> None:
    few = make_rows(seed=9).head(12)
    champion = LogisticRegression().fit(few[FEATURES], few["late"])
    log_model(model=champion, alias="champion", keys=frame.head(100))
    model = LogisticRegression().fit(frame[FEATURES], frame["late"])
    found, page = drawn(frame, model, champion="flights_late@champion")
    rows = frame.tail(500)
    assert found["roc"]["rows"] == 500
    for name, one in (("challenger", model), ("champion", champion)):
        wrong, right, _ = roc_curve(rows["late"], one.predict_proba(rows[FEATURES])[:, 1], drop_intermediate=False)
        expected = [right[wrong <= at + 1e-12].max() for at in np.linspace(0, 1, 101)]
        assert found["roc"][name] == pytest.approx(expected, abs=1e-4)
    assert page.count("<polyline") == 2
    assert found["fit"] is None


def test_classes_are_shown_in_a_matrix_unless_they_are_private(drawn: Any, make_rows: Any) -> None:
    rows = make_rows(600).assign(
        late=lambda one: np.array(["<early>", "on time", "late"])[np.digitize(one["größe"], [-0.6, 0.6])]
    )
    model = LogisticRegression().fit(rows[FEATURES], rows["late"])
    found, page = drawn(rows, model)
    names = ["<early>", "late", "on time"]
    matrix = confusion_matrix(rows["late"], model.predict(rows[FEATURES]), labels=names, normalize="true")
    assert found["confusion"]["classes"] == names
    assert np.array(found["confusion"]["shares"]) == pytest.approx(matrix, abs=1e-4)
    assert "&lt;early&gt;" in page
    assert "<early>" not in page
    assert found["roc"] is None
    found, page = drawn(rows, model, roles={"key": "id", "private": "late"})
    assert found["confusion"] is None
    assert "early" not in page


def test_quantities_are_held_against_what_was_predicted(drawn: Any, make_rows: Any) -> None:
    rows = make_rows(600).assign(late=lambda one: 10 * one["größe"] + 0.5 + one["distance"])
    model = LinearRegression().fit(rows[["größe", "distance"]], rows["late"] + 3)
    found, page = drawn(rows, model)
    assert len(found["fit"]) == 20
    assert all(one["predicted"] - one["observed"] == pytest.approx(3) for one in found["fit"])
    assert all(one["low"] <= one["observed"] <= one["high"] for one in found["fit"])
    assert "Predicted and true values" in page
    assert (found["roc"], found["confusion"]) == (None, None)
