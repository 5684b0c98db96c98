"""Approvals: what a person is shown, what is kept, when nobody is asked, and what a promotion makes of it."""

from __future__ import annotations

import pytest

from airflow_mlops.core.errors import ConflictError, GateFailedError, IntegrityError, SpecError
from airflow_mlops.core.registry.approval import record_approval, request_approval
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.rollback import rollback_model
from airflow_mlops.core.tracking import client

DECIDED = {"decision": "approved", "by": "ana", "by_id": "7", "at": "2026-03-01T10:00:00+00:00", "reason": "looks fine"}


@pytest.fixture
def ask(as_task):
    """Ask as the task instance ``key``."""

    def call(model, key="approve/1", **arguments):
        return request_approval(as_task(key), model=model, **arguments)

    return call


@pytest.fixture
def decide(as_task, ask):
    """Ask and answer as the task instance ``key``."""

    def call(model, key="approve/1", attempt=0, evidence=None, target=None, **answer):
        target = target or {}
        ask(model, key, evidence=evidence, attempt=attempt, **target)
        whole = {**DECIDED, **answer}
        return record_approval(as_task(key), model=model, evidence=evidence, attempt=attempt, **target, **whole)

    return call


def test_what_a_person_is_shown(ask, promote, versions, report, mlflow_context):
    mlflow_client = client(mlflow_context, "the test")
    for version, depth in ((versions[0], "4"), (versions[1], "8")):
        mlflow_client.log_param(version["run_id"], "max_depth", depth)
        mlflow_client.log_param(version["run_id"], "seed", "0")
    promote(versions[0])
    test = report(
        versions[1],
        against={
            "version": 1,
            "rows": 1200,
            "comparison": [
                {"metric": "roc_auc", "challenger": 0.81, "champion": 0.78, "ahead": 0.03, "greater_is_better": True}
            ],
        },
        details={
            "caveats": ["Some rows may be known to it."],
            "slices": [
                {
                    "metric": "roc_auc",
                    "by": "carrier",
                    "slice": "U|A",
                    "rows": 90,
                    "value": 0.7,
                    "overall": 0.81,
                    "gap": 0.11,
                    "passed": True,
                }
            ],
            "specs": [{"name": "auc", "metric": "roc_auc"}],
            "tests": [
                {
                    "name": "auc",
                    "passed": True,
                    "severity": "error",
                    "comparison": {"verdict": "better", "low": 0.01, "high": 0.05, "units": 28, "unit": "days"},
                }
            ],
        },
    )
    drift = {"kind": "drift", "passed": False, "severity": "warning", "summary": "3 of 20 columns drifted."}
    links = {"reports": {test["report_uri"]: "https://airflow/report"}, "mlflow": "https://mlflow"}

    request = ask(versions[1], evidence=[test], drift=drift, links=links)

    assert request["decision"] is None
    assert request["subject"] == "Release churn version 2 as churn@champion?"
    body = request["body"]
    assert "[churn version 2](https://mlflow/#/models/churn/versions/2)" in body
    assert "(version 1 now)" in body
    assert "✅ [model test](https://airflow/report): All 1 test passed." in body
    assert "| `roc_auc` | 0.81 | 0.78 | +0.03 | **better**: 0.01 to 0.05 by 28 days |" in body
    assert r"| ✅ | `carrier` | U\|A | 90 | 0.7 | 0.81 |" in body
    assert "### Read this with care\n\n- Some rows may be known to it." in body
    assert "⚠️ drift: 3 of 20 columns drifted." in body
    assert "| max_depth | `8` | `4` |" in body
    assert "seed" not in body, "what is equal is no difference"


def test_a_decision_is_evidence_and_names_the_approver_in_the_ledger(decide, promote, versions, report):
    test = report(versions[0])
    decision = decide(versions[0], evidence=[test])

    assert (decision["kind"], decision["passed"], decision["subject"]) == ("approval", True, versions[0]["digest"])
    assert {key: decision[key] for key in ("decision", "by", "reason", "name", "version")} == {
        "decision": "approved",
        "by": "ana",
        "reason": "looks fine",
        "name": "churn",
        "version": 1,
    }
    entry = promote(versions[0], evidence=[test, decision])

    assert (entry["by"], entry["reason"]) == ("ana", "looks fine")
    assert [one["kind"] for one in entry["evidence"]] == ["model_test", "approval"]
    assert entry["evidence"][1]["by"] == "ana"


def test_an_approver_who_is_made_up_is_found_out(decide, promote, versions, mlflow_context):
    decision = decide(versions[0])
    forged = {**decision, "by": "the boss"}
    assert promote(versions[0], evidence=[forged])["by"] == "ana", "the record counts, not what came by XCom"

    other = decide(versions[1], key="approve/2")
    key = mlflow_context.store.key_of(other["details_uri"])
    mlflow_context.store.put_json(key, {**mlflow_context.store.get_json(key), "by": "the boss"})
    with pytest.raises(IntegrityError, match="altered"):
        promote(versions[1], key="promote/2", evidence=[other])


def test_an_approval_holds_for_one_model_name_and_alias(decide, promote, versions):
    staging = decide(versions[0], target={"alias": "staging"})

    with pytest.raises(ConflictError, match=r"the approval is for churn@staging, not for churn@champion"):
        promote(versions[0], evidence=[staging])
    with pytest.raises(ConflictError, match="the approval report speaks of"):
        promote(versions[1], evidence=[staging], alias="staging")
    assert promote(versions[0], evidence=[staging], alias="staging")["version"] == 1


def test_a_rejection_is_no_evidence(decide, promote, versions):
    decision = decide(versions[0], decision="rejected", reason="fairness")

    assert (decision["passed"], decision["summary"]) == (
        False,
        "churn version 1 as churn@champion: rejected by ana: fairness.",
    )
    with pytest.raises(GateFailedError, match="rejected by ana: fairness"):
        promote(versions[0], evidence=[decision])


def test_the_task_again_gets_its_decision_back(ask, decide, versions):
    first = decide(versions[0])

    assert ask(versions[0], attempt=3)["decision"] == first
    assert ask(versions[0], key="another run")["decision"] is None
    assert ask(versions[0], key="another alias", alias="shadow")["decision"] is None


def test_a_rejection_is_asked_about_again_only_when_a_person_wants_it(ask, decide, versions):
    first = decide(versions[0], decision="rejected", attempt=2)

    assert ask(versions[0], attempt=2)["decision"] == first, "a retry"
    assert ask(versions[0], attempt=3)["decision"] is None, "the task was cleared"
    second = decide(versions[0], attempt=3, at="2026-03-02T10:00:00+00:00")
    assert second["passed"]
    assert ask(versions[0], attempt=3)["decision"] == second


def test_other_evidence_is_another_question(ask, decide, versions, report):
    decide(versions[0], evidence=[report(versions[0])])

    other = [report(versions[0], against={"version": None})]
    with pytest.raises(ConflictError, match=r"this run asked 'Release churn version 1 as churn@champion\?' before"):
        ask(versions[0], evidence=other)
    assert ask(versions[0], key="another run", evidence=other)["decision"] is None


def test_a_run_does_not_ask_another_question_which_airflow_would_not_show(ask, promote, versions):
    """Airflow keeps the text of a task instance's first question."""
    ask(versions[0])
    assert ask(versions[0])["decision"] is None, "the same question"
    promote(versions[1])
    with pytest.raises(ConflictError, match=r"would show the first question again.*Start a new run"):
        ask(versions[0])
    with pytest.raises(ConflictError, match="Start a new run"):
        ask(versions[2])


def test_nobody_is_asked_about_evidence_that_failed_or_is_out_of_date(ask, promote, versions, report):
    with pytest.raises(GateFailedError, match=r"AUC 0\.71"):
        ask(versions[0], evidence=[report(versions[0], passed=False)])
    promote(versions[0])
    with pytest.raises(ConflictError, match="measured against no version, and 'champion' of 'churn' is version 1 now"):
        ask(versions[1], evidence=[report(versions[1], against={"version": None})])


def test_a_decision_that_was_promoted_comes_back_though_the_champion_has_moved(decide, ask, promote, versions, report):
    test = report(versions[0], against={"version": None})
    decision = decide(versions[0], evidence=[test])
    promote(versions[0], evidence=[test, decision])

    assert ask(versions[0], evidence=[test])["decision"] == decision


class TestPolicy:
    """``auto_approve``: who is asked after what."""

    POLICY = {"green_runs": 2}  # noqa: RUF012

    @pytest.fixture
    def release(self, promote, report):
        """Promote on evidence that passed."""

        def call(version, key):
            return promote(version, key=key, evidence=[report(version)])

        return call

    @pytest.fixture
    def asked(self, ask, report):
        """Whether a person is asked about a model, and the sentence that says why."""

        def call(version, key="now", **more):
            answer = ask(version, key=key, evidence=[report(version, **more)], auto_approve=self.POLICY)
            if answer["decision"] is not None:
                return False, answer["decision"]["summary"]
            return True, answer["body"]

        return call

    def test_after_enough_green_releases_nobody_is_asked(self, release, asked, versions, promote, report, ask):
        release(versions[0], "1")
        is_asked, why = asked(versions[2])
        assert is_asked
        assert "1 release of 'churn' to 'champion' in a row is green; the policy approves by itself after 2." in why
        release(versions[1], "2")

        answer = ask(versions[2], key="later", evidence=[test := report(versions[2])], auto_approve=self.POLICY)

        decision = answer["decision"]
        assert (decision["by"], decision["passed"]) == ("policy green_runs=2", True)
        assert decision["summary"] == (
            "churn version 3 as churn@champion: Approved without asking: 2 releases of 'churn' to 'champion' in a row "
            "(since entry 1) were green, and the policy approves by itself after 2, as the evidence of this one passed."
        )
        assert promote(versions[2], key="3", evidence=[test, decision])["by"] == "policy green_runs=2"

    def test_a_rollback_begins_the_count_anew(self, release, asked, versions, as_task):
        release(versions[0], "1")
        release(versions[1], "2")
        rollback_model(as_task("back"), model_name="churn")

        is_asked, why = asked(versions[2])

        assert is_asked
        assert "0 releases of 'churn' to 'champion' in a row are green, counted from entry 3, a rollback;" in why

    def test_a_rejection_begins_the_count_anew(self, release, asked, versions, decide, as_task):
        release(versions[0], "1")
        release(versions[1], "2")
        decide(versions[2], key="no", decision="rejected", at=None)

        is_asked, why = asked(versions[2])

        assert is_asked
        assert "counted from a release that was rejected by ana" in why
        release(versions[0], "3")
        release(versions[1], "4")
        assert not asked(versions[2], "after")[0]

    def test_a_move_by_hand_and_a_promotion_without_evidence_begin_it_anew(
        self, release, asked, versions, promote, registered
    ):
        release(versions[0], "1")
        promote(versions[1], key="2", evidence=[])
        assert "counted from entry 2, which was promoted without evidence" in asked(versions[2])[1]
        registered.point("champion", 3)
        release(versions[0], "3")
        assert "counted from entry 3, a change outside the ledger" in asked(versions[2], "later")[1]

    def test_an_approval_counts_by_the_evidence_that_was_shown(self, asked, versions, decide, promote, report):
        shown = decide(versions[0], key="shown", evidence=[report(versions[0])])
        promote(versions[0], key="1", evidence=[shown])
        assert "1 release of 'churn'" in asked(versions[2], "a")[1]
        promote(versions[1], key="2", evidence=[decide(versions[1], key="nothing shown")])
        assert "counted from entry 2, which was promoted without evidence" in asked(versions[2], "b")[1]

    def test_a_warning_makes_a_person_look(self, release, asked, versions):
        release(versions[0], "1")
        release(versions[1], "2")

        is_asked, why = asked(versions[2], severity="warning")

        assert is_asked
        assert "A person is asked because the model test report has warnings." in why

    @pytest.mark.parametrize("wrong", [{"green_runs": 0}, {"green_run": 3}, {"green_runs": "many"}, 5])
    def test_a_policy_that_cannot_be(self, ask, versions, wrong):
        with pytest.raises(SpecError, match="auto_approve"):
            ask(versions[0], auto_approve=wrong)


def test_another_name_is_another_release(ask, decide, as_task, versions):
    decision = decide(versions[0], target={"to_name": "churn_production"})
    entry = promote_model(as_task("p"), model=versions[0], to_name="churn_production", evidence=[decision])

    assert (entry["model"], entry["version"], entry["by"]) == ("churn_production", 1, "ana")
