"""The Airflow plugin: report files in the API server."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class MlopsPlugin(AirflowPlugin):
    """Mount the provider's pages."""

    name = "mlops"
