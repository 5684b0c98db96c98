"""A retraining takes the settings of the model that serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_mlops.core import models
from airflow_mlops.core.errors import UnsupportedError
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.steps import StepContext


def test_the_hyperparameters_of_an_alias(train: Callable[..., dict[str, Any]], mlflow_context: StepContext) -> None:
    first = train(hyperparameters="churn@champion")
    assert first["training"]["recipe"]["hyperparameters"] == {}, "nobody serves yet: the trainer's own"
    tuned = train(hyperparameters={"C": 0.3})
    version = register_model(mlflow_context, model=tuned, model_name="churn")
    promote_model(mlflow_context, model=version, evidence=[])
    again = train(hyperparameters="churn@champion")
    assert again["training"]["recipe"]["hyperparameters"] == {"C": 0.3}
    assert again["metrics"] == tuned["metrics"]


def test_settings_that_nobody_knows_are_asked_for(
    train: Callable[..., dict[str, Any]], mlflow_context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register_model(mlflow_context, model=train(), model_name="churn")
    promote_model(mlflow_context, model=version, evidence=[])
    real = models.resolve

    def elsewhere(context: StepContext, model: Any) -> Any:
        import dataclasses

        return dataclasses.replace(real(context, model), training=None)

    monkeypatch.setattr(models, "resolve", elsewhere)
    with pytest.raises(UnsupportedError, match="give them as a dict"):
        train(hyperparameters="churn@champion")
