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
from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.extras import silence_telemetry
from airflow_mlops.core.store import Store, open_store

#: Step name -> ``module:function``.
STEPS = {
    "snapshot_data": "airflow_mlops.core.data.snapshot:snapshot_data",
    "validate_data": "airflow_mlops.core.validation.step:validate_data",
    "train_model": "airflow_mlops.core.training.step:train_model",
    "evaluate_model": "airflow_mlops.core.evaluation.step:evaluate_model",
    "register_model": "airflow_mlops.core.registry.register:register_model",
    "promote_model": "airflow_mlops.core.registry.promote:promote_model",
}

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
        from airflow_mlops.core.store import safe_name

        dag = safe_name(str(self.run.get("dag_id") or "-"))
        task = safe_name(str(self.run.get("task_id") or "-"))
        return f"reports/{dag}/{task}/{digests.hex_of(digests.of_json([self.key, *identity]))[:16]}"


def load_step(name: str) -> Callable[..., dict[str, Any]]:
    """Return the function of a step.

    :raises SpecError: for a name that is no step, with the nearest one.
    """
    if name not in STEPS:
        raise SpecError(f"there is no step {name!r}{did_you_mean(name, STEPS)} Steps: {', '.join(STEPS)}")
    module, _, function = STEPS[name].partition(":")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


def run_step(spec: dict[str, Any], logger: logging.Logger | None = None) -> dict[str, Any]:
    """Run one step in this process.

    :param spec: ``step``, ``args``, ``store``, and where the step needs them ``tracking_uri``, ``registry_uri``,
        ``key``, ``run``. In process an argument may also be a Python object, such as a trainer.
    :return: the step's result, a dict of the vocabulary.
    :raises SpecError: if the spec names an unknown step or argument.
    """
    silence_telemetry()
    function = load_step(spec.get("step", ""))
    args = spec.get("args") or {}
    known = [name for name in inspect.signature(function).parameters if name != "context"]
    for name in args:
        if name not in known:
            raise SpecError(f"{spec['step']} has no argument {name!r}{did_you_mean(name, known)}")
    if not spec.get("store"):
        raise SpecError("a spec needs 'store': the URI of a folder for snapshots, reports and records")
    context = StepContext(
        store=open_store(spec["store"]),
        tracking_uri=spec.get("tracking_uri"),
        registry_uri=spec.get("registry_uri"),
        key=spec.get("key") or "",
        run=spec.get("run") or {},
        log=logger or log,
    )
    return function(context, **args)
