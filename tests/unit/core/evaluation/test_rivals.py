"""The anchor and the version before: who they are, by the ledger, and what tests against them say."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from airflow_mlops.core.errors import EmptyDataError, IntegrityError, SpecError
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.rollback import rollback_model
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.steps import StepContext

NAME = "flights_late"
SERVING = f"{NAME}@champion"
#: ROC AUC is 0.95 with noise 0.3, 0.89 with 1.0, 0.84 with 1.5 and 0.76 with 2.5.
GOOD, FAIR, POOR, BAD = 0.3, 1.0, 1.5, 2.5
CHAMPION = {"kind": "champion", "metric": "roc_auc", "margin": 0.08}
ANCHOR = {"kind": "anchor", "metric": "roc_auc", "margin": 0.08}
PREVIOUS = {"kind": "previous", "metric": "roc_auc", "probation": "60d"}


class Noisy(ClassifierMixin, BaseEstimator):
    """A model that knows the answer, and is wrong by so much noise."""

    def __init__(self, noise: float) -> None:
        self.noise = noise
        self.classes_ = np.array([0, 1])

    def predict_proba(self, X: Any) -> Any:
        told = 1.5 * X["größe"].to_numpy() + 0.8 * X["distance"].to_numpy()
        said = told + self.noise * np.random.default_rng(len(X)).normal(size=len(X))
        return np.column_stack([1 / (1 + np.exp(said)), 1 / (1 + np.exp(-said))])

    def predict(self, X: Any) -> Any:
        return (self.predict_proba(X)[:, 1] > 0.5).astype("int64")


class Silent(Noisy):
    """A model that has no answer to long flights: it says NaN, or raises."""

    def __init__(self, noise: float, raises: bool) -> None:
        super().__init__(noise)
        self.raises = raises

    def predict_proba(self, X: Any) -> Any:
        said, long = super().predict_proba(X), X["distance"].to_numpy() > 1.5
        if self.raises and long.any():
            raise ValueError("a flight is too long")
        said[long] = np.nan
        return said


@pytest.fixture
def rows(make_rows: Any) -> pd.DataFrame:
    """The hours of May and June, labelled."""
    return make_rows(rows=24 * 61, seed=3, start="2013-05-01")


@pytest.fixture
def candidate(log_model: Any) -> Callable[[float], Any]:
    """Log a model with so much noise, trained on none of the rows."""
    return lambda noise: log_model(model=Noisy(noise), example=False, keys=pd.DataFrame({"id": [-1]}))


@pytest.fixture
def release(context: StepContext, candidate: Any) -> Callable[..., dict[str, Any]]:
    """Register a model, and promote it at a clock on evidence; returns the ledger's entry."""

    def call(model: Any, clock: str | None = "2013-05-01", evidence: Any = ()) -> dict[str, Any]:
        ref = candidate(model) if isinstance(model, float) else model
        task = dataclasses.replace(context, key=f"release/{ref.uri}")
        version = register_model(task, model=ref.to_dict(), model_name=NAME)
        return promote_model(task, model=version, evidence=list(evidence), clock=clock)

    return call


@pytest.fixture
def evaluate(context: StepContext, save: Any) -> Callable[..., dict[str, Any]]:
    """Evaluate on rows."""

    def call(model: Any, frame: pd.DataFrame, *tests: dict[str, Any], delay: str = "10d", **more: Any) -> Any:
        roles = {"key": "id", "time": "day", "target": "late", "label_delay": delay}
        given = model if isinstance(model, str) else model.to_dict()
        return evaluate_model(context, model=given, dataset=save(frame), roles=roles, tests=list(tests), **more)

    return call


@pytest.fixture
def watch(evaluate: Any, rows: pd.DataFrame) -> Callable[..., dict[str, Any]]:
    """Ask how what serves does beside the version before."""

    def call(clock: str = "2013-06-20", *tests: dict[str, Any], model: str = f"models:/{SERVING}", **more: Any) -> Any:
        return evaluate(model, rows, *(tests or (PREVIOUS,)), clock=clock, **more)

    return call


@pytest.fixture
def rollback(context: StepContext) -> Callable[..., dict[str, Any]]:
    """Roll back on evidence, as a task instance."""
    return lambda evidence, key="rollback/1": rollback_model(
        dataclasses.replace(context, key=key), model_name=NAME, evidence=evidence
    )


@pytest.fixture
def told(context: StepContext) -> Callable[[dict[str, Any], str], dict[str, Any]]:
    """What a report's details say of the test of a kind."""

    def read(report: dict[str, Any], kind: str) -> dict[str, Any]:
        details = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
        (found,) = [test for test in details["tests"] if test["kind"] == kind]
        return dict(found)

    return read


def test_before_the_first_promotion_there_is_no_anchor(candidate, evaluate, rows, told):
    report = evaluate(candidate(FAIR), rows, CHAMPION, ANCHOR, champion=SERVING)

    assert report["passed"]
    assert told(report, "anchor")["message"].startswith(f"There is no anchor yet at {SERVING}")


def test_the_anchor_stops_what_the_champion_lets_through(context, release, candidate, evaluate, rows, told):
    release(GOOD)
    fair = candidate(FAIR)
    first = evaluate(fair, rows, CHAMPION, ANCHOR, champion=SERVING)
    assert first["passed"]
    assert (
        "The anchor is the champion itself (version 1, the first that the alias had" in told(first, "anchor")["message"]
    )
    page = context.store.get_bytes(context.store.key_of(first["report_uri"])).decode()
    assert "It is the champion: the figures stand above." in page
    assert release(fair, evidence=[first])["version"] == 2

    second = evaluate(candidate(POOR), rows, CHAMPION, ANCHOR, champion=SERVING)

    assert told(second, "champion")["passed"]
    assert not told(second, "anchor")["passed"]
    said = (
        "worse than the anchor of flights_late@champion (version 1, the first that the alias had (entry 1)) with 0.94"
    )
    assert said in second["summary"]
    details = context.store.get_json(context.store.key_of(second["details_uri"]))
    (rival,) = details["rivals"]
    assert (rival["role"], rival["version"], rival["rows"]) == ("anchor", 1, len(rows))
    page = context.store.get_bytes(context.store.key_of(second["report_uri"])).decode()
    assert "The anchor is flights_late version 1" in page
    assert page.count("How sure the difference is") == 2, "against each of them"


def test_where_the_champion_is_not_asked_for_the_anchor_decides_though_it_is_the_champion(
    release, candidate, evaluate, rows, told
):
    release(GOOD)
    report = evaluate(candidate(POOR), rows, ANCHOR, champion=SERVING)

    assert not told(report, "anchor")["passed"]


def test_what_was_shown_to_be_better_becomes_the_anchor_until_it_is_rolled_back(
    context, release, candidate, evaluate, rows, told
):
    release(POOR)
    good = candidate(GOOD)
    better = evaluate(good, rows, {**CHAMPION, "require": "better", "margin": 0.0}, champion=SERVING)
    entry = release(good, evidence=[better])
    (shown,) = entry["evidence"][0]["compared"]
    assert (shown["against"], shown["version"], shown["metric"], shown["verdict"]) == (SERVING, 1, "roc_auc", "better")

    challenger = candidate(POOR + 0.1)
    report = evaluate(challenger, rows, ANCHOR, champion=SERVING)
    assert "(version 2, shown to be better than version 1 in entry 2)" in told(report, "anchor")["message"]
    assert not report["passed"]

    rollback_model(dataclasses.replace(context, key="back"), model_name=NAME)
    assert evaluate(challenger, rows, ANCHOR, champion=SERVING)["passed"]
    # What nobody has any more gives way to the anchor before it, and in the end to none, which the report says.
    registered = RegisteredModel(context, NAME)
    rollback_model(dataclasses.replace(context, key="forth"), model_name=NAME, to_version=2)
    registered.delete_version(2)
    report = evaluate(challenger, rows, ANCHOR, champion=SERVING)
    assert "version 1, the first that the alias had (entry 1); version 2 after it" in told(report, "anchor")["message"]
    registered.delete_version(1)
    report = evaluate(challenger, rows, ANCHOR, champion=SERVING)
    assert told(report, "anchor")["message"].startswith("Every anchor of flights_late@champion was deleted in MLflow")


def test_a_regression_in_its_probation_takes_a_version_back(context, release, watch, rollback, told):
    release(GOOD, "2013-03-01")
    release(POOR, "2013-05-15")

    report = watch("2013-06-20")

    assert not report["passed"]
    # Rows from the promotion on whose labels are known: 26 days, by the clock of the data.
    assert "on 624 rows" in report["summary"]
    assert "since it was promoted on 2013-05-15, with labels known before 2013-06-10" in report["summary"]
    assert told(report, "previous")["comparison"]["alpha"] == 0.025
    entry = rollback(report)
    assert (entry["action"], entry["version"], entry["previous_version"]) == ("rollback", 1, 2)
    assert entry["reason"].startswith("Version 2 did worse than version 1 on the same rows: roc_auc is 0.8")
    assert entry["clock"] == "2013-06-20T00:00:00+00:00"
    assert (entry["evidence"][0]["kind"], entry["evidence"][0]["passed"]) == ("model_test", False)
    # Once a task, and what came back is not on probation.
    assert rollback(report)["seq"] == entry["seq"]
    over = watch("2013-06-20")
    assert "Version 1 came back by a rollback: it is not on probation" in over["summary"]
    pages = [context.store.get_bytes(context.store.key_of(one["report_uri"])).decode() for one in (report, over)]
    for page in pages:
        assert "<h1>Probation: flights_late</h1>" in page
        assert "Challenger and champion" not in page, "what is on probation is the champion"
    assert ["How sure the difference is" in page for page in pages] == [True, False]
    assert ["tested on" in page for page in pages] == [True, False], "of what came back nothing was predicted"


@pytest.fixture
def silent(log_model: Any) -> Callable[[bool], Any]:
    """Log a good model that has no answer to some rows."""
    return lambda raises: log_model(model=Silent(GOOD, raises), example=False, keys=pd.DataFrame({"id": [-1]}))


@pytest.mark.parametrize(
    ("raises", "clock", "says"),
    [
        (
            False,
            "2013-06-20",
            r"Version 2 does not answer: \d+ of 624 predictions are NaN, infinite or null; version 1,",
        ),
        (False, "2013-05-20", r"Version 2 does not answer: \d+ of its predictions of the 120 newest rows are NaN"),
        (True, "2013-05-20", r"Version 2 does not answer: of the 120 newest rows, .*ValueError"),
    ],
    ids=["NaN", "NaN before there are labels", "raises before there are labels"],
)
def test_a_version_that_does_not_answer_goes_back_to_one_that_does(
    release, silent, watch, rollback, raises, clock, says
):
    release(GOOD, "2013-03-01")
    release(silent(raises), "2013-05-15")
    entry = rollback(watch(clock))

    assert (entry["action"], entry["version"], entry["previous_version"]) == ("rollback", 1, 2)
    assert re.match(says, entry["reason"]), entry["reason"]
    assert entry["reason"].endswith("version 1, which served before it, answers all of them")


def test_where_neither_answers_nothing_goes_back(release, silent, watch, rollback):
    release(silent(True), "2013-03-01")
    release(silent(False), "2013-05-15")
    answer = rollback(watch("2013-05-20"))

    assert answer["kind"] == "no_rollback"
    assert "Cannot tell against version 1: it does not answer either" in answer["reason"]


@pytest.mark.parametrize(
    ("clock", "says"),
    [
        ("2013-05-24", "No row since it was promoted on 2013-05-15"),
        ("2013-05-30", "Cannot tell against version 1: 5 days are too few"),
        ("2013-07-24", "on 1,128 rows"),
        ("2013-07-25", "The probation of version 2, promoted on 2013-05-15, ended on 2013-07-14"),
    ],
)
def test_what_is_not_shown_by_then_rolls_nothing_back(release, watch, rollback, clock, says):
    release(GOOD + 0.01, "2013-03-01")
    release(GOOD, "2013-05-15")
    report = watch(clock)

    assert report["passed"]
    assert says in report["summary"]
    assert rollback(report)["kind"] == "no_rollback"


def test_the_season_is_no_reason(release, watch, rollback):
    release(BAD, "2013-03-01")
    release(POOR, "2013-05-15")
    report = watch("2013-06-20", PREVIOUS, {"kind": "metric", "metric": "roc_auc", "min": 0.9})

    assert not report["passed"]
    answer = rollback(report)
    assert answer["kind"] == "no_rollback"
    assert answer["reason"].endswith(
        "What failed, 'roc_auc', is no comparison with the version before: it may be the season"
    )


def test_without_a_version_before_or_of_another_than_serves_there_is_nothing_to_do(release, watch, rollback, told):
    release(GOOD, "2013-05-15")
    assert "No version that is still there served before version 1" in watch()["summary"]
    release(POOR, "2013-05-15")
    other = watch(model=f"models:/{NAME}/1", champion=SERVING)
    assert "flights_late@champion is version 2 now, so nothing is judged of models:/flights_late/1" in other["summary"]
    assert rollback(other)["kind"] == "no_rollback"


def test_a_promotion_that_came_meanwhile_is_not_undone(release, watch, rollback):
    release(GOOD, "2013-03-01")
    release(POOR, "2013-05-15")
    report = watch()
    release(FAIR, "2013-06-20")

    answer = rollback(report)
    assert answer["kind"] == "no_rollback"
    assert "version 2 in entry 2, which was judged, is superseded by entry 3" in answer["reason"]


def test_altered_evidence_or_none_of_the_kind_is_refused(context, release, watch, rollback, evaluate, candidate, rows):
    release(GOOD, "2013-03-01")
    release(FAIR, "2013-05-15")
    report = watch()
    key = context.store.key_of(report["details_uri"])
    context.store.put_bytes(key, json.dumps({**context.store.get_json(key), "tests": []}).encode())
    with pytest.raises(IntegrityError, match="not those that it was made with"):
        rollback(report)
    with pytest.raises(SpecError, match="a test of the kind 'previous'"):
        rollback(evaluate(candidate(FAIR), rows, CHAMPION, champion=SERVING))


def test_months_that_are_replayed_need_the_clock_of_the_promotion(release, watch):
    release(GOOD, None)
    release(POOR, None)

    report = watch()
    assert report["passed"]
    assert "No row since it was promoted on" in report["summary"]


def test_a_clock_alone_leaves_out_what_is_not_known_yet(candidate, evaluate, rows):
    report = evaluate(candidate(FAIR), rows, {"kind": "metric", "metric": "roc_auc", "min": 0.5}, clock="2013-05-21")

    assert "on 240 rows" in report["summary"]
    with pytest.raises(EmptyDataError, match="label not known yet at 2013-05-02"):
        evaluate(candidate(FAIR), rows, {"kind": "metric", "metric": "roc_auc", "min": 0.5}, clock="2013-05-02")


def test_what_serves_must_be_named(candidate, evaluate, rows):
    with pytest.raises(SpecError, match="pass model='models:/name@alias'"):
        evaluate(candidate(FAIR), rows, PREVIOUS)
    with pytest.raises(SpecError, match="needs a champion"):
        evaluate(candidate(FAIR), rows, ANCHOR)
