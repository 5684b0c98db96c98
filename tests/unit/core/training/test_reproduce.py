"""A model trained again from its record: the same, or what differs is said."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import NotFoundError, SpecError, UnsupportedError
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.training.reproduce import reproduce_model

from .conftest import rows


@pytest.fixture
def version(train: Callable[..., dict[str, Any]], mlflow_context: StepContext) -> Callable[..., str]:
    """Train and register a model of a snapshot; returns its URI."""
    from airflow_mlops.core.data.snapshot import snapshot_data

    def make(**arguments: Any) -> str:
        folder = Path(sys.modules["shop_trainers"].__file__ or "").parent
        rows().to_parquet(folder / "snap.parquet", index=False)
        ref = snapshot_data(mlflow_context, source=str(folder / "snap.parquet"), name="orders")
        found = train(dataset=ref, **arguments)
        registered = register_model(mlflow_context, model=found, model_name="churn")
        return f"models:/churn/{registered['version']}"

    return make


def differs(report: dict[str, Any]) -> dict[str, bool]:
    return {one["what"]: one["fails"] for one in report["differences"]}


@pytest.mark.parametrize(
    "arguments",
    [
        {"hyperparameters": {"C": 0.3}, "split": {"by": "time", "test": 0.25, "gap": "5h"}},
        {"trainer": "shop_trainers:forest", "hyperparameters": {"n_estimators": 7}, "seed": 4, "features": None},
        {"trainer": "shop_trainers:linear", "split": {"by": "random", "test": 0.2, "seed": 3}, "nullable": "all"},
        {"features": "shop_trainers:features", "metrics": ["roc_auc", "log_loss"]},
    ],
    ids=["logistic", "forest", "linear", "features"],
)
def test_it_is_the_same_model_bit_for_bit(
    version: Callable[..., str], mlflow_context: StepContext, arguments: dict[str, Any]
) -> None:
    report = reproduce_model(mlflow_context, model=version(**arguments))
    assert report["passed"], report["summary"]
    assert report["metrics"] == {"max_metric_difference": 0.0, "max_prediction_difference": 0.0, "bit_for_bit": True}
    assert "is reproduced" in report["summary"]
    assert report["kind"] == "reproduction"
    assert report["differences"] == []


def test_other_code_is_named_and_so_is_what_it_changes(
    version: Callable[..., str], mlflow_context: StepContext, project: Any, caplog: pytest.LogCaptureFixture
) -> None:
    uri = version()
    file = project.folder / "shop_trainers.py"
    file.write_text(file.read_text().replace("LogisticRegression(C=C)", "LogisticRegression(C=C / 50)"))
    del sys.modules["shop_trainers"]
    importlib.invalidate_caches()
    with caplog.at_level(logging.WARNING):
        assert reproduce_model(mlflow_context, model=uri)["passed"], "the code on record is another"
        report = reproduce_model(mlflow_context, model=uri, code="imported")
    assert not report["passed"]
    found = differs(report)
    assert found["code"] is False
    assert found["metric roc_auc"] is found["predictions"] is True
    assert report["severity"] == "error"
    assert "metric" in report["summary"]
    assert "code: on record sha256:" in caplog.text


def test_other_libraries_are_named_and_alone_do_not_fail(
    version: Callable[..., str], mlflow_context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.core.training import reproduce

    uri = version()
    known = reproduce.metadata.version
    monkeypatch.setattr(reproduce.metadata, "version", lambda name: "0.1" if name == "scipy" else known(name))
    report = reproduce_model(mlflow_context, model=uri)
    assert report["passed"]
    assert differs(report) == {"package scipy": False}
    assert "Not as on record: package scipy." in report["summary"]
    assert report["severity"] == "warning"


def test_what_cannot_be_made_again_says_why(
    version: Callable[..., str], mlflow_context: StepContext, project: Any, log_model: Callable[..., dict[str, Any]]
) -> None:
    uri = version()
    with pytest.raises(UnsupportedError, match="no recipe on record"):
        reproduce_model(mlflow_context, model=log_model())
    with pytest.raises(NotFoundError):
        reproduce_model(mlflow_context, model="models:/churn/9")
    (project.folder / "shop_trainers.py").rename(project.folder / "elsewhere.py")
    del sys.modules["shop_trainers"]
    importlib.invalidate_caches()
    with pytest.raises(SpecError, match="--code FOLDER"):
        reproduce_model(mlflow_context, model=uri, code="imported")
