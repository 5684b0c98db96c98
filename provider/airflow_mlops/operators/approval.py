"""Have a person approve a release, with the evidence before them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict

from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.registry.policy import Policy
from airflow_mlops.exceptions import MlopsFailed, MlopsGateFailed, translate
from airflow_mlops.links.model import ModelVersionLink, ReportLink, mlflow_pages, report_url, urls_of
from airflow_mlops.operators.base import BACKEND_FIELDS, MlopsOperator, log
from airflow_mlops.operators.models import resolve_model

if TYPE_CHECKING:
    from airflow.sdk import Context

#: How long an answer is waited for unless the user says otherwise: a task that waits for ever is never looked at.
PATIENCE = dt.timedelta(days=7)
OUTCOMES = ("fail", "skip")
REASON = "Why; it is kept in the ledger."


class ApproveModelOperator(MlopsOperator, ApprovalOperator):
    """Ask a person whether a model may be released, and keep the answer.

    What they see is made of the evidence: the metrics beside the champion's and how sure the difference is, the weakest
    slices, what failed, drift, the hyperparameters, data and code that differ, and links to the reports and to MLflow.
    While nobody has answered the task waits without a worker slot; on Airflow 3.3 without a trigger too. It is
    answered on Airflow's page of required actions, or by its REST API.

    Returns a report of kind ``approval`` with ``decision`` (``approved``, ``rejected``, ``expired``), ``by``, ``at``,
    ``reason``. As evidence of :class:`.PromoteModelOperator` it lets the promotion go on and names who approved it in
    the ledger; it holds for this very model and for this name and alias. A rejection and a timeout are never tried
    again. The task retried or cleared with the same model and evidence gets an approval back; cleared after a
    rejection or a timeout it asks again.

    :param model: a model ref, such as ``register.output``, or its URI. (templated)
    :param evidence: reports that must all have passed and speak of this model, such as ``[test.output]``. Default:
        those that were registered with the version. If one did not pass, nobody is asked and the task fails.
        (templated)
    :param alias: the alias that the model is to be promoted to. (templated)
    :param to_name: the registered name that it is to be promoted to, if that is another one. (templated)
    :param drift: reports of drift or performance that are shown and decide nothing. (templated)
    :param auto_approve: ``{"green_runs": 5}``: nobody is asked if that many releases of the alias in a row were green,
        which is promoted on evidence that passed, with no rollback, rejection, unanswered question or change by hand
        since, and this one's evidence has no warning. Its sentence stands in the log and on record. (templated)
    :param assigned_users: who may answer, as ids or ``{"id", "name"}``; None: whoever may edit the DAG's runs.
        (templated)
    :param response_timeout: how long to wait; default: 7 days; None: for ever.
    :param on_reject: ``"fail"``: the task fails; ``"skip"``: it ends well and what is downstream is skipped.
        (templated)
    :param on_timeout: the same for when nobody answers in time. (templated)
    :raises ValueError: in the constructor, for an ``auto_approve`` or outcome that cannot be.

    ``notifiers`` and ``ignore_downstream_trigger_rules`` are those of Airflow's ``ApprovalOperator``; the form has one
    field, the reason.
    """

    step = "request_approval"
    step_arguments = ("model", "evidence", "alias", "to_name", "drift", "auto_approve")
    needs_mlflow = True
    operator_extra_links = (ReportLink(), ModelVersionLink())
    inherits_from_skipmixin = True

    template_fields: Sequence[str] = (
        *step_arguments,
        "assigned_users",
        "on_reject",
        "on_timeout",
        *BACKEND_FIELDS,
    )
    template_fields_renderers = dict.fromkeys(("model", "evidence", "drift", "auto_approve"), "json")

    def __init__(
        self,
        *,
        model: Any,
        evidence: Any = None,
        alias: str = "champion",
        to_name: str | None = None,
        drift: Any = None,
        auto_approve: dict[str, Any] | None = None,
        assigned_users: list[Any] | str | None = None,
        response_timeout: dt.timedelta | None = PATIENCE,
        on_reject: str = "fail",
        on_timeout: str = "fail",
        **kwargs: Any,
    ) -> None:
        """Assign; nothing is asked before the task runs."""
        # Airflow passes the DAG's own params on to every task; they are no part of the form.
        kwargs["params"] = {"reason": Param("", type=["string", "null"], title="Reason", description=REASON)}
        super().__init__(subject="Release this model?", response_timeout=response_timeout, **kwargs)
        if not hasattr(ParamsDict, "filter_params_by_source"):  # Airflow 3.1 leaves them among the form's
            self.params = ParamsDict({"reason": self.params.get_param("reason")})
        for name, value in (("on_reject", on_reject), ("on_timeout", on_timeout)):
            if value not in OUTCOMES and "{" not in str(value):
                raise ValueError(f"{name} must be 'fail' or 'skip', got {value!r}")
        if isinstance(auto_approve, dict) and "{" not in str(auto_approve.get("green_runs")):
            _check_policy(auto_approve)
        self.model = model
        self.evidence = evidence
        self.alias = alias
        self.to_name = to_name
        self.drift = drift
        self.auto_approve = auto_approve
        self.assigned_users = assigned_users  # type: ignore[assignment]
        self.on_reject = on_reject
        self.on_timeout = on_timeout

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments; a relative path of a model is resolved."""
        return {
            **super().arguments(context),
            "model": resolve_model(context, self.model),
            # A person who clears the task raises it, a retry does not.
            "attempt": int(getattr(context["ti"], "max_tries", 0) or 0),
        }

    def execute(self, context: Context) -> Any:
        """Ask, unless there is a decision already."""
        try:
            for name in ("on_reject", "on_timeout"):
                if getattr(self, name) not in OUTCOMES:
                    raise SpecError(f"{name} must be 'fail' or 'skip', got {getattr(self, name)!r}")
            self.assigned_users = users(self.assigned_users)  # type: ignore[assignment]
            if self.response_timeout is not None:
                # Airflow 3.3 cannot send a subclass of it, such as pendulum's, to its server.
                self.response_timeout = dt.timedelta(seconds=self.response_timeout.total_seconds())
            job, links = self.prepare(context)
            reports = _listed(self.evidence) + _listed(self.drift)
            job.spec["args"]["links"] = {
                "reports": {uri: url for uri in reports if (url := _address(uri, links))},
                "mlflow": mlflow_pages(links["tracking"]),
            }
            request = self.runs_in().run(job, log)
        except MlopsError as error:
            raise translate(error) from error
        if request["decision"] is not None:
            return self._end(context, request["decision"], links)
        self.subject, self.body = request["subject"], request["body"]
        log.info("%s\n%s", self.subject, self.body)
        return ApprovalOperator.execute(self, context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Keep the answer, or that there was none, and end accordingly."""
        timeout = event.get("error_type") == "timeout"
        if "error" in event and not timeout:
            raise MlopsFailed(f"the answer cannot be used: {event['error']}. Clear the task to ask again")
        answer: dict[str, Any] = {"decision": "expired"}
        if not timeout:
            self.validate_chosen_options(event["chosen_options"])
            who = event.get("responded_by_user") or {}
            answer = {
                "decision": "approved" if event["chosen_options"] == [self.APPROVE] else "rejected",
                "by": who.get("name") or who.get("id"),
                "by_id": who.get("id"),
                "at": str(event["responded_at"]),
                "reason": (event.get("params_input") or {}).get("reason"),
            }
        try:
            job, links = self.prepare(context)
            job.spec["step"] = "record_approval"
            asked = {k: v for k, v in job.spec["args"].items() if k not in ("drift", "auto_approve")}
            job.spec["args"] = {**asked, **answer}
            decision = self.runs_in().run(job, log)
        except MlopsError as error:
            raise translate(error) from error
        return self._end(context, decision, links)

    def _end(self, context: Context, decision: dict[str, Any], links: dict[str, Any]) -> Any:
        """Return the decision; or push it and fail without a retry, or skip what is downstream."""
        self.link_urls = urls_of(decision, **links)
        if decision["decision"] == "approved":
            log.info("%s", decision["summary"])
            return decision
        log.error("%s", decision["summary"])
        wanted = self.on_reject if decision["decision"] == "rejected" else self.on_timeout
        context["ti"].xcom_push(key="return_value", value=decision)
        if wanted == "fail":
            raise MlopsGateFailed(f"{decision['summary']} Clear the task to ask again.")
        self._skip_downstream(context)
        return decision

    def _skip_downstream(self, context: Context) -> None:
        task = context["task"]
        tasks = (
            task.get_flat_relatives(upstream=False)
            if self.ignore_downstream_trigger_rules
            else task.get_direct_relatives(upstream=False)
        )
        following = [one for one in tasks if not one.is_teardown]
        if following:
            self.skip(ti=context["ti"], tasks=following)


def users(value: Any) -> list[dict[str, str]] | None:
    """Return who may answer as Airflow wants them: ``[{"id", "name"}]``; None for everybody.

    :raises SpecError: for what is neither an id nor ``{"id", "name"}``.
    """
    if value is None or value == "":
        return None
    found = []
    for one in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(one, dict) and one.get("id"):
            found.append({"id": str(one["id"]), "name": str(one.get("name") or one["id"])})
        elif isinstance(one, (str, int)) and not isinstance(one, bool) and str(one).strip():
            found.append({"id": str(one).strip(), "name": str(one).strip()})
        else:
            raise SpecError(f"assigned_users are ids or {{'id', 'name'}}, got {one!r}")
    return found


def _check_policy(value: dict[str, Any]) -> None:
    """Refuse a policy that no run could use.

    :raises ValueError: naming what is wrong.
    """
    try:
        Policy.of(value)
    except SpecError as error:
        raise ValueError(error.message) from None


def _listed(reports: Any) -> list[str]:
    found = [reports] if isinstance(reports, dict) else reports if isinstance(reports, (list, tuple)) else []
    return [str(one["report_uri"]) for one in found if isinstance(one, dict) and one.get("report_uri")]


def _address(uri: str, links: dict[str, Any]) -> str | None:
    return report_url(links["store_uri"], uri, links["dag_id"], links["store_conn_id"])
