"""What every operator of the provider shares: arguments to a spec, a runtime, a small result, links."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator, BaseOperatorLink, conf

from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.xcom import fit_xcom
from airflow_mlops.exceptions import MlopsGateFailed, translate
from airflow_mlops.links.model import ReportLink, urls_of
from airflow_mlops.operators.paths import resolve_path, roots

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.backend import Tracking
    from airflow_mlops.runtimes.base import Job, Runtime

log = logging.getLogger("airflow_mlops.task")

#: Arguments that every operator takes beside its own.
BACKEND_FIELDS = ("mlflow_conn_id", "store_conn_id", "aws_conn_id")
#: Those that every operator takes whose step may run long.
LONG_FIELDS = (*BACKEND_FIELDS, "runtime")


class MlopsOperator(BaseOperator):
    """Run one step of the core.

    A subclass names its step and the arguments that go to it; each is an attribute of the same name, rendered by
    Airflow first.

    :param mlflow_conn_id: connection of type ``mlflow``; None: the configuration's back end. (templated)
    :param store_conn_id: connection of the store; None: the configuration's back end. (templated)
    :param aws_conn_id: connection of type ``aws`` for ``s3://`` data outside the store; None: what boto3 finds on the
        worker. (templated)
    """

    step: ClassVar[str]
    step_arguments: ClassVar[tuple[str, ...]] = ()
    #: Arguments that may be relative paths or globs, which resolve against the DAG bundle.
    path_arguments: ClassVar[tuple[str, ...]] = ("source", "dataset")
    needs_mlflow: ClassVar[bool] = False
    ui_color = "#e8f1fa"

    template_fields: Sequence[str] = BACKEND_FIELDS

    def __init__(
        self,
        *,
        mlflow_conn_id: str | None = None,
        store_conn_id: str | None = None,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.store_conn_id = store_conn_id
        self.aws_conn_id = aws_conn_id
        self.link_urls: dict[str, str] = {}

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, resolved. A subclass adds what only the context knows."""
        return {name: getattr(self, name) for name in self.step_arguments}

    def variables(self, context: Context) -> dict[str, str]:
        """Return environment variables with credentials that the step needs beside the back end's."""
        return {}

    def execute(self, context: Context) -> Any:
        """Run the step and return its result as one JSON dict of at most 16 KB."""
        return self.concluded(context, lambda job: self.runs_in().run(job, log))

    def runs_in(self) -> Runtime:
        """Return where the step runs: here."""
        from airflow_mlops.runtimes.in_process import InProcessRuntime

        return InProcessRuntime()

    def concluded(self, context: Context, run: Callable[[Job], dict[str, Any]]) -> Any:
        """Make the job, have it run, leave the links and return what :meth:`conclude` makes of the result."""
        try:
            job, links = self.prepare(context)
            result = run(job)
            self.link_urls = urls_of(result, **links)
            return self.conclude(context, fit_xcom(result))
        except MlopsError as error:
            raise translate(error) from error

    def prepare(self, context: Context) -> tuple[Job, dict[str, Any]]:
        """Return the job, and what the links need to know beside its result."""
        from airflow_mlops.hooks.mlflow import MLflowHook
        from airflow_mlops.hooks.s3 import S3AccessHook
        from airflow_mlops.hooks.store import StoreHook
        from airflow_mlops.runtimes.base import Job

        store = StoreHook(self.store_conn_id)
        tracking: Tracking | None = MLflowHook(self.mlflow_conn_id).tracking if self.needs_mlflow else None
        log.info("%s: store %s%s", self.step, store.uri, f", MLflow {tracking.source}" if tracking else "")
        args = self.arguments(context)
        args.update({name: resolve_path(context, args[name]) for name in self.path_arguments if name in args})
        run = run_of(context)
        spec: dict[str, Any] = {
            "step": self.step,
            "args": args,
            "store": store.uri,
            "tracking_uri": tracking.tracking_uri if tracking else None,
            "registry_uri": tracking.registry_uri if tracking else None,
            "key": task_key(context),
            "run": run,
        }
        variables = {
            **store.environment,
            **(tracking.environment if tracking else {}),
            **(S3AccessHook(self.aws_conn_id).environment if self.aws_conn_id else {}),
            **self.variables(context),
        }
        links = {
            "store_uri": store.uri,
            "tracking": tracking,
            "dag_id": str(run["dag_id"]),
            "store_conn_id": self.store_conn_id,
        }
        decorated = getattr(self, "python_callable", None)
        limit = self.execution_timeout.total_seconds() if self.execution_timeout else None
        return Job(spec, variables, tuple(roots(context)), (decorated,) if decorated else (), limit), links

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Return what goes to XCom; a gate decides here."""
        return result


class LongOperator(MlopsOperator):
    """An operator whose step may run long, or need other libraries than the worker has.

    :param runtime: where the step runs. None: in the task's own process. ``{"python": "/path/to/python"}``: in another
        interpreter on the worker, which needs the step's libraries and no Airflow; see
        :class:`~airflow_mlops.runtimes.python_settings.PythonSettings`. ``{"image": "name:tag", ...}``: in a container
        of a Docker Engine; see :class:`~airflow_mlops.runtimes.docker_settings.ContainerSettings`. (templated)
    :param deferrable: whether the wait for a container is handed to the triggerer, so that it takes no worker slot;
        None: as ``[operators] default_deferrable`` says, where the runtime can.
    :raises ValueError: in the constructor, for a runtime that cannot be, or one that cannot be deferred.
    """

    template_fields: Sequence[str] = LONG_FIELDS

    def __init__(self, *, runtime: dict[str, Any] | None = None, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_runtime(runtime, deferrable)
        self.runtime = runtime
        self.deferrable = deferrable
        self._running: Runtime | None = None

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        """Render, then have Airflow mask the runtime's secrets, before it keeps what was rendered for its pages."""
        super()._do_render_template_fields(parent, *args, **kwargs)
        if parent is self and isinstance(self.runtime, dict):
            from airflow_mlops.hooks.mlflow import mask
            from airflow_mlops.runtimes.settings import secret_variables

            for value in secret_variables(self.runtime).values():
                mask(value)

    def execute(self, context: Context) -> Any:
        """Run the step, or start it and wait in the triggerer."""
        return self.concluded(context, self._run)

    def _run(self, job: Job) -> dict[str, Any]:  # noqa: RET503
        runtime = self.runs_in()
        wanted = self.deferrable
        if wanted is None:
            wanted = runtime.can_defer and conf.getboolean("operators", "default_deferrable", fallback=False)
        if not wanted:
            return runtime.run(job, log)
        if not runtime.can_defer:
            raise SpecError("deferrable=True needs runtime={'image': ...}: a step on the worker takes its slot")
        # Raises Airflow's signal that the task waits.
        self.defer(trigger=runtime.begin(job, log), method_name="execute_complete")

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after the wait, with what the trigger saw."""
        return self.concluded(context, lambda job: self.runs_in().complete(job, event, log))

    def runs_in(self) -> Runtime:
        """Return the runtime, which :meth:`on_kill` cancels."""
        from airflow_mlops.runtimes.select import runtime_of

        self._running = runtime_of(self.runtime)
        return self._running

    def on_kill(self) -> None:
        """Stop the step with all that it started."""
        if self._running is not None:
            self._running.cancel()


class GateOperator(LongOperator):
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


def add_outlet(kwargs: dict[str, Any], outlet: Any) -> None:
    """Put an asset among the outlets in an operator's arguments, where a mapped task needs to have it already."""
    if outlet is None:
        return
    others = kwargs.get("outlets") or []
    others = [*others] if isinstance(others, (list, tuple)) else [others]
    kwargs["outlets"] = others if outlet in others else [*others, outlet]


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


def _check_runtime(runtime: Any, deferrable: Any) -> None:
    """Refuse what no run could use.

    :raises ValueError: naming what is wrong.
    """
    from airflow_mlops.runtimes.select import check_runtime

    if isinstance(runtime, str) or not isinstance(runtime, (dict, type(None))):
        return  # a template, or an upstream output
    try:
        kind = check_runtime(runtime)
    except SpecError as error:
        raise ValueError(error.message) from None
    if deferrable and kind != "image":
        raise ValueError("deferrable=True needs runtime={'image': ...}: a step on the worker takes its slot")
