"""What every operator of the provider shares: arguments to a spec, a runtime, a small result, links."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator, BaseOperatorLink

from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.xcom import fit_xcom
from airflow_mlops.exceptions import MlopsGateFailed, translate
from airflow_mlops.links.model import ReportLink, urls_of
from airflow_mlops.operators.paths import resolve_path

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.backend import Tracking

log = logging.getLogger("airflow_mlops.task")

#: Arguments that every operator takes beside its own.
BACKEND_FIELDS = ("mlflow_conn_id", "store_conn_id")


class MlopsOperator(BaseOperator):
    """Run one step of the core.

    A subclass names its step and the arguments that go to it; each is an attribute of the same name, rendered by
    Airflow first.

    :param mlflow_conn_id: connection of type ``mlflow``; None: the configuration's back end. (templated)
    :param store_conn_id: connection of the store; None: the configuration's back end. (templated)
    """

    step: ClassVar[str]
    step_arguments: ClassVar[tuple[str, ...]] = ()
    #: Arguments that may be relative paths or globs, which resolve against the DAG bundle.
    path_arguments: ClassVar[tuple[str, ...]] = ("source", "dataset")
    needs_mlflow: ClassVar[bool] = False
    ui_color = "#e8f1fa"

    template_fields: Sequence[str] = BACKEND_FIELDS

    def __init__(self, *, mlflow_conn_id: str | None = None, store_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.store_conn_id = store_conn_id
        self.link_urls: dict[str, str] = {}

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, resolved. A subclass adds what only the context knows."""
        return {name: getattr(self, name) for name in self.step_arguments}

    def execute(self, context: Context) -> Any:
        """Run the step and return its result as one JSON dict of at most 16 KB."""
        try:
            result = self.run_step(context)
            return self.conclude(context, result)
        except MlopsError as error:
            raise translate(error) from error

    def run_step(self, context: Context) -> dict[str, Any]:
        """Build the spec, run it, and leave the links."""
        from airflow_mlops.hooks.mlflow import MLflowHook
        from airflow_mlops.hooks.store import StoreHook
        from airflow_mlops.runtimes import in_process

        store_uri = StoreHook(self.store_conn_id).uri
        tracking: Tracking | None = MLflowHook(self.mlflow_conn_id).tracking if self.needs_mlflow else None
        log.info("%s: store %s%s", self.step, store_uri, f", MLflow {tracking.source}" if tracking else "")
        args = self.arguments(context)
        args.update({name: resolve_path(context, args[name]) for name in self.path_arguments if name in args})
        spec: dict[str, Any] = {
            "step": self.step,
            "args": args,
            "store": store_uri,
            "tracking_uri": tracking.tracking_uri if tracking else None,
            "registry_uri": tracking.registry_uri if tracking else None,
            "key": task_key(context),
            "run": run_of(context),
        }
        result = in_process.run(spec, tracking.environment if tracking else {}, log)
        self.link_urls = urls_of(
            result,
            store_uri=store_uri,
            tracking=tracking,
            dag_id=str(spec["run"]["dag_id"]),
            store_conn_id=self.store_conn_id,
        )
        return fit_xcom(result)

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Return what goes to XCom; a gate decides here."""
        return result


class GateOperator(MlopsOperator):
    """An operator whose step yields a report: push it, then decide.

    :param fail_on: from which severity on the task fails: ``error``, ``warning`` or ``never``. (templated)
    """

    operator_extra_links: Collection[BaseOperatorLink] = (ReportLink(),)

    def __init__(self, *, fail_on: str = "error", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if fail_on not in ("error", "warning", "never") and "{" not in fail_on:
            raise ValueError(f"fail_on must be 'error', 'warning' or 'never', got {fail_on!r}")
        self.fail_on = fail_on

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Return the report, or push it and fail the task without a retry."""
        if self.fail_on not in ("error", "warning", "never"):
            raise SpecError(f"fail_on must be 'error', 'warning' or 'never', got {self.fail_on!r}")
        severity = result["severity"]
        log.log({"ok": logging.INFO, "warning": logging.WARNING}.get(severity, logging.ERROR), "%s", result["summary"])
        failing = {"error": ("error",), "warning": ("error", "warning"), "never": ()}[self.fail_on]
        if severity in failing:
            context["ti"].xcom_push(key="return_value", value=result)
            where = self.link_urls.get("report") or result.get("report_uri")
            raise MlopsGateFailed(f"{result['summary']} Report: {where}")
        return result


def task_key(context: Context) -> str:
    """Return ``dag/run/task/map_index``: equal for every try of one task instance."""
    ti = context["ti"]
    return "/".join(str(part) for part in (ti.dag_id, ti.run_id, ti.task_id, ti.map_index))


def run_of(context: Context) -> dict[str, Any]:
    """Return who runs this, for records: DAG, run, task, map index, user, bundle version, package version."""
    from airflow_mlops import __version__

    ti, dag_run = context["ti"], context.get("dag_run")
    return {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "run_type": str(getattr(getattr(dag_run, "run_type", None), "value", "") or "") or None,
        "triggered_by": getattr(dag_run, "triggering_user_name", None),
        "bundle_version": getattr(ti, "bundle_version", None) or getattr(dag_run, "bundle_version", None),
        "provider_version": __version__,
    }
