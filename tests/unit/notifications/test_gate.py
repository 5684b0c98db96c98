"""The failure notice. Its way out of a real task is in tests/integration/test_report_pages.py."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import BaseNotifier
from airflow.sdk.log import mask_secret

from airflow_mlops.core.errors import CannotReachError, GateFailedError, SpecError, SupersededError
from airflow_mlops.exceptions import translate
from airflow_mlops.notifications.gate import MAX_CAUSE, GateNotifier, compose


def context(error: Any, **fields: Any) -> dict[str, Any]:
    task = SimpleNamespace(owner="team", link_urls={"report": "http://a/mlops/reports/d/t/x"})
    ti = SimpleNamespace(
        dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=3, max_tries=2, task=task, log_url="http://log"
    )
    return {"ti": ti, "task": task, "exception": error, "run_id": "r", **fields}


def test_the_message_has_all_that_a_person_needs() -> None:
    assert compose(context(translate(SpecError("column 'a' is missing; name it in roles")))).splitlines() == [
        "Task t of DAG d failed (run r, try 3 of 3)",
        "Why: SpecError: column 'a' is missing; name it in roles",
        "Owner: team",
        "Report: http://a/mlops/reports/d/t/x",
        "Log: http://log",
        "What to do: Mend what the message names, then clear this task. A retry alone would end the same.",
        "Runbook: operations/runbook.html#SpecError",
    ]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (translate(GateFailedError("no")), "Read the report"),
        (translate(SupersededError("no")), "Nothing, if the later entry is right (airflow mlops history)"),
        (translate(CannotReachError("no")), "See that the server named above answers"),
        (ValueError("no"), "Read the task's log"),
        (None, "Read the task's log"),
        ("a text", "Read the task's log"),
    ],
)
def test_each_kind_of_failure_has_its_advice(error: Any, advice: str) -> None:
    assert f"What to do: {advice}" in compose(context(error))


def test_a_mapped_task_says_which_one_it_is() -> None:
    value = context(ValueError("x"))
    value["ti"].map_index = 4
    assert "(run r, map index 4, try 3 of 3)" in compose(value)


def test_a_dags_own_callback_has_less_and_is_served_too() -> None:
    dag = SimpleNamespace(dag_id="d")
    assert compose({"dag": dag, "run_id": "r", "reason": "task_failure"}).splitlines()[:2] == [
        "DAG d failed (run r)",
        "Why: task_failure",
    ]
    assert compose({}).startswith("DAG unknown failed")


def test_the_cause_is_short_and_without_secrets() -> None:
    mask_secret("tops3cret-word")
    text = compose(context(ValueError("http://user:hunter2@mlflow/ tops3cret-word " + "x" * 10_000)))
    assert "hunter2" not in text
    assert "tops3cret-word" not in text
    assert len(text) < MAX_CAUSE + 500


class Sent(BaseNotifier):
    """A notifier as other providers have them: its text is a template."""

    template_fields = ("text",)

    def __init__(self, text: str, out: list[str]) -> None:
        super().__init__()
        self.text = text
        self.out = out

    def notify(self, context: Any) -> None:
        self.out.append(self.text)


def test_the_message_reaches_the_log_and_every_notifier_each_time_anew(caplog: pytest.LogCaptureFixture) -> None:
    out: list[str] = []

    def broken(context: Any) -> None:
        raise RuntimeError("the chat is down")

    notifier = GateNotifier(notifiers=[broken, Sent("to chat: {{ mlops_message }}", out)])
    with caplog.at_level(logging.ERROR):
        notifier(context(ValueError("first")))
        notifier(context(ValueError("second")))
    assert [text.splitlines()[1] for text in out] == ["Why: ValueError: first", "Why: ValueError: second"]
    assert all(text.startswith("to chat: Task t of DAG d failed") for text in out)
    assert "Why: ValueError: first" in caplog.text
    assert "broken could not send the message" in caplog.text


def test_a_message_of_ones_own_may_hold_ours() -> None:
    out: list[str] = []
    GateNotifier(message="[{{ run_id }}] {{ mlops_message }}", notifiers=[Sent("{{ mlops_message }}", out)])(
        context(ValueError("x"))
    )
    assert out[0].startswith("[r] Task t of DAG d failed")


def test_it_never_raises_whatever_it_is_given(caplog: pytest.LogCaptureFixture) -> None:
    class EvilError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    GateNotifier()(context(EvilError()))
    GateNotifier(message="{{ broken")(context(ValueError("x")))
    GateNotifier()(None)
    assert caplog.text.count("could not compose its message") == 3
