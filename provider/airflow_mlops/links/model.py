"""Extra links of the operators: report, MLflow run, model version.

The operator leaves the addresses in its ``link_urls`` when it has run; Airflow asks for them as the task ends, for
mapped tasks too, and keeps what it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

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


def report_url(store_uri: str, report_uri: str | None, dag_id: str) -> str | None:
    """Return the address of a report in Airflow, or None if it is not in this store's reports of this DAG."""
    from airflow_mlops.core.store import open_store, safe_name

    key = open_store(store_uri).key_of(report_uri) if report_uri else None
    prefix = f"reports/{safe_name(dag_id)}/"
    if not key or not key.startswith(prefix):
        return None
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    return f"{base}{PREFIX}/reports/{quote(dag_id, safe='')}/{quote(key.removeprefix(prefix))}"


def urls_of(result: dict[str, Any], *, store_uri: str, tracking: Tracking | None, dag_id: str) -> dict[str, str]:
    """Return ``{"report": ..., "run": ..., "version": ...}`` for what a step's result names."""
    found: dict[str, str] = {}
    report = report_url(store_uri, result.get("report_uri"), dag_id)
    if report:
        found["report"] = report
    http = (tracking.ui_url or tracking.tracking_uri) if tracking else ""
    if http.startswith("http"):
        base = http.rstrip("/")
        if result.get("run_id"):
            experiment = result.get("experiment_id") or "0"
            found["run"] = f"{base}/#/experiments/{experiment}/runs/{result['run_id']}"
        name, version = result.get("name") or result.get("model"), result.get("version")
        if isinstance(name, str) and version and result.get("kind") in ("model", "ledger_entry"):
            found["version"] = f"{base}/#/models/{quote(name, safe='')}/versions/{version}"
    return found
