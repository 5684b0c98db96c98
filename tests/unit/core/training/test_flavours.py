"""Whatever a trainer returns is logged without pickle, loaded in a fresh process, and scored as it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from airflow_mlops.core import models
from airflow_mlops.core.errors import MissingColumnError, UnsupportedError
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.vocabulary import ModelRef

from .conftest import rows

MODELS = """
import numpy as np
import lightgbm
import mlflow
import xgboost
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

KEPT = {}

def xgb(X, y, *, seed):
    return keep(xgboost.XGBClassifier(n_estimators=5, max_depth=2, random_state=seed).fit(X, y))

def xgb_regressor(X, y):
    return keep(xgboost.XGBRegressor(n_estimators=5, max_depth=2).fit(X, y))

def xgb_pipeline(X, y):
    return keep(make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=5, max_depth=2)).fit(X, y))

def xgb_booster(X, y):
    return keep(xgboost.train({"objective": "binary:logistic", "max_depth": 2}, xgboost.DMatrix(X, y), 5))

def xgb_softprob(X, y):
    settings = {"objective": "multi:softprob", "num_class": 2, "max_depth": 2}
    return keep(xgboost.train(settings, xgboost.DMatrix(X, y), 5))

def lgb(X, y):
    return keep(lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, min_child_samples=5).fit(X, y))

def lgb_booster(X, y):
    data = lightgbm.Dataset(X, y)
    return keep(lightgbm.train({"objective": "binary", "verbose": -1, "min_data_in_leaf": 5}, data, 5))

class Rule(mlflow.pyfunc.PythonModel):
    def __init__(self, cut):
        self.cut = cut

    def predict(self, context, model_input, params=None):
        return 1 / (1 + np.exp(-(model_input["a"] - self.cut)))

def rule(X, y):
    return keep(Rule(float(X["a"].mean())))

class Bare:
    def __init__(self, cut):
        self.cut = cut

    def predict(self, X):
        return (X["a"] > self.cut).astype(int).to_numpy()

def bare(X, y):
    return keep(Bare(float(X["a"].mean())))

class Secretive:
    def __init__(self, cut):
        self.rule = lambda X: (X["a"] > cut).astype(int).to_numpy()

    def predict(self, X):
        return self.rule(X)

def secretive(X, y):
    return Secretive(0.0)

def keep(model):
    KEPT["model"] = model
    return model
"""


@pytest.fixture
def zoo(project: Any) -> Any:
    import importlib
    import sys

    (project.folder / "shop_models.py").write_text(MODELS)
    importlib.invalidate_caches()
    yield importlib.import_module("shop_models")
    sys.modules.pop("shop_models", None)


def score_of(model: Any, frame: Any) -> np.ndarray:
    """The score of class 1, by the library's own API."""
    import xgboost

    if isinstance(model, xgboost.Booster):
        found = model.predict(xgboost.DMatrix(frame))
        return found[:, 1] if found.ndim == 2 else found
    if hasattr(model, "predict_proba"):
        return model.predict_proba(frame)[:, 1]
    return np.asarray(
        model.predict(None, frame) if isinstance(model, mlflow.pyfunc.PythonModel) else model.predict(frame)
    )


@pytest.mark.parametrize(
    ("trainer", "flavour"),
    [
        ("xgb", "xgboost"),
        ("xgb_pipeline", "sklearn"),
        ("xgb_booster", "xgboost"),
        ("xgb_softprob", "xgboost"),
        ("lgb", "lightgbm"),
        ("lgb_booster", "lightgbm"),
        ("rule", "python_function"),
    ],
)
def test_a_classifier_is_scored_by_its_probabilities_in_training_and_in_testing(
    train, zoo, mlflow_context, tmp_path: Path, trainer: str, flavour: str
) -> None:
    found = train(trainer=f"shop_models:{trainer}", split={"by": "time", "test": 0.25})

    frame = rows().iloc[225:]
    score = score_of(zoo.KEPT["model"], frame[["a", "größe"]])
    expected = roc_auc_score(frame["y"], score, sample_weight=frame["w"])
    assert found["metrics"]["roc_auc"] == pytest.approx(expected)
    assert found["metrics"]["log_loss"] is not None

    folder = models.download(mlflow_context, ModelRef.from_dict(found), tmp_path / "copy")
    files = [path.suffix for path in folder.rglob("*") if path.is_file()]
    assert not {".pkl", ".pickle", ".joblib"} & set(files)
    logged = mlflow.models.Model.load(folder)
    assert flavour in logged.flavors
    assert logged.signature.inputs.input_names() == ["a", "größe"]

    report = evaluate_model(
        mlflow_context,
        model=found,
        tests=[{"kind": "metric", "metric": "roc_auc", "min": 0.5}, {"kind": "signature"}, {"kind": "load"}],
    )
    assert report["passed"], report["failures"]
    assert report["metrics"]["roc_auc"] == pytest.approx(expected)


@pytest.mark.parametrize(("trainer", "metric"), [("xgb_regressor", "r2"), ("bare", "accuracy")])
def test_regressors_and_bare_objects(train, zoo, mlflow_context, trainer: str, metric: str) -> None:
    target = "größe" if metric == "r2" else "y"
    roles = {"key": "id", "time": "at", "private": ["email", "shop", "who"], "target": target}
    found = train(trainer=f"shop_models:{trainer}", roles=roles)

    report = evaluate_model(mlflow_context, model=found, tests=[{"kind": "load"}])

    assert report["passed"], report["failures"]
    assert report["metrics"][metric] == pytest.approx(found["metrics"][metric])


def test_features_go_before_models_with_scikit_learns_methods_only(train, zoo) -> None:
    found = train(trainer="shop_models:xgb", features="shop_trainers:features")
    assert found["metrics"]["roc_auc"] > 0.6

    for trainer in ("xgb_booster", "rule"):
        with pytest.raises(UnsupportedError, match="Return XGBClassifier"):
            train(trainer=f"shop_models:{trainer}", features="shop_trainers:features")


def test_what_needs_a_pickle_needs_trust(train, zoo, mlflow_context, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="trust='pickle'"):
        train(trainer="shop_models:secretive")

    found = train(trainer="shop_models:secretive", trust="pickle")

    folder = models.download(mlflow_context, ModelRef.from_dict(found), tmp_path / "copy")
    assert type(cloudpickle.loads((folder / "model.pkl").read_bytes())).__name__ == "Secretive"
    assert evaluate_model(mlflow_context, model=found, tests=[{"kind": "load"}])["passed"]


class TestWholeNumbers:
    """A column of whole numbers is ``long``, and may only be missing where the user says so."""

    def signature(self, train, mlflow_context, folder: Path, **arguments: Any) -> dict[str, tuple[str, bool]]:
        frame = rows().assign(calls=lambda f: range(len(f)))
        found = train(frame, trainer="shop_models:xgb", **arguments)
        copy = models.download(mlflow_context, ModelRef.from_dict(found), folder)
        self.model = mlflow.pyfunc.load_model(str(copy))
        return {s.name: (s.type.name, s.required) for s in mlflow.models.Model.load(copy).signature.inputs}

    def test_by_default_they_stay_whole_and_are_required(self, train, zoo, mlflow_context, tmp_path: Path) -> None:
        assert self.signature(train, mlflow_context, tmp_path / "m")["calls"] == ("long", True)

    @pytest.mark.parametrize("nullable", [["calls"], "all"])
    def test_nullable_ones_may_be_missing(self, train, zoo, mlflow_context, tmp_path: Path, nullable: Any) -> None:
        assert self.signature(train, mlflow_context, tmp_path / "m", nullable=nullable)["calls"] == ("double", False)

        frame = rows(4).assign(calls=[1.0, np.nan, 3.0, 4.0])[["a", "größe", "calls"]]
        assert np.isfinite(self.model.predict(frame)).all()

    def test_a_column_that_is_not_there_is_named(self, train, zoo) -> None:
        with pytest.raises(MissingColumnError, match="did you mean 'größe'"):
            train(nullable=["grösse"])

    def test_whole_numbers_go_for_floats_when_a_python_model_is_tested(
        self, train, zoo, mlflow_context, tmp_path
    ) -> None:
        found = train(rows().assign(a=lambda f: f["a"].round(1)), trainer="shop_models:rule")
        whole = rows().assign(a=lambda f: f["a"].round().astype("int64"), id=lambda f: f["id"] + 1000)
        path = tmp_path / "whole.parquet"
        whole.to_parquet(path)

        report = evaluate_model(
            mlflow_context, model=found, dataset=str(path), roles={"key": "id"}, tests=[{"kind": "load"}]
        )

        assert report["passed"], report["failures"]
