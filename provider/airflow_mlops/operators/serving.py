"""Serve a model: answers for whole datasets, a server for single requests, an image of the code."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperatorLink, conf

from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.exceptions import MlopsGateFailed
from airflow_mlops.links.model import ReportLink
from airflow_mlops.operators.base import BACKEND_FIELDS, MlopsOperator
from airflow_mlops.operators.image import BuildImageOperator as BuildImageOperator
from airflow_mlops.operators.models import resolve_model
from airflow_mlops.operators.prediction import BatchPredictOperator as BatchPredictOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.runtimes.base import Job

log = logging.getLogger("airflow_mlops.task")

#: Seconds for which a cancelled task waits until its deployment is withdrawn: Airflow kills it after 5.
KILL_SECONDS = 4.0
#: Seconds for which the withdrawal is carried out, where the task's process lives as long.
WITHDRAWAL_SECONDS = 60.0


class DeployModelOperator(MlopsOperator):
    """Have a model server serve a model: checked before any traffic, switched without a failed request, rolled back by
    itself if a check fails.

    Returns the deployment's report (kind ``deployment``): ``passed``, ``summary``, ``checks``, and ``server``, ``seq``
    (the deployment's number), ``model``, ``previous``, ``address``. A deployment that was rolled back fails the task,
    without a retry, after its report was pushed (or skips it, by ``on_rollback``). Killed at any instant and tried
    again, the task goes on with its deployment. Of two at once one wins, and the other fails with the reason. The task
    cleared after a later deployment fails with "superseded".

    A task that is cancelled (marked as failed or succeeded, cleared, timed out) while it deploys withdraws its
    deployment: what served before goes on, a canary's share goes to 0. From Airflow 3.3 on that holds while it is
    deferred, too.

    :param model: ref of a model, such as ``register.output``, or an MLflow URI (``models:/name@champion``). (templated)
    :param server: name of the server, part of its address; its first deployment makes it. (templated)
    :param strategy: ``replace`` (the new server takes over once its checks have passed) or ``canary`` (it gets a share
        of the requests that grows while error rate, latency and answers hold). (templated)
    :param checks: what is checked before any traffic: a list of ``{"kind": "example"}`` (it answers its own input
        example), ``{"kind": "offline", "tolerance": 1e-6}`` (as the same files do without a server) and ``{"kind":
        "latency", "p95_ms": 500, "requests": 50}``. Default: these three; ``[]``: none beside ``/ping``. (templated)
    :param canary: of ``strategy="canary"``: ``steps`` (percent of the requests, default ``[5, 25, 50]``), ``interval``
        of each (``"60s"``), ``min_requests`` (20), ``max_error_rate`` (0.01), ``max_latency_ratio`` to the p95 of what
        serves now (2.0), ``max_disagreement`` (0.001 of the captured requests) with its own offline predictions,
        ``min_rows`` of these (20), ``tolerance`` (1e-6), ``alpha`` (0.01: the chance that a good one goes back),
        ``margin`` (0.05) and ``beta`` (0.05: the chance that one which is worse than a limit by ``margin`` comes
        through), ``timeout`` (``"1h"``, after which it is rolled back). (templated)
    :param on_rollback: ``"fail"``, or ``"skip"``: a deployment that went back by itself is no failure of the task,
        which is skipped with all that comes after it, such as a promotion; its report is pushed first. (templated)
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

    template_fields: Sequence[str] = (*step_arguments, "on_rollback", "server_conn_id", *BACKEND_FIELDS)
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
        on_rollback: str = "fail",
        server_conn_id: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if strategy not in ("replace", "canary") and "{" not in str(strategy):
            raise ValueError(f"strategy must be 'replace' or 'canary', got {strategy!r}")
        if trust not in ("recorded", "unverified") and "{" not in str(trust):
            raise ValueError(f"trust must be 'recorded' or 'unverified', got {trust!r}")
        if on_rollback not in ("fail", "skip") and "{" not in str(on_rollback):
            raise ValueError(f"on_rollback must be 'fail' or 'skip', got {on_rollback!r}")
        self.on_rollback = on_rollback
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
        self._job: Job | None = None
        self._at_work = False

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
        self._job, self._at_work = job, True
        try:
            result = self.runs_in().run(job, log)
        finally:
            self._at_work = False
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
                    server_conn_id=self.server_conn_id,
                ),
                method_name="execute_complete",
            )
        return result

    def on_kill(self) -> None:
        """Withdraw the deployment; the step's own thread goes on meanwhile, and sees it."""
        if self._job is None:
            return
        # In a thread: the signal may have met this one anywhere, also where it holds what a call of the store needs.
        thread = threading.Thread(target=_withdraw, args=(self._job,), name="withdraw", daemon=True)
        thread.start()
        thread.join(KILL_SECONDS if self._at_work else WITHDRAWAL_SECONDS)

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Return the report, or push it and fail the task without a retry."""
        log.log(logging.INFO if result["passed"] else logging.ERROR, "%s", result["summary"])
        if not result["passed"]:
            context["ti"].xcom_push(key="return_value", value=result)
            where = self.link_urls.get("report") or result.get("report_uri")
            said = f"{result['summary']} Report: {where}"
            raise AirflowSkipException(said) if self.on_rollback == "skip" else MlopsGateFailed(said)
        if result.get("address"):
            log.info("It answers at %s/invocations", result["address"])
        return result


def _withdraw(job: Job) -> None:
    """Withdraw the deployment of a job, if it has one under way."""
    from airflow_mlops.backend import environment
    from airflow_mlops.core.serving import withdraw
    from airflow_mlops.core.serving.places import Place
    from airflow_mlops.core.steps import StepContext
    from airflow_mlops.core.store import open_store

    spec = job.spec
    withdraw.cancel(spec["key"])
    try:
        with environment(job.variables):
            store = open_store(spec["store"])
        context = StepContext(store=store, key=spec["key"], run=spec["run"], log=log)
        place = Place.of(spec["args"]["place"])
        withdraw.withdraw(context, str(spec["args"]["server"]), place, seconds=WITHDRAWAL_SECONDS)
    except MlopsError as error:
        log.warning("%s; the next deployment to this server goes on with it", error.message)
