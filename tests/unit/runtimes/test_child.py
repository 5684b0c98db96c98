"""What runtimes share: specs for another process, lines and their levels, results and errors that come back."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from airflow_mlops.core.errors import (
    CannotReachError,
    CrashedError,
    MissingColumnError,
    SpecError,
    StoppedError,
    from_dict,
)
from airflow_mlops.runtimes import child
from airflow_mlops.runtimes.child import Relay, level_of, portable_spec, result_of, secrets_of

log = logging.getLogger("airflow_mlops")


def test_a_spec_is_plain_json_and_a_callable_its_import_string() -> None:
    import datetime as dt

    spec = {"step": "train_model", "args": {"trainer": json.dumps, "from": dt.date(2026, 1, 2), "n": (1, float("nan"))}}
    assert portable_spec(spec) == {
        "step": "train_model",
        "args": {"trainer": {"callable": "json:dumps"}, "from": "2026-01-02", "n": [1, None]},
    }


def test_a_callable_that_cannot_be_imported_elsewhere_is_refused_with_the_cure() -> None:
    def train(X: Any, y: Any) -> Any:
        return None

    with pytest.raises(SpecError, match=r"trainer: .*train .*cannot be imported.*module beside the DAG.*@task"):
        portable_spec({"args": {"trainer": train}})
    with pytest.raises(SpecError, match=r"tests\[0\]\['function'\]: .*<lambda>"):
        portable_spec({"args": {"tests": [{"function": lambda model: True}]}})


@pytest.mark.parametrize(
    ("line", "level", "text"),
    [
        ("2026-01-02 03:04:05,678 WARNING the model has a warning", logging.WARNING, "the model has a warning"),
        ("2026-01-02 03:04:05,678 ERROR ", logging.ERROR, ""),
        ("2026-01-02 03:04:05 WARNING not ours", logging.INFO, "2026-01-02 03:04:05 WARNING not ours"),
        ("epoch 3", logging.INFO, "epoch 3"),
    ],
)
def test_a_line_has_the_level_that_the_step_gave_it(line: str, level: int, text: str) -> None:
    assert level_of(line) == (level, text)


def test_lines_are_passed_on_without_secrets_and_the_last_are_kept(caplog: Any) -> None:
    relay = Relay(
        log, secrets_of({"DB_PASSWORD": "s3cr3t/x", "PLAIN": "visible-value", "CODE": "private-value"}, ["CODE"])
    )
    with caplog.at_level(logging.DEBUG):
        relay.line("2026-01-02 03:04:05,678 WARNING s3cr3t/x and s3cr3t%2Fx")
        relay.line("private-value visible-value http://u:pw@host/")
        relay.line("")
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, "*** and ***"),
        (logging.INFO, "*** visible-value http://host/"),
        (logging.INFO, ""),
    ]
    assert relay.tail == ("*** and ***", "*** visible-value http://host/")


def test_what_is_printed_without_end_is_cut_but_warnings_are_not(caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(child, "MOST_LINES", 5)
    relay = Relay(log, secrets_of({}))
    with caplog.at_level(logging.DEBUG):
        for number in range(1000):
            relay.line(f"line {number}")
        relay.line("2026-01-02 03:04:05,678 ERROR at last")
    messages = caplog.messages
    assert messages[:5] == [f"line {number}" for number in range(5)]
    assert "printed more than 5 lines" in messages[5]
    assert messages[6:] == ["at last"]
    assert relay.tail[-2:] == ("line 999", "at last")


def test_few_but_long_lines_are_cut_too(caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(child, "MOST_CHARACTERS", 100)
    relay = Relay(log, secrets_of({}))
    with caplog.at_level(logging.DEBUG):
        for _ in range(10):
            relay.line("x" * 40)
    assert caplog.messages.count("x" * 40) == 2
    assert len(caplog.messages) == 3


def test_a_report_is_the_result() -> None:
    assert result_of(b'{"passed": true}', 0) == {"passed": True}


def test_the_error_of_the_step_comes_back_as_it_was() -> None:
    error = MissingColumnError("there is no column 'age'", column="age")
    with pytest.raises(MissingColumnError) as caught:
        result_of(json.dumps({"error": error.to_dict()}).encode(), 1)
    assert (caught.value.message, caught.value.fields) == (error.message, error.fields)


@pytest.mark.parametrize("cls", [SpecError, CannotReachError, StoppedError])
def test_errors_keep_whether_a_retry_helps(cls: Any) -> None:
    found = from_dict(json.loads(json.dumps(cls("why", one=1).to_dict())))
    assert type(found) is cls
    assert (str(found), found.fields, found.retryable) == ("why", {"one": 1}, cls.retryable)


def test_an_error_of_an_unknown_class_is_a_crash_with_the_last_lines() -> None:
    report = {"error": {"type": "ZeroDivisionError", "message": "ZeroDivisionError: by zero", "fields": {"message": 1}}}
    with pytest.raises(CrashedError, match=r"ZeroDivisionError: by zero.* first \| last") as caught:
        result_of(report, 70, ("first", "last"))
    assert caught.value.retryable


def test_a_process_that_leaves_no_report_is_told_by_its_code_and_last_lines() -> None:
    with pytest.raises(
        CrashedError, match=r"the trainer ended with exit code 3 and left no report.* its end"
    ) as caught:
        result_of(None, 3, ("its end",), subject="the trainer")
    assert caught.value.fields == {"exit_code": 3}
    with pytest.raises(CrashedError, match=r"exit code 0 and left no report.*printed nothing"):
        result_of(None, 0)
    with pytest.raises(CrashedError, match=r"exit code 0"):
        result_of(b'{"pas', 0)


def test_a_process_that_a_signal_ended_may_be_retried() -> None:
    with pytest.raises(
        StoppedError, match=r"signal 9, usually because the machine ran out of memory.*epoch 3"
    ) as caught:
        result_of(None, -9, ("epoch 3",))
    assert caught.value.retryable


def test_a_secret_in_an_error_does_not_show() -> None:
    report = {"error": {"type": "SpecError", "message": "refused: hunter2hunter2"}}
    with pytest.raises(SpecError) as caught:
        result_of(report, 1, secrets=secrets_of({"MY_TOKEN": "hunter2hunter2"}))
    assert str(caught.value) == caught.value.message == "refused: ***"
