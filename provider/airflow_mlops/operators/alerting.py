"""Tell people of what monitors found: one alert for one incident."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import redact

from airflow_mlops.backend import environment, runbook
from airflow_mlops.core.alerts import delivery, message, rules
from airflow_mlops.core.alerts.incidents import Stream
from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import open_store
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.vocabulary import parse_duration
from airflow_mlops.core.xcom import fit_xcom
from airflow_mlops.exceptions import MlopsUnavailable, translate
from airflow_mlops.links.model import report_url
from airflow_mlops.operators.base import BACKEND_FIELDS, MlopsOperator, log

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.runtimes.base import Job

Notifier = Callable[["Context"], Any]


class AlertOperator(MlopsOperator):
    """Open, update and resolve incidents by what reports say, and tell people once of each change.

    An incident is about one thing (a model, a table) and one topic: ``validation``, ``performance``, ``drift`` (of
    features), ``prediction_drift``, ``estimated_performance``, ``model_test``, ``deployment``. It opens when enough
    windows were bad, is updated when something is worse than what was told, and resolved when windows are good again;
    while it only goes on, nobody hears of it. Loss of performance, broken data and drift of predictions of severity
    ``error`` go to ``notifiers`` at once; feature drift, warnings and estimates go into a digest.

    A retry, and two runs at once, tell once. A notifier that fails leaves the incident as it is, and the task fails so
    that its retry tells that notifier alone; what no retry told is told by the task's next run. A worker killed
    between telling and noting it tells again, with the same ``id``.

    Returns ``{"kind": "alert", "summary", "incidents", "open", "told"}``: what was opened, updated or resolved now,
    what is open, and who was told.

    Let it run whatever its monitors came to (``trigger_rule="all_done"``), with retries.

    :param reports: reports of gates and monitors, such as ``[validate.output, drift.output]``, of ours or made to
        DESIGN's vocabulary (``kind``, ``passed``, ``severity``, ``summary``, ``failures``, ``window``). (templated)
    :param subject: what is watched, such as ``churn`` or ``churn@champion``; default: each report's own subject where
        that is a name, else this task. (templated)
    :param notifiers: Airflow notifiers, or callables that take the context, that tell the owner. In their templates:
        ``mlops_subject``, ``mlops_message``, ``mlops_html``, and as objects, where they are the whole field,
        ``mlops_blocks`` (for Slack) and ``mlops_alert`` (JSON for webhooks; ``mlops_alert.id`` is stable).
    :param digest_notifiers: the same for the digest. Without any, what is for the digest is on record, in the log and
        in ``airflow mlops status`` alone.
    :param digest_every: a digest is sent no sooner than so long after the last one. (templated)
    :param sensitivity: ``low``, ``normal`` or ``high``, or by topic: ``{"drift": "low", "performance": [2, 3]}``, where
        ``[k, n]`` opens an incident when k of the last n windows were bad, and resolves it after k good ones in a row.
        (templated)
    :param channels: where a topic goes if not where it does by itself: ``{"prediction_drift": "digest"}``. (templated)
    :param mute_until: nothing is told before this instant (ISO 8601), or by topic ``{"drift": "2026-12-24"}``;
        incidents are recorded all the same, and what is still open then is told. (templated)
    :raises ValueError: in the constructor, for a sensitivity or channel that there is not.

    The task's own ``owner`` is who is told: it stands in every message.
    """

    step = "alert"
    step_arguments = ("reports", "subject", "sensitivity", "channels")
    ui_color = "#fdeee0"

    template_fields: Sequence[str] = (*step_arguments, "digest_every", "mute_until", *BACKEND_FIELDS)
    template_fields_renderers = dict.fromkeys(("reports", "sensitivity", "channels"), "json")

    def __init__(
        self,
        *,
        reports: Any,
        subject: str | None = None,
        notifiers: Sequence[Callable[[Context], Any]] = (),
        digest_notifiers: Sequence[Callable[[Context], Any]] = (),
        digest_every: str = "7d",
        sensitivity: str | dict[str, Any] = "normal",
        channels: dict[str, Any] | None = None,
        mute_until: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if "{" not in str(sensitivity) or isinstance(sensitivity, dict):
            _checked(rules.check_sensitivity, sensitivity)
        if isinstance(channels, dict):
            _checked(rules.check_channels, channels)
        self.reports = reports
        self.subject = subject
        self.notifiers = notifiers
        self.digest_notifiers = digest_notifiers
        self.digest_every = digest_every
        self.sensitivity = sensitivity
        self.channels = channels
        self.mute_until = mute_until

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with the owner and where the run stands in time."""
        dag_run = context.get("dag_run")
        moment = context.get("data_interval_end") or context.get("logical_date") or getattr(dag_run, "run_after", None)
        return {
            **super().arguments(context),
            "owner": self.owner,
            "moment": moment.isoformat() if moment is not None else None,
        }

    def execute(self, context: Context) -> Any:
        """Settle the incidents, then tell of them."""
        try:
            parse_duration(self.digest_every)
            delivery.muted(self.mute_until)
            job, links = self.prepare(context)
            result = self.runs_in().run(job, log)
            log.log(logging.WARNING if result["open"] else logging.INFO, "%s", result["summary"])
            with environment(job.variables):
                tally = self._tell(context, job, links, result)
        except MlopsError as error:
            raise translate(error) from error
        result = fit_xcom({**result, "told": tally.told})
        if not tally.failed:
            return result
        context["ti"].xcom_push(key="return_value", value=result)
        failed = "; ".join(f"{name}: {_outside(text)}" for name, text in tally.failed.items())
        raise MlopsUnavailable(
            f"the incident is on record, and {len(tally.failed)} of its notifiers did not take the message ({failed}). "
            "A retry, or the next run of this task, tells these alone"
        )

    def _tell(self, context: Context, job: Job, links: dict[str, Any], result: dict[str, Any]) -> delivery.Tally:
        store = open_store(job.spec["store"])
        step = StepContext(store=store, key=job.spec["key"], run=job.spec["run"], log=log)
        streams = [Stream(store, about, topic) for about, topic in result["streams"]]
        tally = delivery.Tally()
        owners, readers = _named(self.notifiers), _named(self.digest_notifiers)
        muted = self.mute_until

        def send_to(notifiers: Mapping[str, Notifier]) -> delivery.Send:
            return lambda name, event: _send(context, notifiers[name], _composed(context, event, links))

        for event in result["incidents"]:
            log.info("%s: %s", message.subject_of(event), event["summary"])
        delivery.tell_alerts(step, streams, list(owners), send_to(owners), mute_until=muted, tally=tally)
        if readers:
            scope = delivery.scope_of(step)
            delivery.make_digest(step, streams, scope, every=self.digest_every, mute_until=muted)
            delivery.tell_digests(step, scope, list(readers), send_to(readers), mute_until=muted, tally=tally)
        return tally


def _checked(check: Callable[[Any], Any], value: Any) -> None:
    """Refuse what no run could use.

    :raises ValueError: naming what is wrong.
    """
    try:
        check(value)
    except SpecError as error:
        raise ValueError(error.message) from None


def _named(notifiers: Sequence[Notifier]) -> dict[str, Notifier]:
    """Return the notifiers by a name that stays when others come before them: their class, numbered if it repeats."""
    found: dict[str, Notifier] = {}
    for notifier in notifiers:
        name = getattr(notifier, "__qualname__", None) or type(notifier).__name__
        count = sum(one == name or one.startswith(f"{name}#") for one in found)
        found[f"{name}#{count + 1}" if count else name] = notifier
    return found


def _composed(context: Context, event: dict[str, Any], links: dict[str, Any]) -> message.Message:
    log_url = str(getattr(context["ti"], "log_url", None) or "")
    found = {"Log": log_url} if log_url else {}
    if event["kind"] == "digest":
        reports = {delivery.incident_id(one): _report(one, links) for one in event["items"]}
        return message.compose_digest(event, {**{key: url for key, url in reports.items() if url}, **found}, runbook())
    report = _report(event, links)
    return message.compose(event, {**({"Report": report} if report else {}), **found}, runbook())


def _report(event: dict[str, Any], links: dict[str, Any]) -> str:
    """Return the address of the worst report in Airflow, else where it is in the store."""
    uri = next((one["report_uri"] for one in event["reports"] if one.get("report_uri")), None)
    if not uri:
        return ""
    return report_url(links["store_uri"], uri, links["dag_id"], links["store_conn_id"]) or strip_credentials(uri)


def _send(context: Context, notifier: Notifier, made: message.Message) -> None:
    """Call a notifier with the message in its context.

    Templates are rendered in a copy: one object serves several messages.
    """
    objects = {"mlops_blocks": made.blocks, "mlops_alert": made.data}
    texts = {"mlops_subject": made.subject, "mlops_message": made.text, "mlops_html": made.html}
    given = copy.copy(notifier)
    whole = {
        name: objects[found]
        for name in getattr(given, "template_fields", ())
        if (found := str(getattr(given, name, "")).strip("{} ")) in objects
        and str(getattr(given, name)).strip().startswith("{{")
    }
    if whole:
        render = given.render_template_fields  # type: ignore[attr-defined]

        def rendered(*args: Any, **kwargs: Any) -> None:
            # After the rendering: what a message says is never itself a template.
            render(*args, **kwargs)
            for name, value in whole.items():
                setattr(given, name, value)

        given.render_template_fields = rendered  # type: ignore[attr-defined]
    given(cast("Context", {**dict(context), **objects, **texts}))


def _outside(text: str) -> str:
    """Return an error's text as it may be shown: short, without credentials."""
    return str(redact(strip_credentials(text)))[:300]
