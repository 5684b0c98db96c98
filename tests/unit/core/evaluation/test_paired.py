"""Champion against challenger: what varies, how sure the difference is, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core.errors import MissingColumnError, SpecError
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.steps import StepContext

DAYS = {"key": "id", "time": "day"}
ROWS = {"key": "id"}
AUC = {"kind": "champion", "metric": "roc_auc"}
BETTER = {**AUC, "require": "better"}


BOTH = ["größe", "distance"]


def turned(angle: float) -> Any:
    """Return a model that weighs the two features by so many radians off the best way."""
    x = pd.DataFrame(np.random.default_rng(1).normal(size=(50, 2)), columns=BOTH)
    model = LogisticRegression().fit(x, (x.sum(axis=1) > 0).astype(int))
    best = math.atan2(0.8, 1.5)
    model.coef_ = 2 * np.array([[math.cos(best + angle), math.sin(best + angle)]])
    model.intercept_[:] = 0
    return model


@pytest.fixture
def compare(context: StepContext, save: Callable[..., str], log_model: Any, frame: pd.DataFrame) -> Any:
    """Return what one test says of a model, by default the best one, against a champion, by default a bad one."""

    def run(
        test: dict[str, Any],
        *,
        roles: Any = DAYS,
        rows: Any = None,
        challenger: float = 0.0,
        champion: float = 1.2,
    ) -> Any:
        nothing = frame.head(0)
        log_model(model=turned(champion), alias="champion", keys=nothing)
        ref = log_model(model=turned(challenger), keys=nothing)
        report = evaluate_model(
            context,
            model=ref.to_dict(),
            dataset=save(frame if rows is None else rows),
            roles=roles,
            target="late",
            tests=[test],
            champion="flights_late@champion",
        )
        found = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
        page = context.store.get_bytes(context.store.key_of(report["report_uri"]) or "").decode()
        return next(one for one in found["tests"] if one["kind"] == "champion"), page

    return run


def test_a_better_model_is_better_by_days(compare: Any) -> None:
    test, page = compare(BETTER)
    said = test["comparison"]
    assert test["passed"], test["message"]
    assert (said["verdict"], said["method"], said["unit"], said["units"]) == ("better", "jackknife", "days", 25)
    assert test["interval"] == [said["low"], said["high"]]
    assert 0 < said["low"] < said["ahead"] == test["value"] < said["high"]
    assert "by 25 days the difference is between" in test["message"]
    assert "25 days" in page


@pytest.mark.parametrize(
    ("metric", "method"), [("roc_auc", "delong"), ("accuracy", "mcnemar"), ("log_loss", "bootstrap")]
)
def test_rows_that_nothing_ties_together_stand_for_themselves(compare: Any, metric: str, method: str) -> None:
    test, _ = compare({**BETTER, "metric": metric}, roles=ROWS)
    assert test["passed"], test["message"]
    said = test["comparison"]
    assert (said["verdict"], said["method"], said["unit"], said["units"]) == ("better", method, "rows", 600)


def test_more_rows_than_the_bootstrap_draws(compare: Any, make_rows: Any) -> None:
    test, _ = compare({**BETTER, "metric": "log_loss"}, roles=ROWS, rows=make_rows(6000))
    said = test["comparison"]
    assert (said["verdict"], said["method"], said["units"]) == ("better", "jackknife", 6000)


def test_too_few_days_cannot_tell_whatever_the_rows(compare: Any, frame: pd.DataFrame) -> None:
    test, _ = compare(BETTER, rows=frame.head(14 * 24))
    assert not test["passed"]
    assert "Cannot tell" in test["message"]
    assert "14 days are too few" in test["message"]
    test, _ = compare({**BETTER, "on_unclear": "promote"}, rows=frame.head(14 * 24))
    assert test["passed"]


def test_a_group_comes_before_the_day_and_the_user_before_both(compare: Any) -> None:
    roles = {**DAYS, "group": "airport"}
    test, _ = compare(BETTER, roles=roles)
    assert "3 values of airport are too few" in test["message"]
    test, _ = compare({**BETTER, "cluster": "day"}, roles=roles)
    assert test["comparison"]["unit"] == "days"
    test, _ = compare({**BETTER, "cluster": "id"}, roles=roles)
    assert (test["comparison"]["unit"], test["comparison"]["units"]) == ("values of id", 600)


def test_a_cluster_that_is_not_there(compare: Any, frame: pd.DataFrame) -> None:
    with pytest.raises(MissingColumnError, match="no column 'airprt' to cluster by; did you mean 'airport'"):
        compare({**BETTER, "cluster": "airprt"})
    with pytest.raises(SpecError, match="needs a dataset with a time role"):
        compare({**BETTER, "cluster": "day"}, roles=ROWS, rows=frame.rename(columns={"day": "moment"}))


def test_equally_good_models_cannot_be_told_apart(compare: Any, make_rows: Any) -> None:
    # As far off the best way on either side; on one set of rows in ten one of them is luckier than that.
    alike = {"challenger": 0.3, "champion": -0.3, "rows": make_rows(seed=4)}
    test, _ = compare(AUC, **alike)
    assert (test["passed"], test["comparison"]["verdict"]) == (False, "cannot tell")
    assert "on_unclear='keep' keeps the champion" in test["message"]
    assert "such data show one from" in test["message"]
    assert 0 < test["comparison"]["detectable"] < 0.1
    test, _ = compare({**AUC, "on_unclear": "promote"}, **alike)
    assert test["passed"]
    # A margin turns the question round: is it shown to be no more than that worse?
    test, _ = compare({**AUC, "margin": 0.05}, **alike)
    assert test["passed"], test["message"]


def test_a_worse_model_fails_whatever_is_unclear(compare: Any) -> None:
    for test in (AUC, BETTER):
        found, _ = compare({**test, "on_unclear": "promote"}, challenger=1.2, champion=0.0)
        assert (found["passed"], found["comparison"]["verdict"]) == (False, "worse")
        assert "must be" in found["message"]


def test_a_lead_that_may_be_smaller_than_the_margin_is_not_enough(compare: Any) -> None:
    test, _ = compare({**BETTER, "margin": 0.5})
    assert (test["passed"], test["comparison"]["verdict"]) == (False, "better")
    assert "must be more than 0.5 better" in test["message"]
