"""Backtests: both recipes fitted anew at rolling origins, where no row is unseen."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.errors import EmptyDataError, SpecError
from airflow_mlops.core.evaluation.backtest import check, folds, together
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.training.predictions import Predictions
from airflow_mlops.core.training.step import train_model

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "backtest_model.py"
ROLES = {"key": "id", "time": "day", "target": "late", "private": "airport"}
CODE = """
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

def fit(X, y, time, *, columns):
    kept = ColumnTransformer([("kept", "passthrough", list(columns))])
    return make_pipeline(kept, LogisticRegression()).fit(X, y)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The user's module, as it is imported now."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "lateness.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module("lateness")
    sys.modules.pop("lateness", None)


@pytest.fixture
def history(make_rows: Any, save: Any) -> str:
    """Sixty days, hour by hour, not in the order of their time."""
    return str(save(make_rows(24 * 60).sample(frac=1, random_state=1), "history"))


@pytest.fixture
def train(context: StepContext, project: Any, history: str) -> Any:
    def trained(columns: list[str], alias: str | None = None, **more: Any) -> dict[str, Any]:
        arguments = {"trainer": "lateness:fit", "hyperparameters": {"columns": columns}, "roles": ROLES, **more}
        ref = train_model(context, dataset=history, split={"by": "time", "test": "1d"}, **arguments)
        if alias:
            ref = register_model(context, model=ref, model_name="late")
            promote_model(context, model=ref, alias=alias, evidence=[])
        return dict(ref)

    return trained


def details(context: StepContext, report: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(context.store.get_bytes(context.store.key_of(report["details_uri"]) or "")))


def backtested(context: StepContext, model: Any, history: str, **more: Any) -> dict[str, Any]:
    tests = [{"kind": "champion", "metric": "roc_auc", "require": "better"}]
    arguments = {"tests": tests, "champion": "late@champion", "roles": ROLES, **more}
    return dict(evaluate_model(context, model=model, dataset=history, on="backtest", **arguments))


def test_the_better_recipe_wins_on_rows_after_each_origin(
    context: StepContext, train: Any, history: str, project: Any
) -> None:
    train(["distance"], alias="champion")
    better = train(["größe", "distance"])
    # Held out there is one day: too few to tell.
    held_out = evaluate_model(
        context, model=better, champion="late@champion", tests=[{"kind": "champion", "metric": "roc_auc"}]
    )
    assert not held_out["passed"]
    assert "Cannot tell" in held_out["summary"]

    report = backtested(context, better, history, backtest={"origins": 3, "horizon": "10d", "gap": "2d"})

    assert report["passed"], report["summary"]
    assert report["on"] == "backtest"
    assert report["summary"].startswith("All 2 checks passed on 720 rows of a backtest with 3 refits")
    assert report["metrics"]["roc_auc"] > report["metrics"]["champion_roc_auc"] + 0.1
    found = details(context, report)
    assert [(one["train"], one["test"]) for one in found["backtest"]] == [(672, 240), (912, 240), (1152, 240)]
    (test,) = [one for one in found["tests"] if one["kind"] == "champion"]
    assert test["comparison"]["verdict"] == "better"
    assert (test["comparison"]["unit"], test["comparison"]["units"]) == ("days", 30), "clustered by day"
    assert "refitted" not in found["caveats"][0]
    assert "not of the model's own file" in found["caveats"][0]
    page = context.store.get_bytes(context.store.key_of(report["report_uri"]) or "").decode()
    assert "fitted anew at 3 origins" in page


def test_no_refit_sees_what_it_is_judged_on(context: StepContext, train: Any, history: str, monkeypatch: Any) -> None:
    model = train(["größe"])
    seen: list[Any] = []
    from airflow_mlops.core.training.recipe import FunctionRecipe

    fit = FunctionRecipe.fit

    def spied(self: Any, log: Any, part: Any, ref: Any, split: Any) -> Any:
        seen.append((part.frame["day"].min(), part.frame["day"].max()))
        return fit(self, log, part, ref, split)

    monkeypatch.setattr(FunctionRecipe, "fit", spied)
    tests = [{"kind": "metric", "metric": "roc_auc", "min": 0.5}]
    options = {"origins": 2, "horizon": "10d", "gap": "1d", "train": "20d"}
    report = backtested(context, model, history, tests=tests, champion=None, backtest=options)
    origins = [pd.Timestamp(one["origin"]).tz_localize(None) for one in details(context, report)["backtest"]]
    for (first, last), origin in zip(seen, origins, strict=True):
        assert last < origin - pd.Timedelta("1D")
        assert first >= origin - pd.Timedelta("21D")


def test_each_recipe_is_followed_with_the_code_that_it_had(
    context: StepContext, train: Any, history: str, project: Any, tmp_path: Path
) -> None:
    train(["größe", "distance"], alias="champion")
    changed = CODE.replace("LogisticRegression())", "DummyClassifier())")
    (tmp_path / "project" / "lateness.py").write_text(changed)
    importlib.reload(project)
    worse = train(["größe"])
    report = backtested(context, worse, history)
    assert report["metrics"]["roc_auc"] <= 0.5, "one value a refit says nothing of any row"
    assert report["metrics"]["champion_roc_auc"] > 0.8, "with the champion's code, not today's"
    assert sys.modules["lateness"] is project, "what is imported here is as it was"


def test_the_docs_example(context: StepContext, train: Any, history: str) -> None:
    spec = importlib.util.spec_from_file_location("backtest_model", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    task: Any = module.backtest
    train(["distance"], alias="champion")
    wanted = {name: getattr(task, name) for name in ("champion", "roles", "on", "backtest", "tests")}
    report = evaluate_model(context, model=train(["größe", "distance"]), dataset=history, **wanted)
    assert report["passed"], report["summary"]
    assert len(details(context, report)["backtest"]) == 4


def test_a_champion_whose_recipe_is_not_on_record_ends_in_cannot_tell(
    context: StepContext, train: Any, history: str, log_model: Any
) -> None:
    log_model(alias="champion", name="late")
    report = backtested(context, train(["größe"]), history)
    assert not report["passed"]
    assert "Cannot tell against the champion late@champion (version 1): it cannot be refitted" in report["summary"]
    assert "its recipe is not on record" in report["summary"]


def test_a_model_that_cannot_be_refitted_is_refused(context: StepContext, log_model: Any, history: str) -> None:
    model = log_model().to_dict()
    with pytest.raises(SpecError, match="the model cannot be refitted: its recipe is not on record"):
        backtested(context, model, history)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tests": [{"kind": "signature"}]}, "is about the model itself"),
        ({"backtest": {"folds": 3}}, "has no option 'folds'"),
        ({"backtest": {"origins": 0}}, "from 1 to 100"),
        ({"backtest": {"horizon": "month"}}, "not a duration"),
        ({"roles": {"target": "late"}}, "needs a dataset with a time role"),
    ],
)
def test_what_cannot_be_backtested_is_refused(
    context: StepContext, log_model: Any, history: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        backtested(context, log_model().to_dict(), history, **{"champion": "late@champion", **arguments})
    with pytest.raises(SpecError, match="need on='backtest'"):
        evaluate_model(context, model="models:/m/1", backtest={"origins": 2})


def test_origins_roll_over_the_end_of_the_period() -> None:
    times = pd.Series(pd.date_range("2013-01-01", periods=100, freq="D", tz="UTC"))
    found = folds(times, check({"origins": 5, "horizon": "10d"}), "30d")
    assert [len(one.train) for one in found] == [20, 30, 40, 50, 60], "a label takes thirty days to come"
    assert [len(one.test) for one in found] == [10] * 5
    assert sorted(np.concatenate([one.test for one in found])) == list(range(50, 100))
    assert [len(one.test) for one in folds(times, check({}), None)] == [12, 13, 12, 13]
    with pytest.raises(EmptyDataError, match="give a shorter horizon"):
        folds(times, check({"origins": 1, "horizon": "200d"}), None)
    with pytest.raises(EmptyDataError, match="different times"):
        folds(times[:1], check({}), None)


def test_a_class_that_a_refit_never_saw_has_no_probability_there() -> None:
    first = Predictions(np.array(["a"]), np.array([[0.6, 0.4]]), ["a", "c"])
    second = Predictions(np.array(["b"]), np.array([[0.2, 0.5, 0.3]]), ["a", "b", "c"])
    both = together([first, second])
    assert both.classes == ["a", "b", "c"]
    assert both.probabilities is not None
    assert both.probabilities.tolist() == [[0.6, 0.0, 0.4], [0.2, 0.5, 0.3]]
