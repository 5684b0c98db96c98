"""Rows to train on, and a user's project with trainers that another process can import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.training.step import train_model

TRAINERS = """
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CALLS = []

def logistic(X, y, *, C=1.0):
    CALLS.append("logistic")
    return make_pipeline(StandardScaler(), LogisticRegression(C=C)).fit(X, y)

def forest(X, y, *, random_state, n_estimators=5):
    return RandomForestClassifier(n_estimators, random_state=random_state).fit(X, y)

def linear(X, y):
    return LinearRegression().fit(X, y)

def everything(X, y, sample_weight, groups, time, X_val, y_val, seed):
    CALLS.append(dict(X=X, y=y, sample_weight=sample_weight, groups=groups, time=time, X_val=X_val, y_val=y_val))
    return LogisticRegression().fit(X, y, sample_weight)

class Majority(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.share_ = float((np.asarray(y) == self.classes_[-1]).mean())
        return self

    def predict_proba(self, X):
        return np.tile([1 - self.share_, self.share_], (len(X), 1))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

def majority(X, y):
    return Majority().fit(X, y)

BROKEN = []

def flaky(X, y):
    if BROKEN:
        raise RuntimeError("out of luck")
    return LogisticRegression().fit(X, y)

def unfitted(X, y):
    return LogisticRegression()

def hidden(X, y):
    class Local(Majority):
        pass
    return Local().fit(X, y)

def features(frame):
    from shop_helpers import ratio
    return pd.DataFrame({"a": frame["a"], "r": ratio(frame["a"], frame["größe"])})
"""
HELPERS = "def ratio(a, b):\n    return a / (b.abs() + 1)\n"


def rows(count: int = 300, seed: int = 0) -> pd.DataFrame:
    """Rows with a key, a time, a group, a weight, a private column, three features and a label."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=count)
    return pd.DataFrame(
        {
            "id": np.arange(count),
            "at": pd.date_range("2013-01-01", periods=count, freq="h", tz="UTC"),
            "who": [f"c{i % 30}" for i in range(count)],
            "w": rng.uniform(0.5, 2, count),
            "email": [f"p{i}@example.com" for i in range(count)],
            "a": a,
            "größe": rng.normal(size=count),
            "shop": rng.choice(["north", "south"], count),
            "y": (a + rng.normal(size=count) > 0).astype("int64"),
        }
    )


NUMERIC = {"key": "id", "time": "at", "group": "who", "weight": "w", "private": ["email", "shop"], "target": "y"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The rows as a Parquet file."""
    path = tmp_path / "orders.parquet"
    rows().to_parquet(path, index=False)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The user's module of trainers, ``shop_trainers``; its source is in ``project.folder``."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "shop_trainers.py").write_text(TRAINERS)
    (folder / "shop_helpers.py").write_text(HELPERS)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    module = importlib.import_module("shop_trainers")
    module.folder = folder
    yield module
    for name in ("shop_trainers", "shop_helpers"):
        sys.modules.pop(name, None)


@pytest.fixture
def train(mlflow_context: StepContext, project: Any, data: Path) -> Callable[..., dict[str, Any]]:
    """Run the step on the rows, with ``shop_trainers:logistic`` and the roles above unless told otherwise."""

    def run(frame: pd.DataFrame | None = None, **arguments: Any) -> dict[str, Any]:
        if frame is not None:
            frame.to_parquet(data, index=False)
        given = {"dataset": str(data), "trainer": "shop_trainers:logistic", "roles": NUMERIC, **arguments}
        return train_model(mlflow_context, **given)

    return run
