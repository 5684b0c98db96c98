"""Groups that are selected alike, or not: real models, fairlearn's own functions, and counts by hand."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    demographic_parity_difference,
    demographic_parity_ratio,
    equalized_odds_difference,
    equalized_odds_ratio,
)
from sklearn.linear_model import LinearRegression, LogisticRegression

from airflow_mlops.core.errors import MissingColumnError, SpecError
from airflow_mlops.core.evaluation.fairness import Selection, _chance, rates
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.steps import StepContext

FEATURES = ["größe", "distance"]
PARITY = {"kind": "fairness", "by": "airport", "criterion": "demographic_parity", "max_difference": 0.1, "min_rows": 10}
ODDS = {**PARITY, "criterion": "equalized_odds"}
ROWS = np.arange(1020)
OURS = {"demographic_parity": (demographic_parity_difference, demographic_parity_ratio),
        "equalized_odds": (equalized_odds_difference, equalized_odds_ratio)}  # fmt: skip


@pytest.fixture
def fair(context: StepContext, save: Callable[..., str], log_model: Any, frame: pd.DataFrame) -> Any:
    """Return what some tests say of a model, the details and the page."""

    def run(*tests: dict[str, Any], model: Any = None, rows: Any = None, roles: Any = None, **more: Any) -> Any:
        report = evaluate_model(
            context,
            model=log_model(model=model).to_dict(),
            dataset=save(frame if rows is None else rows),
            roles=roles or {"key": "id"},
            target="late",
            tests=list(tests),
            **more,
        )
        found = context.store.get_json(context.store.key_of(report["details_uri"]) or "")
        page = context.store.get_bytes(context.store.key_of(report["report_uri"]) or "").decode()
        return found["tests"][1:], found, page, report

    return run


def unfair(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose features differ by airport, so that a model of them does too."""
    return rows.assign(größe=rows["größe"] + (rows["airport"] == "JFK") * 1.5)


@pytest.mark.parametrize("criterion", ["demographic_parity", "equalized_odds"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_figures_are_fairlearns(criterion: str, weighted: bool) -> None:
    random = np.random.default_rng(0)
    truth, label = random.random(800) < 0.4, random.choice(["a", "b", "c"], 800, p=[0.5, 0.3, 0.2])
    selected = random.random(800) < np.where(label == "a", 0.6, 0.4) * np.where(truth, 1, 0.5)
    weights = random.random(800) if weighted else None
    found = rates(truth, selected, label, criterion, weights)
    for name, function in zip(("difference", "ratio"), OURS[criterion], strict=True):
        expected = function(truth, selected, sensitive_features=label, sample_weight=weights)
        assert found[name] == pytest.approx(expected, abs=1e-12)


def test_the_rates_are_those_counted_by_hand() -> None:
    truth = np.array([1, 1, 1, 0, 0, 1, 1, 0, 0, 0], dtype=bool)
    selected = np.array([1, 1, 0, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
    label = np.array(["a"] * 5 + ["b"] * 5)
    a, b = {"rows": 5, "selection_rate": 0.6}, {"rows": 5, "selection_rate": 0.2}
    a |= {"true_positive_rate": 2 / 3, "false_positive_rate": 1 / 2}
    b |= {"true_positive_rate": 1 / 2, "false_positive_rate": 0.0}
    found = rates(truth, selected, label, "equalized_odds")
    assert [{k: v for k, v in one.items() if k != "group"} for one in found["groups"]] == [a, b]
    assert (found["difference"], found["ratio"]) == (0.5, 0.0)
    found = rates(truth, selected, label, "demographic_parity")
    assert (found["difference"], found["ratio"]) == pytest.approx((0.4, 1 / 3))


def test_groups_none_of_which_is_selected_are_equal() -> None:
    nobody, label = np.zeros(6, dtype=bool), np.array(list("aaabbb"))
    found = rates(np.array([1, 0, 1, 0, 1, 0], dtype=bool), nobody, label, "equalized_odds")
    assert (found["difference"], found["ratio"]) == (0.0, 1.0)


def test_a_model_that_treats_airports_alike_passes_and_one_that_does_not_fails(fair: Any, frame: pd.DataFrame) -> None:
    found, details, page, _ = fair(PARITY, {**ODDS, "max_difference": 0.2})
    assert [one["passed"] for one in found] == [True, True], found
    assert [one["selected"] for one in details["fairness"]] == ["class 1", "class 1"]
    found, details, page, report = fair(PARITY, {**PARITY, "min_ratio": 0.8, "name": "four fifths"}, rows=unfair(frame))
    assert [one["passed"] for one in found] == [False, False]
    said = details["fairness"][0]
    by_hand = {one["group"]: one["selection_rate"] for one in said["groups"]}
    assert found[0]["value"] == pytest.approx(max(by_hand.values()) - min(by_hand.values()))
    assert set(by_hand) == {"JFK", "LGA", "Orléans"}
    assert "must be difference ≤ 0.1 and ratio ≥ 0.8" in found[1]["message"]
    assert "JFK" in found[0]["message"]
    # Values of the data stay out of logs and XCom.
    assert "JFK" not in str(report["failures"])
    assert "Fairness" in page


def test_groups_that_are_apart_by_luck_are_not_held_against_the_model(fair: Any) -> None:
    # 18 rows of Orléans: their rate is 20 points off, and may well be.
    found, details, _, _ = fair(PARITY, {**PARITY, "correction": "none"})
    assert [one["passed"] for one in found] == [True, False]
    assert found[0]["value"] == found[1]["value"] > 0.1
    assert "within chance (p = " in found[0]["message"]
    assert details["fairness"][0]["p_corrected"] > 0.05


def test_a_fair_model_seldom_fails_and_an_unfair_one_does() -> None:
    spec = {"criterion": "demographic_parity", "max_difference": 0.1, "alpha": 0.05}
    label = np.repeat(np.array(["a", "b", "c"], dtype=object), [600, 300, 120])
    failed = {}
    for apart in (0.1, 0.3):
        random = np.random.default_rng(1)
        failed[apart] = 0
        for _ in range(200):
            selected = random.random(len(label)) < np.where(label == "c", 0.4 + apart, 0.4)
            evidence = SimpleNamespace(roles={}, frame=None, weights=None, challenger=SimpleNamespace(rows=ROWS))
            chance = _chance(evidence, spec, Selection("", selected, selected), label, np.ones(len(label), dtype=bool))
            failed[apart] += chance is not None and chance <= 0.05
    # At the threshold at most 5% and three standard errors; 20 points beyond it nearly always.
    assert failed[0.1] <= 200 * (0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5)
    assert failed[0.3] >= 180


def test_private_values_are_not_shown_unless_asked_for(fair: Any, frame: pd.DataFrame) -> None:
    roles = {"key": "id", "private": "airport"}
    found, details, page, _ = fair(PARITY, rows=unfair(frame), roles=roles)
    assert "JFK" not in str(details["fairness"]) + page + found[0]["message"]
    assert "value 1 (private)" in page
    _, _, page, _ = fair(PARITY, rows=unfair(frame), roles=roles, show_values=True)
    assert "JFK" in page


def test_small_groups_have_no_say(fair: Any, frame: pd.DataFrame) -> None:
    small = int((frame["airport"] == "Orléans").sum())
    _, details, _, _ = fair({**PARITY, "min_rows": small + 1})
    (left,) = details["fairness"][0]["left_out"]
    assert (left["group"], left["rows"], left["why"]) == ("Orléans", small, f"fewer than {small + 1} rows")
    found, _, _, _ = fair({**PARITY, "min_rows": 1000})
    message = "Fewer than two groups by airport can be compared: fewer than 1,000 rows"
    assert (found[0]["passed"], found[0]["message"]) == (False, message)


def test_each_class_of_many_is_judged_or_the_one_that_is_named(fair: Any, make_rows: Any) -> None:
    def three(seed: int) -> pd.DataFrame:
        rows = make_rows(900, seed=seed)
        late = np.array(["early", "on time", "late"])[np.digitize(rows["größe"] + 0.2 * rows["distance"], [-0.6, 0.6])]
        return unfair(rows).assign(late=late)

    train = three(9)
    model = LogisticRegression().fit(train[FEATURES], train["late"])
    _, details, _, _ = fair(PARITY, model=model, rows=three(0))
    assert [one["selected"] for one in details["fairness"]] == ["class early", "class late", "class on time"]
    found, details, _, _ = fair({**ODDS, "of_class": "late"}, model=model, rows=three(0))
    (said,) = details["fairness"]
    assert said["selected"] == "class late"
    assert found[0]["value"] == said["difference"]
    with pytest.raises(SpecError, match="the model knows no class 'never'"):
        fair({**PARITY, "of_class": "never"}, model=model, rows=three(0))


def test_of_a_quantity_it_counts_who_gets_enough(fair: Any, frame: pd.DataFrame) -> None:
    rows = unfair(frame).assign(late=lambda one: 10 * one["größe"] + 0.5)
    model = LinearRegression().fit(rows[FEATURES], rows["late"])
    found, details, _, _ = fair({**PARITY, "at_least": 5}, model=model, rows=rows)
    by_hand = pd.Series(model.predict(rows[FEATURES]) >= 5).groupby(rows["airport"]).mean()
    assert {one["group"]: one["selection_rate"] for one in details["fairness"][0]["groups"]} == pytest.approx(
        by_hand.to_dict()
    )
    assert not found[0]["passed"]
    with pytest.raises(SpecError, match="at_least= says from which value on"):
        fair(PARITY, model=model, rows=rows)


def test_a_probability_may_be_the_line(fair: Any, frame: pd.DataFrame) -> None:
    model = LogisticRegression().fit(frame[FEATURES], frame["late"])
    _, details, _, _ = fair({**PARITY, "at_least": 0.8}, model=model)
    rate = pd.Series(model.predict_proba(frame[FEATURES])[:, 1] >= 0.8).groupby(frame["airport"]).mean()
    groups = {one["group"]: one["selection_rate"] for one in details["fairness"][0]["groups"]}
    assert groups == pytest.approx(rate.to_dict())
    assert details["fairness"][0]["selected"] == "class 1 with 0.8 or more"


def test_a_column_that_is_not_there(fair: Any) -> None:
    with pytest.raises(MissingColumnError, match="goes by 'airprt', which the dataset does not have; did you mean"):
        fair({**PARITY, "by": "airprt"})
