"""Decide whether a model is trained again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.branch import BranchMixIn

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.policy.rules import Policy
from airflow_mlops.operators.base import BACKEND_FIELDS, MlopsOperator
from airflow_mlops.operators.window import triggering_events

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger("airflow_mlops.task")

ACTIONS = ("retrain", "warn", "wait")
#: The newest events of an inlet that are read; those that were counted before are known by their ids.
MAX_INLET_EVENTS = 200


class DecideRetrainingOperator(MlopsOperator, BranchMixIn):
    """Decide whether a model is trained again, remember it, and go the way that follows.

    What is decided on: ``reports``, all asset events that triggered the run, and the events of the assets among the
    task's ``inlets``. Each is counted once by its id, whatever run brings it. Returns the decision: ``action``
    (``retrain``, ``warn``, ``wait``), ``reason`` in one sentence, ``rule``, ``windows``, ``blocked``, ``clock``,
    ``seq`` and ``uri`` of its record. A try after a crash, and the task cleared with nothing changed, get the same
    decision back.

    Without ``follow`` the tasks directly downstream run if the model is to be trained again, and are skipped otherwise.

    :param model_name: the model; what is remembered is kept under this name. (templated)
    :param reports: reports to count, such as ``[drift.output, performance.output]``; a report of kind ``drift``,
        ``performance``, an arrival of new rows, or a dataset ref. (templated)
    :param policy: ``{"performance": {"metric": "roc_auc", "drop": 0.03, "windows": [2, 3]}, "drift": {"share": 0.5,
        "windows": [3, 3]}, "new_rows": 50000, "max_age": "60d", "cooldown": "14d", "budget": {"runs": 4, "per":
        "90d"}, "min_new_rows": 1000, "min_new_labels": 500}``; what is left out does not count. Default: two bad
        windows of three by the performance reports' own verdict train again, three drifted ones in a row warn, with a
        cooldown of 14 days. (templated)
    :param subject: count only reports on this subject, or on those that match patterns such as ``"churn:*"``.
        (templated)
    :param clock: the present, ISO 8601; default: the worker's clock. Give it where months are replayed: windows and
        clock must be of one time. (templated)
    :param trained_at: when the model that serves was trained, ISO 8601, if that was outside this policy. (templated)
    :param force: train again whatever the policy says, such as ``"{{ params.force }}"``; cooldown and budget count it
        like any other. (templated)
    :param follow: ``{"retrain": "train", "warn": "tell", "wait": None}``: the tasks or task groups, directly
        downstream, that run after each decision; the others are skipped. (templated)
    :raises ValueError: in the constructor, for a policy or a decision that cannot be.
    """

    step = "decide_retraining"
    step_arguments = ("reports", "policy", "subject", "clock", "trained_at", "force")
    inherits_from_skipmixin = True
    ui_color = "#f9efd9"

    template_fields: Sequence[str] = ("model_name", *step_arguments, "follow", *BACKEND_FIELDS)
    template_fields_renderers = dict.fromkeys(("reports", "policy", "follow"), "json")

    def __init__(
        self,
        *,
        model_name: str,
        reports: Any = None,
        policy: dict[str, Any] | None = None,
        subject: str | list[str] | None = None,
        clock: str | None = None,
        trained_at: str | None = None,
        force: bool | str = False,
        follow: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check(policy, follow)
        self.model_name = model_name
        self.reports = reports
        self.policy = policy
        self.subject = subject
        self.clock = clock
        self.trained_at = trained_at
        self.force = force
        self.follow = follow

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with what the run's events tell."""
        given = super().arguments(context)
        told = [*triggering(context), *self._of_inlets(context)]
        log.info("%s asset events came with this run", len(told))
        reports = given["reports"]
        given["reports"] = [*(reports if isinstance(reports, (list, tuple)) else [reports] if reports else []), *told]
        return {**given, "name": self.model_name}

    def _of_inlets(self, context: Context) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        accessors: Any = context.get("inlet_events")
        for inlet in self.inlets if accessors is not None else []:
            events = accessors[inlet]
            if hasattr(events, "limit"):  # Airflow 3.1 gives all there are
                events = events.ascending(False).limit(MAX_INLET_EVENTS)
            found += [extra for event in events if (extra := extra_of(event))]
        return found

    def conclude(self, context: Context, result: dict[str, Any]) -> Any:
        """Return the decision, and skip what it does not lead to."""
        action = result["action"]
        log.log(
            logging.WARNING if action == "warn" else logging.INFO, "decision %s: %s", result["seq"], result["reason"]
        )
        follow = self.follow
        if follow is None:
            if action == "retrain":
                return result
            chosen: list[str] = []
        else:
            if not isinstance(follow, dict):
                raise SpecError(f"follow is a dict such as {{'retrain': 'train'}}, got {type(follow).__name__}")
            wanted = follow.get(action)
            chosen = [wanted] if isinstance(wanted, str) else list(wanted or [])
        # What is skipped is told to Airflow by an exception, after which nothing is returned.
        context["ti"].xcom_push(key="return_value", value=result)
        self.do_branch(context, chosen or None)
        return result


def triggering(context: Context) -> Iterator[dict[str, Any]]:
    """Yield what each of the events that triggered a run tells."""
    for event in triggering_events(context):
        if extra := extra_of(event):
            yield extra


def extra_of(event: Any) -> dict[str, Any]:
    """Return an event's extra; where it has no id, the event gives it one."""
    extra = getattr(event, "extra", None)
    if not isinstance(extra, dict) or not extra:
        return {}
    payload = extra.get("payload")
    told = payload if isinstance(payload, dict) else extra
    if "kind" not in told or told.get("id") or told.get("digest"):
        return extra
    asset = getattr(event, "asset", None)
    names = ("source_dag_id", "source_run_id", "source_task_id", "source_map_index", "timestamp")
    own = [getattr(asset, "uri", None), *(str(getattr(event, name, None)) for name in names)]
    return {**told, "id": "|".join(map(str, own))}


def _check(policy: Any, follow: Any) -> None:
    """Refuse what no run could use; a template may be anything.

    :raises ValueError: naming what is wrong.
    """
    if isinstance(policy, dict) and "{{" not in str(policy):
        try:
            Policy.of(policy)
        except SpecError as error:
            raise ValueError(error.message) from None
    for name in follow if isinstance(follow, dict) else ():
        if name not in ACTIONS:
            raise ValueError(f"follow has {', '.join(map(repr, ACTIONS))}, not {name!r}")
