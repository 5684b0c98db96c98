"""Registered versions, reports about them, and views of the ledger."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from airflow_mlops.core import digests
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.rollback import rollback_model
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.steps import StepContext

NAME = "churn"


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits a minute for a dead process here."""
    monkeypatch.setenv("AIRFLOW_MLOPS_LEASE_SECONDS", "0.5")


@pytest.fixture
def as_task(mlflow_context: StepContext) -> Callable[[str], StepContext]:
    """The context of another task instance on the same back end."""

    def context(key: str) -> StepContext:
        return dataclasses.replace(mlflow_context, key=key, run={**mlflow_context.run, "run_id": key})

    return context


@pytest.fixture
def versions(as_task: Any, log_model: Any) -> list[dict[str, Any]]:
    """Three registered versions of ``churn``."""
    return [
        register_model(as_task(f"register/{number}"), model=log_model(weights=str(number)), model_name=NAME)
        for number in (1, 2, 3)
    ]


@pytest.fixture
def report(mlflow_context: StepContext) -> Callable[..., dict[str, Any]]:
    """Make a model test's report, its details in the store."""

    def make(
        ref: dict[str, Any],
        *,
        passed: bool = True,
        subject: str | None = None,
        against: dict[str, Any] | None = None,
        details: dict[str, Any] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        found = {
            "tests": [{"name": "auc", "passed": passed, "severity": "error"}],
            "of": ref["uri"],
            "champion": against and {"alias": "churn@champion", **against},
            **(details or {}),
        }
        key = f"reports/flights/test/{digests.hex_of(digests.of_json(found))[:16]}/details.json"
        mlflow_context.store.put_json(key, found)
        return {
            "schema": 1,
            "kind": "model_test",
            "passed": passed,
            "severity": "ok" if passed else "error",
            "summary": "AUC 0.71, at least 0.8 was asked for." if not passed else "All 1 test passed.",
            "subject": subject or ref["digest"],
            "details_uri": mlflow_context.store.uri_of(key),
            "report_uri": mlflow_context.store.uri_of(key.replace("details.json", "report.html")),
            "digest": digests.of_json(found),
            **more,
        }

    return make


@pytest.fixture
def registered(mlflow_context: StepContext) -> RegisteredModel:
    """``churn`` in MLflow."""
    return RegisteredModel(mlflow_context, NAME)


@pytest.fixture
def ledger(mlflow_context: StepContext) -> Ledger:
    """The ledger of ``churn``."""
    return Ledger(mlflow_context.store, NAME)


@pytest.fixture
def history(mlflow_context: StepContext) -> Callable[[], list[tuple[int, str, str, int | None]]]:
    """What the ledger says: number, state, action, version."""

    def read() -> list[tuple[int, str, str, int | None]]:
        entries = Ledger(mlflow_context.store, NAME).entries()
        return [(e.seq, e.state, e.intent["action"], e.version) for e in entries]

    return read


@pytest.fixture
def promote(as_task: Any) -> Callable[..., dict[str, Any]]:
    """Promote as the task instance ``key``."""

    def call(model: Any, key: str = "promote/1", **arguments: Any) -> dict[str, Any]:
        return promote_model(as_task(key), model=model, **arguments)

    return call


@pytest.fixture
def rollback(as_task: Any) -> Callable[..., dict[str, Any]]:
    """Roll back as the task instance ``key``."""

    def call(key: str = "rollback/1", **arguments: Any) -> dict[str, Any]:
        return rollback_model(as_task(key), model_name=NAME, **arguments)

    return call
