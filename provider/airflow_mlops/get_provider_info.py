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
            {"integration-name": "MLOps", "external-doc-url": "https://airflow.apache.org/", "tags": ["service"]}
        ],
    }
