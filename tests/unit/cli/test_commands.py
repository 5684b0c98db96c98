"""``airflow mlops``, through Airflow's own parser, on the embedded back end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from airflow_mlops.core.monitoring import history as series
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.steps import StepContext


@pytest.fixture
def versions(context: StepContext, log_model: Any) -> list[dict[str, Any]]:
    """Two versions of ``churn``; the second one's evidence failed."""
    first, second = log_model("1"), log_model("2")
    failed = {
        "kind": "model_test",
        "passed": False,
        "severity": "error",
        "summary": "AUC fell to 0.6.",
        "subject": second["digest"],
    }
    return [
        register_model(context, model=first, model_name="churn"),
        register_model(context, model=second, model_name="churn", evidence=[failed]),
    ]


def test_promote_status_history(airflow, versions):
    code, printed = airflow("promote", "churn", "1", "--reason", "report read", "--by", "ana", "--output", "json")
    assert code == 0
    (entry,) = json.loads(printed)
    assert (entry["kind"], entry["version"], entry["reason"], entry["by"]) == ("ledger_entry", 1, "report read", "ana")

    code, printed = airflow("status", "--output", "json")
    (row,) = json.loads(printed)
    assert (row["model"], row["alias"], row["version"], row["latest_version"]) == ("churn", "champion", 1, 2)
    assert (row["entry"], row["by"], row["state"]) == (1, "ana", "ok")
    assert airflow("status", "churn", "--output", "json")[1] == printed

    code, printed = airflow("history", "churn", "--output", "json")
    row, refused = sorted(json.loads(printed), key=lambda one: one["entry"] is None)
    assert (refused["entry"], refused["action"], refused["version"]) == (None, "refused", 2)
    assert "AUC fell to 0.6" in refused["reason"]
    assert (row["entry"], row["action"], row["version"], row["previous"]) == (1, "promote", 1, None)
    assert (row["reason"], row["state"]) == ("report read", "done")


@pytest.mark.parametrize("output", ["table", "plain", "yaml"])
def test_every_output_shows_what_matters(airflow, versions, output):
    airflow("promote", "churn", "1", "--reason", "first")
    for words in (("status",), ("history", "churn")):
        code, printed = airflow(*words, "--output", output)
        assert code == 0
        assert "churn" in printed or "first" in printed
        assert "champion" in printed


def test_a_name_or_number_that_is_not_there_names_what_is(airflow, versions):
    code, _ = airflow("promote", "chrn", "1")
    assert code == "NotFoundError: there is no registered model 'chrn' with a version; did you mean 'churn'?"
    code, _ = airflow("promote", "churn", "7")
    assert code == "NotFoundError: 'churn' has no version 7; it has 1, 2"


def test_the_user_of_the_machine_is_who_promoted(airflow, versions, monkeypatch):
    monkeypatch.setenv("LOGNAME", "bo")

    (entry,) = json.loads(airflow("promote", "churn", "1", "--output", "json")[1])

    assert entry["by"] == "bo"


def test_failed_evidence_stops_it_unless_waived(airflow, versions):
    code, _ = airflow("promote", "churn", "2")
    assert code.startswith("GateFailedError: the model_test report did not pass: AUC fell to 0.6.")
    assert "\n" not in code

    code, printed = airflow("promote", "churn", "2", "--without-evidence", "--output", "json")
    assert code == 0
    assert json.loads(printed)[0]["evidence_waived"] is True
    assert json.loads(airflow("history", "churn", "--output", "json")[1])[0]["evidence"] == "waived"


def test_expected_champion_and_older_versions(airflow, versions):
    airflow("promote", "churn", "2", "--without-evidence")
    code, _ = airflow("promote", "churn", "1", "--expected-champion", "none")
    assert "version 2 now" in code
    assert "no version is what it was expected" in code

    assert airflow("promote", "churn", "1", "--expected-champion", "2")[0] == 0
    assert airflow("promote", "churn", "1", "--alias", "shadow")[0] == 0
    rows = json.loads(airflow("status", "churn", "--output", "json")[1])
    assert [(row["alias"], row["version"]) for row in rows] == [("champion", 1), ("shadow", 1)]


def test_status_says_when_somebody_moved_it_in_mlflow(airflow, versions, context):
    airflow("promote", "churn", "1")
    RegisteredModel(context, "churn").point("champion", 2)

    (row,) = json.loads(airflow("status", "--output", "json")[1])
    assert (row["version"], row["state"]) == (2, "moved outside the ledger")
    # Looking changes nothing.
    rows = json.loads(airflow("history", "churn", "--output", "json")[1])
    assert [row["entry"] for row in rows if row["entry"]] == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("history", "chrun"), "NotFoundError: 'chrun' has no ledger in .*did you mean 'churn'"),
        (("status", "chrun"), "NotFoundError: there is no registered model 'chrun'; did you mean 'churn'"),
        (("promote", "churn", "9"), "NotFoundError: 'churn' has no version 9; it has 1, 2"),
        (("promote", "churn", "1", "--expected-champion", "old"), "SpecError: expected_champion must be"),
    ],
)
def test_errors_are_one_line(airflow, versions, words, message):
    code, printed = airflow(*words)

    assert isinstance(code, str)
    assert len(code.splitlines()) == 1
    assert re.match(message, code)
    assert "Traceback" not in printed


def test_the_commands_cost_nothing_until_one_runs():
    code = """
import sys
from airflow.cli import cli_config
before = set(sys.modules)
from airflow_mlops.cli.definition import get_mlops_cli_commands
(group,) = get_mlops_cli_commands()
print(sorted(m for m in set(sys.modules) - before if not m.startswith(("airflow_mlops.cli", "airflow_mlops"))))
print(sorted(m for m in set(sys.modules) - before if m.startswith("airflow_mlops.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    others, ours = done.stdout.strip().splitlines()[-2:]
    assert others == "[]"
    assert ours == "['airflow_mlops.cli', 'airflow_mlops.cli.definition']"


def test_rollback_takes_a_release_back(airflow, versions):
    airflow("promote", "churn", "1", "--by", "ana")
    airflow("promote", "churn", "2", "--without-evidence", "--by", "ana")

    code, printed = airflow("rollback", "churn", "--reason", "late", "--by", "bo", "--output", "json")

    assert code == 0
    (entry,) = json.loads(printed)
    assert (entry["action"], entry["version"], entry["by"], entry["reason"]) == ("rollback", 1, "bo", "late")
    assert airflow("rollback", "churn")[0].startswith("NotFoundError: 'champion' of 'churn' has version 1 now")
    assert airflow("rollback", "churn", "--to-version", "2", "--output", "json")[0] == 0


def test_history_in_json_has_what_stands_behind_a_release(airflow, context, log_model):
    data = {"dataset_digest": "sha256:" + "a" * 64, "rows": 900, "window": None}
    ref = register_model(context, model=log_model(training=data, code={"sha": "c0ffee"}), model_name="churn")
    airflow("promote", "churn", "1", "--by", "ana")

    (row,) = json.loads(airflow("history", "churn", "--output", "json")[1])

    assert (row["digest"], row["data"], row["code"]) == (ref["digest"], data, {"sha": "c0ffee"})
    assert (row["reports"], row["mlflow_run_id"], row["registered_by"]) == ([], ref["run_id"], "register")
    assert "c0ffee" not in airflow("history", "churn")[1], "a table has room for what people read"


def test_a_promotion_takes_place_when_the_clock_says(airflow, versions):
    (now,) = json.loads(airflow("promote", "churn", "1", "--output", "json")[1])
    words = ("promote", "churn", "2", "--without-evidence", "--output", "json")
    (then,) = json.loads(airflow(*words, "--clock", "2013-05-02T01:30:00+02:00")[1])

    assert (now["clock"], then["clock"]) == (None, "2013-05-01T23:30:00+00:00")
    assert airflow("promote", "churn", "1", "--clock", "May 2nd")[0].startswith("SpecError: clock: ")
    rows = json.loads(airflow("history", "churn", "--output", "json")[1])
    assert [row["version"] for row in rows if row["action"] == "promote"] == [1, 2], "what was refused moved nothing"


def test_promote_to_another_name(airflow, versions):
    code, printed = airflow("promote", "churn", "1", "--to-name", "churn_production", "--output", "json")

    assert code == 0
    (entry,) = json.loads(printed)
    assert (entry["model"], entry["version"]) == ("churn_production", 1)
    assert json.loads(airflow("status", "churn_production", "--output", "json")[1])[0]["alias"] == "champion"


def test_archive_shows_first(airflow, versions, context):
    airflow("promote", "churn", "2", "--without-evidence")

    code, printed = airflow("archive", "churn", "--keep", "0")
    assert code == 0
    assert "would be archived" in printed
    assert "stays: is 'champion'" in printed
    assert "Add --archive" in airflow.errors
    (done,) = json.loads(airflow("archive", "churn", "--keep", "0", "--archive", "--by", "ana", "--output", "json")[1])
    assert (done["versions"], done["entry"]["by"]) == ([1], "ana")
    assert RegisteredModel(context, "churn").version(1).tags["mlops.archived"] == "entry 2"


def test_card_prints_what_is_on_record(airflow, versions):
    assert airflow("card", "churn")[0] == "NotFoundError: 'churn' has no alias 'champion': name a version"
    airflow("promote", "churn", "1", "--by", "ana", "--reason", "first")

    code, printed = airflow("card", "churn")

    assert code == 0
    assert printed.startswith("# Model card: churn version 1\n")
    assert "by ana" in printed
    assert "card.html" in airflow.errors
    assert airflow("card", "churn", "2")[1].startswith("# Model card: churn version 2\n")


def test_status_and_history_show_the_figures_of_the_windows(airflow, versions, context):
    airflow("promote", "churn", "1", "--reason", "first")
    windows = [{"start": f"2013-0{month}-01", "end": f"2013-0{month + 1}-01"} for month in (3, 4)]
    for window, value in zip(windows, (0.71, 0.65), strict=True):
        severity = "ok" if value > 0.7 else "error"
        figures = {"roc_auc": value, "rows": 10}
        series.record(context.store, "churn:1", window, figures, "performance", severity=severity, summary="said")
    series.record(context.store, "watched", windows[0], {"drift_share": 0.1}, "drift", severity="warning")

    rows = json.loads(airflow("status", "--output", "json")[1])
    assert [(row["model"], row["state"], row["health"], row["last_window"]) for row in rows] == [
        ("churn", "ok", "error", "2013-05-01T00:00:00"),
        ("watched", "watched, not registered", "warning", "2013-04-01T00:00:00"),
    ]
    assert rows[0]["series"]["performance"]["figures"] == {"roc_auc": 0.65, "rows": 10}
    assert json.loads(airflow("status", "watched", "--output", "json")[1]) == rows[1:]
    assert "watched" in airflow("status", "--output", "table")[1]

    rows = json.loads(airflow("history", "churn", "--metric", "roc_auc", "--output", "json")[1])
    assert [(row["end"][:10], row["value"], row["severity"]) for row in rows] == [
        ("2013-04-01", 0.71, "ok"),
        ("2013-05-01", 0.65, "error"),
    ]
    since = airflow("history", "churn", "--series", "performance", "--since", "2013-04-02", "--output", "json")[1]
    assert [row["figures"]["roc_auc"] for row in json.loads(since)] == [0.65]
    assert "0.65" in airflow("history", "churn", "--metric", "roc_auc", "--output", "plain")[1]

    assert "has no figure 'roc_auk'; did you mean 'roc_auc'?" in airflow("history", "churn", "--metric", "roc_auk")[0]
    assert "'chrn' has no history" in airflow("history", "chrn", "--metric", "roc_auc")[0]


def test_open_incidents_stand_beside_their_model_and_all_of_them_in_a_history_of_their_own(airflow, context, versions):
    from airflow_mlops.core.alerts.step import alert

    airflow("promote", "churn", "1", "--reason", "first")
    bad = {"kind": "performance", "passed": False, "severity": "error", "summary": "AUC fell to 0.6."}
    for about in ("churn@champion", "orders"):
        alert(context, reports=bad, subject=about, moment="2026-03-01")
    rows = json.loads(airflow("status", "--output", "json")[1])
    assert [(row["model"], row["alias"], row["state"], row["incidents"]) for row in rows] == [
        ("churn", "champion", "ok", "performance (error) since 2026-03-01"),
        ("orders", None, "watched, not registered", "performance (error) since 2026-03-01"),
    ]
    assert json.loads(airflow("status", "orders", "--output", "json")[1]) == rows[1:]
    assert "AUC fell" in airflow("history", "churn", "--incidents", "--output", "plain")[1]
    (row,) = json.loads(airflow("history", "orders", "--incidents", "--output", "json")[1])
    assert (row["incident"], row["event"], row["told"]) == ("orders/performance/1", "opened", None)
    code, _ = airflow("history", "order", "--incidents")
    assert "no incident about 'order' is on record" in code
    assert "did you mean 'orders'?" in code
    alert(context, reports={**bad, "passed": True, "severity": "ok"}, subject="orders", moment="2026-03-02")
    assert len(json.loads(airflow("status", "--output", "json")[1])) == 1


def test_adopt_puts_a_version_of_somebody_elses_on_record(airflow, context, log_model, tmp_path):
    theirs = log_model("9", record=False)
    registered = RegisteredModel(context, "theirs")
    registered.create()
    from airflow_mlops.core.tracking import client

    client(context, "the test").create_model_version("theirs", theirs["uri"], model_id=theirs["model_id"])
    (tmp_path / "january.csv").write_text("age\n31\n42\n")
    words = ("adopt", "theirs", "1", "--baseline", "roc_auc=0.81", "--reference", str(tmp_path / "january.csv"))
    code, printed = airflow(*words, "--output", "json")
    assert code == 0
    (ref,) = json.loads(printed)
    assert (ref["name"], ref["version"], ref["digest"]) == ("theirs", 1, theirs["digest"])
    assert ref["baseline"] == {"roc_auc": 0.81}
    assert ref["reference"]["rows"] == 2
    assert registered.aliases() == {}
    # Again with another level: the reference stays.
    (again,) = json.loads(airflow("adopt", "theirs", "1", "--baseline", "roc_auc=0.8", "--output", "json")[1])
    assert (again["baseline"], again["reference"]) == ({"roc_auc": 0.8}, ref["reference"])
    assert "METRIC=VALUE" in airflow("adopt", "theirs", "1", "--baseline", "roc_auc")[0]
    assert airflow("adopt", "theirs", "2")[0].startswith("NotFoundError")
