"""GateNotifier: one message that says what failed, why, where the report is, and what to do."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import BaseNotifier, redact

from airflow_mlops.backend import runbook
from airflow_mlops.core.alerts.rules import runbook_entry
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.exceptions import MlopsFailed, MlopsGateFailed, MlopsSuperseded, MlopsUnavailable

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger("airflow_mlops.task")

#: Characters of the exception's text that a message carries; the log has all of it.
MAX_CAUSE = 1500

#: What a person can do about each kind of failure; the first that fits.
ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (MlopsGateFailed, "Read the report. Mend the data or the model, then clear this task to go on from here."),
    (MlopsSuperseded, "Nothing, if the later entry is right (airflow mlops history). Else start a new run."),
    (MlopsUnavailable, "See that the server named above answers, then clear this task: it picks up where it was."),
    (MlopsFailed, "Mend what the message names, then clear this task. A retry alone would end the same."),
)
OTHER_ADVICE = "Read the task's log, mend the cause, then clear this task: what is done already is not done twice."


class GateNotifier(BaseNotifier):
    """Tell people that a task failed: what, why, where to look, what to do.

    Use it as ``on_failure_callback`` of a task, in ``default_args`` or of a DAG. The message goes to the log, and to
    every notifier it is given, as the context's ``mlops_message``:
    ``GateNotifier(notifiers=[SlackNotifier(text="{{ mlops_message }}", ...)])``. It never raises: a notifier that
    fails is logged, and the others are called.

    :param message: the text to send instead; ``{{ mlops_message }}`` in it is the one composed here. (templated)
    :param notifiers: Airflow notifiers or callables that take the context.
    """

    template_fields: Sequence[str] = ("message",)

    def __init__(
        self, *, message: str = "{{ mlops_message }}", notifiers: Sequence[Callable[[Context], Any]] = ()
    ) -> None:
        super().__init__()
        self.message = message
        self.notifiers = tuple(notifiers)

    def __call__(self, *args: Any) -> None:
        """Compose the message, log it, and hand it on."""
        try:
            context = {**args[0]} if len(args) == 1 else {"dag": args[0]}
            context["mlops_message"] = compose(context)
            # Rendering changes a notifier in place, and one object may serve several failures of a process.
            super(GateNotifier, copy.copy(self)).__call__(context)
        except Exception:
            log.exception("the failure notifier could not compose its message")

    def notify(self, context: Context) -> None:
        """Log the message and call every notifier with it."""
        log.error("%s", self.message)
        passed_on: dict[str, Any] = {**dict(context), "mlops_message": self.message}
        for notifier in self.notifiers:
            try:
                copy.copy(notifier)(cast("Context", {**passed_on}))
            except Exception:
                log.exception("%s could not send the message", getattr(notifier, "__name__", type(notifier).__name__))


def compose(context: Mapping[str, Any]) -> str:
    """Return the message for a callback's context: what failed, why, owner, links, what to do.

    :param context: of a task's or a DAG's callback; what it lacks is left out.
    """
    ti, error = context.get("ti") or context.get("task_instance"), context.get("exception")
    task = context.get("task") or getattr(ti, "task", None)
    lines = [_what(context, ti)]
    cause = _cause(error) or str(context.get("reason") or "")
    if cause:
        lines.append(f"Why: {cause}")
    owner = getattr(task, "owner", None)
    if owner:
        lines.append(f"Owner: {owner}")
    urls = getattr(task, "link_urls", None) or {}
    for key, label in (("report", "Report"), ("run", "MLflow run"), ("version", "Model version")):
        if urls.get(key) and urls[key] not in cause:
            lines.append(f"{label}: {urls[key]}")
    log_url = getattr(ti, "log_url", None)
    if log_url:
        lines.append(f"Log: {log_url}")
    lines.append(f"What to do: {next((text for kind, text in ADVICE if isinstance(error, kind)), OTHER_ADVICE)}")
    if isinstance(error, (MlopsFailed, MlopsUnavailable)):
        lines.append(f"Runbook: {runbook_entry(_entry(error), runbook())}")
    return "\n".join(lines)


def _entry(error: BaseException) -> str:
    """Return the runbook's entry for one of our errors: of a gate, its section; else the name that it begins with."""
    if isinstance(error, MlopsGateFailed):
        return "a-gate-said-no"
    named = re.match(r"[A-Z]\w+Error(?=: )", str(error))
    return named[0] if named else type(error).__name__


def _what(context: Mapping[str, Any], ti: Any) -> str:
    dag_id = getattr(context.get("dag"), "dag_id", None) or getattr(ti, "dag_id", None) or "unknown"
    run_id = context.get("run_id") or getattr(ti, "run_id", None)
    where = [f"run {run_id}"] if run_id else []
    if ti is None:
        return f"DAG {dag_id} failed" + (f" ({where[0]})" if where else "")
    if getattr(ti, "map_index", -1) >= 0:
        where.append(f"map index {ti.map_index}")
    tries = getattr(ti, "max_tries", None)
    if isinstance(tries, int):
        where.append(f"try {ti.try_number} of {tries + 1}")
    return f"Task {ti.task_id} of DAG {dag_id} failed" + (f" ({', '.join(where)})" if where else "")


def _cause(error: Any) -> str:
    """Return the exception's text as it may be sent outside: short, without credentials."""
    if error is None:
        return ""
    text = str(error).strip() or "no message"
    if isinstance(error, BaseException):
        # Ours begin with the name of the core's error.
        text = text if isinstance(error, (MlopsFailed, MlopsUnavailable)) else f"{type(error).__name__}: {text}"
    text = str(redact(strip_credentials(text)))
    return text if len(text) <= MAX_CAUSE else text[:MAX_CAUSE] + "…"
