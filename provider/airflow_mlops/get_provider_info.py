"""What Airflow reads of this provider. Imports nothing."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata."""
    return {
        "package-name": "airflow-provider-mlops",
        "name": "MLOps",
        "description": "Data validation, training, model testing, registry promotion and drift checks.",
        "integrations": [
            {
                "integration-name": "MLOps",
                "external-doc-url": "https://ml-ops.org/",
                "tags": ["ml"],
            },
            {
                "integration-name": "MLflow",
                "external-doc-url": "https://mlflow.org/docs/latest/",
                "tags": ["ml"],
            },
            {
                "integration-name": "Great Expectations",
                "external-doc-url": "https://docs.greatexpectations.io/",
                "tags": ["data"],
            },
        ],
        "operators": [
            {
                "integration-name": "MLOps",
                "python-modules": [
                    "airflow_mlops.operators.data",
                    "airflow_mlops.operators.evaluation",
                    "airflow_mlops.operators.registry",
                    "airflow_mlops.operators.training",
                ],
            }
        ],
        "hooks": [
            {"integration-name": "MLOps", "python-modules": ["airflow_mlops.hooks.store"]},
            {"integration-name": "MLflow", "python-modules": ["airflow_mlops.hooks.mlflow"]},
            {"integration-name": "Great Expectations", "python-modules": ["airflow_mlops.hooks.great_expectations"]},
        ],
        "extra-links": [
            "airflow_mlops.links.model.ReportLink",
            "airflow_mlops.links.model.MLflowRunLink",
            "airflow_mlops.links.model.ModelVersionLink",
        ],
        "task-decorators": [
            {"name": "train_model", "class-name": "airflow_mlops.decorators.training.train_model_task"},
            {"name": "evaluate_model", "class-name": "airflow_mlops.decorators.evaluation.evaluate_model_task"},
        ],
        "notifications": ["airflow_mlops.notifications.gate.GateNotifier"],
        # The plugin is announced by its entry point alone: named here too, Airflow would load it twice where providers
        # are not discovered lazily, and show an import error for the second.
    }
