"""Extra links of the operators: report, model card, MLflow run, model version.

The operator leaves the addresses in its ``link_urls`` when it has run; Airflow asks for them as the task ends, for
mapped tasks too, and keeps what it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

from airflow_mlops.core.tracking import strip_credentials

if TYPE_CHECKING:
    from airflow_mlops.backend import Tracking

#: Where the plugin's application is mounted in the API server.
PREFIX = "/mlops"


class MlopsLink(BaseOperatorLink):
    """A link whose address the operator has left in ``link_urls`` under the link's ``key``."""

    key = ""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, or an empty string if the task has made nothing to link to."""
        return str(getattr(operator, "link_urls", {}).get(self.key, ""))


class ReportLink(MlopsLink):
    """The task's report, served by the plugin from the store."""

    name = "Report"
    key = "report"


class MLflowRunLink(MlopsLink):
    """The MLflow run that logged the model."""

    name = "MLflow run"
    key = "run"


class ModelVersionLink(MlopsLink):
    """The model version in MLflow's registry."""

    name = "Model version"
    key = "version"


class ModelCardLink(MlopsLink):
    """The model card of the version that was released, served by the plugin from the store."""

    name = "Model card"
    key = "card"


def report_url(store_uri: str, report_uri: str | None, dag_id: str, store_conn_id: str | None = None) -> str | None:
    """Return the address of a report in Airflow, or None if it is not in this store's reports of this DAG.

    :param store_conn_id: the store's connection, if it is not the configuration's.
    """
    from airflow_mlops.core.store import open_store, safe_name

    key = open_store(store_uri).key_of(report_uri) if report_uri else None
    prefix = f"reports/{safe_name(dag_id)}/"
    if not key or not key.startswith(prefix):
        return None
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    query = f"?store={quote(store_conn_id, safe='')}" if store_conn_id else ""
    return f"{base}{PREFIX}/reports/{quote(dag_id, safe='')}/{quote(key.removeprefix(prefix))}{query}"


def urls_of(
    result: dict[str, Any],
    *,
    store_uri: str,
    tracking: Tracking | None,
    dag_id: str,
    store_conn_id: str | None = None,
) -> dict[str, str]:
    """Return ``{"report": ..., "card": ..., "run": ..., "version": ...}`` for what a step's result names.

    MLflow's own pages have an address only where MLflow is served over HTTP: by the connection, its ``ui_url``, or
    ``[mlops] mlflow_ui_url``. Without one these links are left out, and the task shows no button for them.
    """
    found: dict[str, str] = {}
    report = report_url(store_uri, result.get("report_uri"), dag_id, store_conn_id)
    if report:
        found["report"] = report
    card = report_url(store_uri, result.get("card_uri"), dag_id, store_conn_id)
    if card:
        found["card"] = card
    if tracking is None:
        return found
    runs = _ui(tracking.ui_url or tracking.tracking_uri)
    if runs and result.get("run_id"):
        # This page of MLflow finds the run's experiment by itself.
        found["run"] = f"{runs}/#/runs/{quote(str(result['run_id']), safe='')}"
    models = mlflow_pages(tracking)
    name, version = result.get("name") or result.get("model"), result.get("version")
    if models and isinstance(name, str) and version and result.get("kind") in ("model", "ledger_entry", "approval"):
        found["version"] = f"{models}/#/models/{quote(name, safe='')}/versions/{version}"
    return found


def mlflow_pages(tracking: Tracking | None) -> str | None:
    """Return where people open MLflow's registry in a browser, or None if that is not known."""
    return _ui(tracking.ui_url or tracking.registry_uri or tracking.tracking_uri) if tracking else None


def _ui(uri: str) -> str | None:
    """Return an HTTP address without credentials and trailing slash, or None for another scheme."""
    return strip_credentials(uri).rstrip("/") if uri.startswith(("http://", "https://")) else None
