"""The Airflow plugin: report files in the API server."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from airflow_mlops.links.model import PREFIX
from airflow_mlops.web.lazy import LazyApp


class MlopsPlugin(AirflowPlugin):
    """Mount the provider's pages. Every process loads this, so the application is made on its first request."""

    name = "mlops"
    fastapi_apps = [  # noqa: RUF012 - the base class has a plain list
        {"app": LazyApp("airflow_mlops.web.app:create_app"), "url_prefix": PREFIX, "name": "MLOps"}
    ]
