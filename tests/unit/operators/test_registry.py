"""RegisterModelOperator's and PromoteModelOperator's shell: arguments, links, which errors Airflow retries."""

from __future__ import annotations

import http.server
import json
import logging
import runpy
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from airflow_mlops.core import digests
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import client, sqlite_uri
from airflow_mlops.exceptions import MlopsFailed, MlopsGateFailed, MlopsSuperseded, MlopsUnavailable
from airflow_mlops.links.model import MLflowRunLink, ModelVersionLink
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator, RollbackModelOperator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def context(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> StepContext:
    """The embedded back end; ``log_model`` logs there."""
    home = tmp_path / "mlops"
    home.mkdir()
    shutil.copy(migrated_database, home / "mlflow.db")
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(home))
    monkeypatch.setenv("AIRFLOW__MLOPS__MLFLOW_UI_URL", "https://mlflow.example.com/")
    return StepContext(store=LocalStore(home / "store"), tracking_uri=sqlite_uri(home / "mlflow.db"))


def task(run_id: str = "r") -> Any:
    """What a task is given, as far as the operators read it."""
    ti = SimpleNamespace(dag_id="churn", run_id=run_id, task_id="t", map_index=-1, try_number=1)
    return {"ti": ti, "dag_run": SimpleNamespace(run_type="manual", triggering_user_name="ana")}


def test_register_then_promote(context, log_model):
    register = RegisterModelOperator(task_id="t", model=log_model(), model_name="churn", tags={"team": "growth"})
    ref = register.execute(task())
    promote = PromoteModelOperator(task_id="t", model=ref, reason="why not")
    entry = promote.execute(task())

    assert (ref["kind"], ref["version"], ref["uri"]) == ("model", 1, "models:/churn/1")
    assert (entry["kind"], entry["seq"], entry["by"], entry["reason"]) == ("ledger_entry", 1, "ana", "why not")
    assert entry["run"]["dag_id"] == "churn"
    json.dumps([ref, entry], allow_nan=False)


def test_the_links_lead_to_the_version_and_the_run(context, log_model):
    register = RegisterModelOperator(task_id="t", model=log_model(), model_name="churn")
    ref = register.execute(task())
    promote = PromoteModelOperator(task_id="t", model=ref)
    promote.execute(task())

    version = "https://mlflow.example.com/#/models/churn/versions/1"
    for operator in (register, promote):
        assert ModelVersionLink() in operator.operator_extra_links
        assert ModelVersionLink().get_link(operator, ti_key=None) == version
    assert ref["run_id"] in MLflowRunLink().get_link(register, ti_key=None)


def test_every_argument_can_be_templated(context, log_model):
    from airflow.sdk import DAG

    with DAG("d", schedule=None):
        promote = PromoteModelOperator(
            task_id="t",
            model="models:/{{ params.name }}/{{ params.version }}",
            expected_champion="{{ params.expected }}",
            alias="{{ params.alias }}",
            reason="{{ params.why }}",
        )
    RegisterModelOperator(task_id="t", model=log_model(), model_name="churn").execute(task())
    params = {"name": "churn", "version": 1, "expected": "none", "alias": "shadow", "why": "tried out"}
    promote.render_template_fields({"params": params})

    entry = promote.execute(task())

    assert (entry["alias"], entry["version"], entry["reason"]) == ("shadow", 1, "tried out")


@pytest.mark.parametrize("operator", [RegisterModelOperator, PromoteModelOperator])
def test_template_fields_are_all_arguments(operator):
    assert isinstance(operator.template_fields, tuple)
    assert set(operator.step_arguments) <= set(operator.template_fields)


def test_what_airflow_retries(context, log_model):
    for weights in "123":
        RegisterModelOperator(task_id="t", model=log_model(weights), model_name="churn").execute(task(weights))
    PromoteModelOperator(task_id="t", model="churn/1").execute(task("old"))
    PromoteModelOperator(task_id="t", model="churn/2").execute(task("new"))

    with pytest.raises(MlopsSuperseded, match="superseded by entry 2"):
        PromoteModelOperator(task_id="t", model="churn/1").execute(task("old"))
    with pytest.raises(MlopsFailed, match="ConflictError: 'champion' of 'churn' is version 2"):
        PromoteModelOperator(task_id="t", model="churn/3", expected_champion=1).execute(task("late"))
    failed = {"kind": "model_test", "passed": False, "severity": "error", "summary": "AUC 0.6.", "subject": "x"}
    with pytest.raises(MlopsGateFailed, match=r"AUC 0\.6"):
        PromoteModelOperator(task_id="t", model="churn/3", evidence=[failed]).execute(task("failed"))


@pytest.fixture
def refusing_server() -> Iterator[Any]:
    """A server that answers with the status that its ``status`` says."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(self.server.status)  # type: ignore[attr-defined]
            self.end_headers()
            self.wfile.write(b"no")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("status", "error"), [(401, MlopsFailed), (500, MlopsUnavailable)])
def test_secrets_are_in_no_error_and_no_log(context, refusing_server, monkeypatch, caplog, status, error):
    refusing_server.status = status
    secret = "pa/ss wörd-7"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv(
        "AIRFLOW_CONN_OURS",
        json.dumps(
            {
                "conn_type": "mlflow",
                "host": "127.0.0.1",
                "port": refusing_server.server_address[1],
                "login": "ana",
                "password": secret,
            }
        ),
    )
    for operator in (
        RegisterModelOperator(task_id="t", model="models:/m-1f", model_name="churn", mlflow_conn_id="ours"),
        PromoteModelOperator(task_id="t", model="churn/1", mlflow_conn_id="ours"),
    ):
        with caplog.at_level(logging.DEBUG), pytest.raises(error) as raised:
            operator.execute(task())
        shown = f"{raised.value!r} {raised.value.__cause__!r} {caplog.text}"
        assert f"127.0.0.1:{refusing_server.server_address[1]}" in str(raised.value)
        for form in (secret, "pa%2Fss", "w%C3%B6rd-7"):
            assert form not in shown


def test_a_models_file_beside_the_dag_is_adopted(context, tmp_path):
    import skops.io
    from sklearn.dummy import DummyClassifier

    (tmp_path / "models").mkdir()
    skops.io.dump(DummyClassifier().fit([[0], [1]], [0, 1]), tmp_path / "models" / "churn.skops")
    given = {**task(), "dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py"))}

    register = RegisterModelOperator(task_id="t", model="models/churn.skops", model_name="churn", trust="unverified")
    ref = register.execute(given)

    assert (ref["version"], ref["code"]["trust"]) == (1, "unverified")
    assert ref["code"]["adopted_from"] == str(tmp_path / "models" / "churn.skops")
    named = RegisterModelOperator(task_id="t", model="churn/1", model_name="other")
    assert named.arguments(given)["model"] == "churn/1"
    with pytest.raises(ValueError, match="trust must be 'recorded', 'unverified' or 'pickle'"):
        RegisterModelOperator(task_id="t", model="churn/1", model_name="other", trust="yes")


def test_a_challenger_that_lost_is_skipped_with_the_reason_or_fails(context, log_model):
    from airflow.providers.common.compat.sdk import AirflowSkipException

    report = {"kind": "model_test", "passed": False, "severity": "error", "summary": "AUC fell."}
    ref = RegisterModelOperator(task_id="t", model=log_model(), model_name="churn", evidence=[report]).execute(task())
    pushed: dict[str, Any] = {}
    given = task()
    given["ti"].xcom_push = lambda key, value: pushed.update({key: value})

    with pytest.raises(AirflowSkipException, match="churn version 1 is not promoted: the model test did not pass: AUC"):
        PromoteModelOperator(task_id="t", model=ref, fail_on="never").execute(given)
    assert pushed["return_value"]["kind"] == "refusal"
    with pytest.raises(MlopsGateFailed):
        PromoteModelOperator(task_id="t", model=ref).execute(task())
    with pytest.raises(ValueError, match="fail_on must be"):
        PromoteModelOperator(task_id="t", model=ref, fail_on="warning")


def test_a_rollback_that_nothing_asks_for_is_skipped(context, log_model):
    from airflow.providers.common.compat.sdk import AirflowSkipException

    ref = RegisterModelOperator(task_id="t", model=log_model(), model_name="churn").execute(task())
    PromoteModelOperator(task_id="t", model=ref).execute(task())
    details = {"tests": [{"kind": "previous", "passed": True, "message": "Cannot tell", "name": "auc"}]}
    details["probation"] = {"alias": "churn@champion", "entry": 1, "version": 1}
    context.store.put_json("reports/details.json", details)
    report = {
        **{"kind": "model_test", "passed": True, "severity": "ok", "summary": "", "probation": details["probation"]},
        **{"details_uri": context.store.uri_of("reports/details.json"), "digest": digests.of_json(details)},
    }
    given = task()
    given["ti"].xcom_push = lambda key, value: None
    with pytest.raises(AirflowSkipException, match="churn@champion stays: Cannot tell"):
        RollbackModelOperator(task_id="t", model_name="churn", evidence=report).execute(given)
    with pytest.raises(ValueError, match="either evidence"):
        RollbackModelOperator(task_id="t", model_name="churn", evidence=report, to_version=1)


def test_the_example_puts_somebody_elses_version_on_record(context, log_model, tmp_path):
    ref = log_model(record=False)
    api = client(context, "the test")
    api.create_registered_model("churn")
    api.create_model_version("churn", ref["uri"], run_id=ref["run_id"], model_id=ref["model_id"])
    api.set_registered_model_alias("churn", "champion", "1")
    days = pd.date_range("2026-01-01", periods=60, freq="D", tz="UTC")
    pd.DataFrame({"customer_id": range(60), "seen_at": days, "calls": range(60)}).to_parquet(tmp_path / "rows.parquet")
    adopt = runpy.run_path(str(EXAMPLES / "adopt_model.py"))["dag"].get_task("adopt")
    params = {"model": "models:/churn@champion", "trained_on": str(tmp_path / "*.parquet")}
    adopt.render_template_fields({"params": params})

    ref = adopt.execute(task())

    assert (ref["version"], ref["baseline"]) == (1, {"roc_auc": 0.9})
    assert context.store.key_of(ref["profile_uri"]) in list(context.store.keys("profiles"))
    assert api.get_registered_model("churn").aliases == {"champion": 1}
