"""AlertOperator with Airflow's own notifiers against a real web hook and a real mail server; killed, raced, refused."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.http.notifications.http import HttpNotifier
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import BaseNotifier

from airflow_mlops.core.alerts.listing import incident_history
from airflow_mlops.core.faults import CRASH_POINTS, PAUSE_VARIABLE, VARIABLE
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.exceptions import MlopsFailed, MlopsUnavailable
from airflow_mlops.operators.monitoring import AlertOperator
from servers.inboxes import MailServer, WebHook


@pytest.fixture
def store(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path))
    return LocalStore(tmp_path / "store")


@pytest.fixture
def notifiers(web_hook: WebHook, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setenv("AIRFLOW_CONN_PAGER", web_hook.connection)
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", mail_server.connection)
    return [
        SmtpNotifier(to="desk@example.com", subject="{{ mlops_subject }}", html_content="{{ mlops_html }}"),
        HttpNotifier(http_conn_id="pager", endpoint="alerts", json="{{ mlops_alert }}"),
    ]


def report(severity: str, day: int = 1, kind: str = "validation") -> dict[str, Any]:
    failures = [{"type": "expect_column_values_to_not_be_null", "column": "total"}] if severity != "ok" else []
    return {
        "schema": 1,
        "kind": kind,
        "passed": severity == "ok",
        "severity": severity,
        "summary": "value skew in 1 of 2 expectations: {{ var.value.secret }} <b>",
        "failures": failures,
        "window": {"start": f"2026-03-{day:02d}", "end": f"2026-03-{day + 1:02d}"},
        "report_uri": None,
    }


def task(run_id: str = "r1") -> tuple[dict[str, Any], list[Any]]:
    """What a task is given, and what it pushes by itself."""
    pushed: list[Any] = []
    ti = SimpleNamespace(
        dag_id="orders", run_id=run_id, task_id="alert", map_index=-1, try_number=1, log_url="https://airflow/log",
        xcom_push=lambda key, value: pushed.append(value),
    )  # fmt: skip
    run = SimpleNamespace(run_type="manual", triggering_user_name=None, bundle_version=None)
    return {"ti": ti, "dag_run": run, "logical_date": pendulum.datetime(2026, 3, 2)}, pushed


def alert(severity: str, notifiers: list[Any], day: int = 1, run_id: str = "r1", **more: Any) -> dict[str, Any]:
    arguments = {"subject": "orders", "owner": "order desk", "notifiers": notifiers, **more}
    operator = AlertOperator(task_id="alert", reports=[report(severity, day)], **arguments)
    return dict(operator.execute(task(run_id)[0]))


def test_mail_and_web_hook_are_told_once_of_each_change(
    store: LocalStore, notifiers: list[Any], web_hook: WebHook, mail_server: MailServer
) -> None:
    opened = alert("error", notifiers)
    assert [one["event"] for one in opened["incidents"]] == ["opened"]
    assert [one["notifier"] for one in opened["told"]] == ["SmtpNotifier", "HttpNotifier"]
    assert alert("error", notifiers)["told"] == [], "the task again"
    assert alert("error", notifiers, day=2, run_id="r2")["told"] == [], "it goes on"
    resolved = alert("ok", notifiers, day=3, run_id="r3")
    assert resolved["open"] == []

    assert [(one["event"], one["id"]) for one in web_hook.received] == [
        ("opened", "orders/validation/1/1"),
        ("resolved", "orders/validation/1/2"),
    ]
    first = web_hook.received[0]
    assert first["summary"] == report("error")["summary"], "what a report says is no template"
    assert (first["owner"], first["links"]) == ("order desk", {"Log": "https://airflow/log"})
    subjects = [mail["Subject"] for mail in mail_server.received]
    assert subjects == ["[error] Broken data: orders", "[resolved] Broken data: orders"]
    body = mail_server.received[0].get_body(("html",))
    assert body is not None
    assert "&lt;b&gt;" in body.get_content()
    assert "expect_column_values_to_not_be_null total" in body.get_content()


def test_a_notifier_that_fails_is_tried_again_alone(
    store: LocalStore, notifiers: list[Any], web_hook: WebHook, mail_server: MailServer
) -> None:
    web_hook.refusing = True
    context, pushed = task()
    operator = AlertOperator(task_id="alert", reports=[report("error")], subject="orders", notifiers=notifiers)
    with pytest.raises(MlopsUnavailable, match=r"1 of its notifiers did not take the message \(HttpNotifier: 503"):
        operator.execute(context)  # type: ignore[arg-type]
    assert pushed[0]["incidents"][0]["event"] == "opened", "the incident is what comes after"
    mail_server.refusing, web_hook.refusing = True, False
    assert [one["notifier"] for one in alert("error", notifiers, run_id="r2")["told"]] == ["HttpNotifier"]
    with pytest.raises(MlopsUnavailable, match="SmtpNotifier"):
        alert("ok", notifiers, day=2, run_id="r3")
    mail_server.refusing = False
    alert("ok", notifiers, day=2, run_id="r3")
    assert [mail["Subject"][:10] for mail in mail_server.received] == ["[error] Br", "[resolved]"]
    assert [one["event"] for one in web_hook.received] == ["opened", "resolved"]


def test_warnings_go_into_the_digest(
    store: LocalStore, notifiers: list[Any], web_hook: WebHook, mail_server: MailServer
) -> None:
    mail, hook = notifiers
    alert("warning", [hook], digest_notifiers=[mail])
    assert web_hook.received == []
    assert [mail["Subject"] for mail in mail_server.received] == ["[digest] 1 thing to know about orders"]
    alert("error", [hook], day=2, digest_notifiers=[mail])
    assert [(one["event"], one["severity"]) for one in web_hook.received] == [("updated", "error")]
    assert len(mail_server.received) == 1, "no sooner than seven days"


def test_slacks_blocks_reach_a_field_as_blocks_and_callables_get_it_all(store: LocalStore) -> None:
    """As ``SlackNotifier`` has them: text and blocks are templates."""
    sent: list[Any] = []

    class Slack(BaseNotifier):
        template_fields = ("text", "blocks")

        def __init__(self, text: str, blocks: Any) -> None:
            super().__init__()
            self.text, self.blocks = text, blocks

        def notify(self, context: Any) -> None:
            sent.append((self.text, self.blocks))

    slack = Slack("{{ mlops_subject }}", "{{ mlops_blocks }}")
    alert("error", [slack, lambda context: sent.append(context["mlops_message"])])
    (text, blocks), message = sent
    assert text == "[error] Broken data: orders"
    assert [block["type"] for block in blocks] == ["header", "section", "context"]
    assert "What to do: Read the report" in message
    assert slack.blocks == "{{ mlops_blocks }}", "one object serves many messages"


def _child(function: Callable[[], Any], environment: dict[str, str]) -> multiprocessing.Process:
    def run() -> None:
        os.environ.update(environment)
        function()

    # Forked, for Airflow's import takes seconds; nothing of the parent's is written to.
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process  # type: ignore[return-value]


@pytest.mark.parametrize("point", CRASH_POINTS["alert"])
def test_killed_anywhere_and_run_again_everybody_is_told(
    store: LocalStore, notifiers: list[Any], web_hook: WebHook, mail_server: MailServer, point: str
) -> None:
    severity = "warning" if point == "alert.digest_made" else "error"
    more = {"digest_notifiers": notifiers}
    child = _child(lambda: alert(severity, notifiers, **more), {VARIABLE: point})
    child.join()
    assert child.exitcode == -signal.SIGKILL

    alert(severity, notifiers, **more)
    alert(severity, notifiers, **more)

    subjects = [mail["Subject"] for mail in mail_server.received]
    ids = [one["id"] for one in web_hook.received]
    # Killed between the mail and its record, it mails again: the same, under the same id.
    assert len(subjects) == (2 if point == "alert.sent" else 1)
    assert len(set(subjects)) == 1
    assert ids == (["orders/validation/1/1"] if severity == "error" else ["digest/orders/alert/1"])
    told = incident_history(StepContext(store=store), "orders")
    assert [one["event"] for one in told] == ["opened"]


def test_two_runs_at_once_tell_once(
    store: LocalStore, notifiers: list[Any], web_hook: WebHook, mail_server: MailServer
) -> None:
    slow = {PAUSE_VARIABLE: "alert.claimed:1"}
    children = [_child(lambda n=n: alert("error", notifiers, run_id=f"r{n}"), slow) for n in range(3)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len(mail_server.received) == len(web_hook.received) == 1


def test_a_run_whose_predecessor_died_tells_what_that_one_owed(
    store: LocalStore, notifiers: list[Any], web_hook: WebHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_MLOPS_ALERT_CLAIM_SECONDS", "0")
    child = _child(lambda: alert("error", notifiers), {VARIABLE: "alert.claimed"})
    child.join()
    told = alert("error", notifiers, day=2, run_id="r2")["told"]
    assert {one["id"] for one in told} == {"orders/validation/1/1"}


def test_static_mistakes_are_told_where_they_are_made() -> None:
    with pytest.raises(ValueError, match="low, normal, high"):
        AlertOperator(task_id="t", reports=[], sensitivity="loud")
    with pytest.raises(ValueError, match="'alert' or 'digest'"):
        AlertOperator(task_id="t", reports=[], channels={"drift": "sms"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"mute_until": "tomorrow"}, "not an instant"), ({"digest_every": "weekly"}, "not a duration")],
)
def test_what_is_templated_is_checked_when_it_runs(store: LocalStore, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(MlopsFailed, match=message):
        alert("error", [], **arguments)
    assert list(store.keys()) == []
