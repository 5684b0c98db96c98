"""The steps by name, and how one is run from a spec.

A spec is ``{"step", "args", "store", "tracking_uri", "key"}``: plain JSON without credentials, which travel in the
environment. A step is a function ``(context, **args) -> dict`` whose result is one dict of the vocabulary.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import CannotReachError, SpecError, did_you_mean
from airflow_mlops.core.extras import silence_telemetry
from airflow_mlops.core.local_files import FULL, cure
from airflow_mlops.core.store import Store, open_store, safe_name
from airflow_mlops.core.tracking import strip_credentials

#: Step name -> ``module:function``.
STEPS = {
    "snapshot_data": "airflow_mlops.core.data.snapshot:snapshot_data",
    "validate_data": "airflow_mlops.core.validation.step:validate_data",
    "train_model": "airflow_mlops.core.training.step:train_model",
    "reproduce_model": "airflow_mlops.core.training.reproduce:reproduce_model",
    "evaluate_model": "airflow_mlops.core.evaluation.step:evaluate_model",
    "register_model": "airflow_mlops.core.registry.register:register_model",
    "promote_model": "airflow_mlops.core.registry.promote:promote_model",
    "rollback_model": "airflow_mlops.core.registry.rollback:rollback_model",
    "archive_models": "airflow_mlops.core.registry.archive:archive_models",
    "request_approval": "airflow_mlops.core.registry.approval:request_approval",
    "record_approval": "airflow_mlops.core.registry.approval:record_approval",
    "alert": "airflow_mlops.core.alerts.step:alert",
    "detect_drift": "airflow_mlops.core.drift.step:detect_drift",
    "adopt_model": "airflow_mlops.core.registry.adopt_version:adopt_model",
    "monitor_performance": "airflow_mlops.core.monitoring.performance:monitor_performance",
    "monitor_service": "airflow_mlops.core.monitoring.service:monitor_service",
    "batch_predict": "airflow_mlops.core.predictions.batch:batch_predict",
    "deploy_model": "airflow_mlops.core.serving.deploy:deploy_model",
    "decide_retraining": "airflow_mlops.core.policy.step:decide_retraining",
}

#: What a spec may hold.
SPEC_FIELDS = ("step", "args", "store", "tracking_uri", "registry_uri", "key", "run")

log = logging.getLogger("airflow_mlops")


@dataclass(frozen=True)
class StepContext:
    """What a step is given beside its arguments.

    :param store: where it reads and writes.
    :param tracking_uri: MLflow's tracking URI, without credentials; None where the step needs no MLflow.
    :param registry_uri: MLflow's registry URI where it is another one.
    :param key: who runs it: ``dag/run/task/map_index``; equal for every try of one task instance.
    :param run: ``{"dag_id", "run_id", "task_id", "map_index", "triggered_by", ...}`` for records and links.
    :param log: where progress goes.
    """

    store: Store
    tracking_uri: str | None = None
    registry_uri: str | None = None
    key: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    log: logging.Logger = log

    def report_folder(self, *identity: Any) -> str:
        """Return the store folder of this task instance's report: ``reports/<dag>/<task>/<digest>``.

        The DAG's name stands first because who may read the DAG may read its reports.
        """
        dag = safe_name(str(self.run.get("dag_id") or "-"))
        task = safe_name(str(self.run.get("task_id") or "-"))
        return f"reports/{dag}/{task}/{digests.hex_of(digests.of_json([self.key, *identity]))[:16]}"


def load_step(name: str) -> Callable[..., dict[str, Any]]:
    """Return the function of a step.

    :raises SpecError: for a name that is no step, with the nearest one.
    """
    if name not in STEPS:
        raise SpecError(f"there is no step {name!r}{did_you_mean(name, STEPS) or '.'} Steps: {', '.join(STEPS)}")
    module, _, function = STEPS[name].partition(":")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


def run_step(spec: dict[str, Any], logger: logging.Logger | None = None) -> dict[str, Any]:
    """Run one step in this process.

    :param spec: ``step``, ``args``, ``store``, and where the step needs them ``tracking_uri``, ``registry_uri``,
        ``key``, ``run``. In process an argument may also be a Python object, such as a trainer.
    :return: the step's result, a dict of the vocabulary.
    :raises SpecError: if the spec names an unknown step, field or argument, lacks one, or carries credentials.
    """
    silence_telemetry()
    _check_fields(spec)
    function = load_step(str(spec.get("step") or ""))
    args = spec.get("args") or {}
    _check_arguments(function, spec["step"], args)
    context = StepContext(
        store=open_store(spec["store"]),
        tracking_uri=spec.get("tracking_uri"),
        registry_uri=spec.get("registry_uri"),
        key=spec.get("key") or "",
        run=spec.get("run") or {},
        log=logger or log,
    )
    try:
        return function(context, **args)
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise CannotReachError(f"{spec['step']}: {error.strerror}{where}{cure(error)}") from error


def _check_fields(spec: dict[str, Any]) -> None:
    for name in spec:
        if name not in SPEC_FIELDS:
            raise SpecError(f"a spec has no field {name!r}{did_you_mean(name, SPEC_FIELDS)}")
    if not spec.get("store"):
        raise SpecError("a spec needs 'store': the URI of a folder for snapshots, reports and records")
    for name in ("store", "tracking_uri", "registry_uri"):
        if spec.get(name) and strip_credentials(str(spec[name])) != str(spec[name]):
            raise SpecError(
                f"the spec's {name!r} carries credentials; put them into the environment of the process "
                "(MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN)"
            )


def _check_arguments(function: Callable[..., Any], step: str, args: Any) -> None:
    if not isinstance(args, dict):
        raise SpecError(f"a spec's 'args' is an object of arguments by name, got a {type(args).__name__}")
    parameters = {name: one for name, one in inspect.signature(function).parameters.items() if name != "context"}
    for name in args:
        if name not in parameters:
            raise SpecError(f"{step} has no argument {name!r}{did_you_mean(name, parameters)}")
    missing = [name for name, one in parameters.items() if one.default is one.empty and name not in args]
    if missing:
        raise SpecError(f"{step} needs the argument{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}")
