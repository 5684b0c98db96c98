"""Deploy a model to a server."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

from airflow_mlops.core.errors import SpecError
from airflow_mlops.exceptions import MlopsGateFailed
from airflow_mlops.links.model import ReportLink
from airflow_mlops.operators.base import BACKEND_FIELDS, MlopsOperator
from airflow_mlops.operators.models import resolve_model

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.runtimes.base import Job

log = logging.getLogger("airflow_mlops.task")


class DeployModelOperator(MlopsOperator):
    """Have a model server serve a model: checked before any traffic, switched without a failed request, rolled back by
    itself if a check fails.

    Returns the deployment's report (kind ``deployment``): ``passed``, ``summary``, ``checks``, and ``server``, ``seq``
    (the deployment's number), ``model``, ``previous``, ``address``. A deployment that was rolled back fails the task,
    without a retry, after its report was pushed. Killed at any instant and tried again, the task goes on with its
    deployment. Of two at once one wins, and the other fails with the reason. The task cleared after a later deployment
    fails with "superseded".

    :param model: ref of a model, such as ``register.output``, or an MLflow URI (``models:/name@champion``). (templated)
    :param server: name of the server, part of its address; its first deployment makes it. (templated)
    :param strategy: ``replace`` (the new server takes over once its checks have passed) or ``canary`` (it gets a share
        of the requests that grows while error rate, latency and answers hold). (templated)
    :param checks: what is checked before any traffic: a list of ``{"kind": "example"}`` (it answers its own input
        example), ``{"kind": "offline", "tolerance": 1e-6}`` (as the same files do without a server) and ``{"kind":
        "latency", "p95_ms": 500, "requests": 50}``. Default: these three; ``[]``: none beside ``/ping``. (templated)
    :param canary: of ``strategy="canary"``: ``steps`` (percent of the requests, default ``[5, 25, 50]``), ``interval``
        of each (``"60s"``), ``min_requests`` (20), ``max_error_rate`` (0.01), ``max_latency_ratio`` to the p95 of what
        serves now (2.0), ``min_rows`` compared with offline predictions (20), ``tolerance`` (1e-6), ``timeout``
        (``"1h"``, after which it is rolled back). (templated)
    :param capture: what of requests and answers goes to the prediction log: a share from 0 to 1, ``False``, or
        ``{"sample": 0.1, "key": "flight_id", "columns": [...], "flush_seconds": 30}``. Default: all. (templated)
    :param start_timeout: how long the new server may take until it answers, such as ``"5m"``. (templated)
    :param trust: ``"recorded"``: a model that is on record; ``"unverified"``: also another, as it is now. (templated)
    :param server_conn_id: connection of type ``model_server`` that says where servers run; None: the configuration's
        back end, which is ``airflow mlops serve`` on this machine if it is the embedded one. (templated)
    :param deferrable: wait in the triggerer, not in a worker; default ``[operators] default_deferrable``.
    :raises ValueError: in the constructor, for a strategy or a name that cannot be.
    """

    step = "deploy_model"
    step_arguments = ("model", "server", "strategy", "checks", "canary", "capture", "start_timeout", "trust")
    needs_mlflow = True
    operator_extra_links: Collection[BaseOperatorLink] = (ReportLink(),)

    template_fields: Sequence[str] = (*step_arguments, "server_conn_id", *BACKEND_FIELDS)
    template_fields_renderers = {"model": "json", "checks": "json", "canary": "json"}  # noqa: RUF012

    def __init__(
        self,
        *,
        model: Any,
        server: str,
        strategy: str = "replace",
        checks: list[dict[str, Any]] | None = None,
        canary: dict[str, Any] | None = None,
        capture: Any = None,
        start_timeout: str | None = None,
        trust: str = "recorded",
        server_conn_id: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if strategy not in ("replace", "canary") and "{" not in str(strategy):
            raise ValueError(f"strategy must be 'replace' or 'canary', got {strategy!r}")
        if trust not in ("recorded", "unverified") and "{" not in str(trust):
            raise ValueError(f"trust must be 'recorded' or 'unverified', got {trust!r}")
        self.model = model
        self.server = server
        self.strategy = strategy
        self.checks = checks
        self.canary = canary
        self.capture = capture
        self.start_timeout = start_timeout
        self.trust = trust
        self.server_conn_id = server_conn_id
        self.deferrable = deferrable

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with the place where servers run."""
        from airflow_mlops.hooks.model_server import ModelServerHook

        if self.trust not in ("recorded", "unverified"):
            raise SpecError(f"trust must be 'recorded' or 'unverified', got {self.trust!r}")
        return {
            **super().arguments(context),
            "model": resolve_model(context, self.model),
            "place": ModelServerHook(self.server_conn_id).place.to_dict(),
            "wait": not self.deferrable,
        }

    def execute(self, context: Context) -> Any:
        """Deploy, or do what can be done at once and wait in the triggerer."""
        return self.concluded(context, self._run)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after a wait; the deployment is found by the task's key."""
        return self.execute(context)

    def _run(self, job: Job) -> dict[str, Any]:
        result = self.runs_in().run(job, log)
        if result["kind"] == "deployment_wait":
            from airflow_mlops.triggers.serving import DeploymentTrigger

            # Raises Airflow's signal that the task waits.
            self.defer(
                trigger=DeploymentTrigger(
                    server=str(result["server"]),
                    seq=int(result["seq"]),
                    seconds=float(result["seconds"]),
                    waits_for_outcome=job.spec["args"]["place"]["backend"] == "processes",
                    store_conn_id=self.store_conn_id,
                ),
                method_name="execute_complete",
            )
        return result

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Return the report, or push it and fail the task without a retry."""
        log.log(logging.INFO if result["passed"] else logging.ERROR, "%s", result["summary"])
        if not result["passed"]:
            context["ti"].xcom_push(key="return_value", value=result)
            where = self.link_urls.get("report") or result.get("report_uri")
            raise MlopsGateFailed(f"{result['summary']} Report: {where}")
        if result.get("address"):
            log.info("It answers at %s/invocations", result["address"])
        return result
