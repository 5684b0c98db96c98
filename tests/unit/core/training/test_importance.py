"""How much each column matters, asked of real models."""

from __future__ import annotations

import json
import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.drift.step import detect_drift
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.training import importance
from airflow_mlops.core.training.importance import importance_of

LOG = logging.getLogger("importance")


def rows(count: int = 3000) -> pd.DataFrame:
    """Two columns that say much, a category that says something, and three that say nothing."""
    random = np.random.default_rng(4)
    frame = pd.DataFrame(
        {
            "noise": random.normal(size=count),
            "little": random.normal(size=count),
            "much": random.normal(size=count) * 1000,
            "city": random.choice(["Oslo", "Rome", "Lima"], count),
            "flat": 1.0,
        }
    )
    frame["number"] = 3 * frame["much"] / 1000 + frame["little"] + 2 * (frame["city"] == "Rome")
    frame["label"] = (frame["number"] + random.normal(size=count) > 0.5).astype(int)
    return frame


FRAME = rows()
X = FRAME[["noise", "little", "much", "city", "flat"]]
NUMBERS = ["noise", "little", "much", "flat"]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a model would be asked of fewer rows."""
    monkeypatch.setattr(importance, "BUDGET", 1e6)


def encoded(estimator: Any) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    return make_pipeline(make_column_transformer((OneHotEncoder(), ["city"]), (StandardScaler(), NUMBERS)), estimator)


def models() -> dict[str, Any]:
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.svm import LinearSVC

    return {
        "logistic": encoded(LogisticRegression()),
        "no probabilities": encoded(LinearSVC()),
        "forest": encoded(RandomForestClassifier(20, random_state=0, n_jobs=1)),
        "lightgbm": encoded(LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1)),
        "linear": encoded(LinearRegression()),
        "trees": encoded(HistGradientBoostingRegressor(max_iter=30)),
    }


@pytest.mark.parametrize("name", ["logistic", "no probabilities", "forest", "lightgbm", "linear", "trees"])
def test_columns_of_the_data_by_what_the_model_makes_of_them(name: str) -> None:
    model = models()[name]
    model.fit(X[:2000], FRAME["number" if name in ("linear", "trees") else "label"][:2000])
    found = importance_of(model, X[2000:], LOG)
    assert found is not None
    assert set(found) == set(X.columns)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    assert list(found)[:1] == ["much"]
    assert found["flat"] == 0
    assert min(found["little"], found["city"]) > found["noise"]
    assert found == importance_of(model, X[2000:], LOG), "asked again, it says the same"


def test_of_a_linear_model_it_is_the_scaled_coefficients() -> None:
    from sklearn.linear_model import LinearRegression

    random = np.random.default_rng(1)
    frame = pd.DataFrame({f"x{i}": random.normal(0, 10.0**i, 5000) for i in range(4)})
    coefficients = np.array([4.0, 0.3, 0.02, 0.001])
    model = LinearRegression().fit(frame, frame.to_numpy() @ coefficients)
    expected = coefficients * 10.0 ** np.arange(4)
    found = importance_of(model, frame, LOG)
    assert found is not None
    shares = [found[f"x{i}"] for i in range(4)]
    assert shares == pytest.approx(expected / expected.sum(), rel=0.1)


def features(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"one": frame["much"] + frame["little"], "other": (frame["city"] == "Rome") * 1000.0})


def test_what_is_made_of_the_columns_is_seen_through() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    model = make_pipeline(FunctionTransformer(features), LogisticRegression(max_iter=1000)).fit(X, FRAME["label"])
    found = importance_of(model, X, LOG)
    assert found is not None
    assert next(iter(found)) == "much"
    assert found["city"] > 0
    assert found["noise"] == found["flat"] == 0


class Stubborn:
    """A model that takes the rows as they are, and no others."""

    def predict(self, frame: pd.DataFrame) -> Any:
        if frame["much"].iloc[0] != X["much"].iloc[0] or len(frame) > importance.ROWS:
            raise ValueError("never seen")
        return np.arange(float(len(frame)))


def test_where_it_cannot_be_told_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LinearRegression

    assert importance_of(DummyClassifier().fit(X, FRAME["label"]), X, LOG) is None
    assert importance_of(Stubborn(), X, LOG) is None
    assert importance_of(Stubborn(), X[:0], LOG) is None
    model = LinearRegression().fit(X[["much"]], FRAME["number"])
    assert importance_of(model, X[["much"]], LOG) == {"much": 1.0}
    monkeypatch.setattr(importance, "BUDGET", 0.0)
    assert importance_of(model, X[["much"]], LOG) is None, "a model that takes too long is not asked"


def test_drift_tells_first_what_matters_to_the_champion(mlflow_context: Any, train: Any, data: Any) -> None:
    roles = {"key": "id", "time": "at", "target": "y", "private": "email"}
    model = train(trainer="shop_trainers:forest", features="shop_trainers:features", roles=roles)
    matters = model["training"]["importance"]
    assert next(iter(matters)) == "a"
    version = register_model(mlflow_context, model=model, model_name="orders")
    promote_model(mlflow_context, model=version, alias="champion", reference=str(data), evidence=[])

    now = pd.read_parquet(data)
    # What matters least drifts most.
    now = now.assign(a=now["a"] + 0.5, größe=now["größe"] + 1, w=now["w"] + 100)
    now.to_parquet(data.with_name("now.parquet"))

    def drift(**arguments: Any) -> tuple[dict[str, Any], Any]:
        report = detect_drift(mlflow_context, current=str(data.with_name("now.parquet")), **arguments)
        store = mlflow_context.store
        return report, json.loads(store.get_bytes(str(store.key_of(report["details_uri"]))))

    report, details = drift(reference="orders@champion")
    assert [one["column"] for one in report["failures"]] == ["a", "größe", "w"]
    assert [one["name"] for one in details["columns"]][:2] == ["a", "größe"]
    assert details["ordered_by"] == "what matters to orders 1 (champion)"
    assert "of which a (" in report["summary"]
    assert report["metrics"]["drifted_importance"] == pytest.approx(1)
    page = mlflow_context.store.get_bytes(str(mlflow_context.store.key_of(report["report_uri"]))).decode()
    assert "ordered by what matters to orders 1 (champion)" in page
    assert page.index(">a<") < page.index(">größe<") < page.index(">w<")

    for given in ("orders@champion", version):
        against_data, _ = drift(reference=str(data), importance=given)
        assert [one["column"] for one in against_data["failures"]] == ["a", "größe", "w"]
    told, _ = drift(reference=str(data), importance={"w": 2, "a": 1})
    page = mlflow_context.store.get_bytes(str(mlflow_context.store.key_of(told["report_uri"]))).decode()
    assert "as was given." in page
    assert "when a column is shuffled" not in page
    assert [one["column"] for one in told["failures"]] == ["w", "a", "größe"]
    unknown, details = drift(reference=str(data))
    assert next(one["column"] for one in unknown["failures"]) == "w"
    assert details["ordered_by"] is None
