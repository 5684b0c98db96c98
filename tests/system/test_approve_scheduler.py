"""A person approves, rejects and takes back releases, through the REST API of a real Airflow."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import client, experiment_id, sqlite_uri

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ("approve_model.py", "release_to_production.py")
sys.path.insert(0, str(ROOT / "scripts"))


def trained(context: StepContext, frame: pd.DataFrame, noise: float) -> str:
    """Log a model with plain MLflow, as somebody else's script would."""
    rng = np.random.default_rng(1)
    features = frame[["age", "income"]]
    with mlflow.start_run(experiment_id=experiment_id(client(context, "the test"), context, "elsewhere")) as run:
        mlflow.log_param("noise", noise)
        mlflow.sklearn.log_model(
            LogisticRegression().fit(features + noise * rng.normal(size=features.shape), frame["churned"]),
            name="model",
            signature=mlflow.models.infer_signature(features, frame["churned"]),
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
    return f"runs:/{run.info.run_id}/model"


class Releases:
    """The runs of the example's DAGs."""

    def __init__(self, airflow: Any, customers: Path) -> None:
        self.airflow, self.customers = airflow, customers

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API; on a busy machine an answer may take longer than a request waits."""
        for _ in range(10):
            try:
                return self.airflow.api(method, path, body)
            except urllib.error.HTTPError as error:
                # What was not answered in time was done all the same.
                if error.code == 409 and method != "GET":
                    return None
                raise
            except OSError:
                time.sleep(1)
        raise AssertionError(f"Airflow does not answer; see {self.airflow.log}")

    def start(self, dag: str, **conf: Any) -> str:
        run = f"test-{uuid.uuid4().hex}"
        self.call("POST", f"/dags/{dag}/dagRuns", {"dag_run_id": run, "logical_date": None, "conf": conf})
        return f"/dags/{dag}/dagRuns/{run}"

    def until(self, path: str, done: Any, what: str) -> Any:
        end = time.monotonic() + 300
        while time.monotonic() < end:
            try:
                found = self.call("GET", path)
                if done(found):
                    return found
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
            time.sleep(0.5)
        raise AssertionError(f"not in time: {what}; see {self.airflow.log}")

    def asked(self, model: str) -> tuple[str, dict[str, Any]]:
        """Start a release and wait until a person is asked about it."""
        run = self.start("churn_approved", model=model, customers=str(self.customers))
        return run, self.question(run)

    def question(self, run: str) -> dict[str, Any]:
        """Wait until a person is asked."""
        task = f"{run}/taskInstances/approve"
        waiting = ("awaiting_input", "deferred", "success", "failed", "upstream_failed")
        found = self.until(task, lambda one: one["state"] in waiting, "the question")
        assert found["state"] in ("awaiting_input", "deferred"), found
        # Before its scheduler has seen that the worker is done, Airflow 3.3 takes a task that goes on for lost.
        seen = re.compile(f"TaskInstance Finished: .*task_id=approve, run_id={re.escape(run.rpartition('/')[2])}")
        end = time.monotonic() + 300
        while not seen.search(self.airflow.log.read_text()):
            assert time.monotonic() < end, f"the scheduler does not see that the task waits; see {self.airflow.log}"
            time.sleep(0.2)
        return dict(self.call("GET", f"{task}/-1/hitlDetails"))

    def answer(self, run: str, option: str, reason: str) -> dict[str, Any]:
        """Answer, and return the run's end."""
        body = {"chosen_options": [option], "params_input": {"reason": reason}}
        self.call("PATCH", f"{run}/taskInstances/approve/-1/hitlDetails", body)
        return self.ended(run)

    def ended(self, run: str) -> dict[str, Any]:
        state = self.until(run, lambda one: one["state"] in ("success", "failed"), "the end of the run")["state"]
        tasks = self.call("GET", f"{run}/taskInstances")["task_instances"]
        return {"state": state, **{task["task_id"]: (task["state"], task["try_number"]) for task in tasks}}


def airflow_logs(airflow: Any, dag: str, task: str) -> str:
    """Return what the tries of a task logged."""
    folder = Path(airflow.home) / "logs"
    return "".join(path.read_text() for path in folder.rglob("*.log") if dag in str(path) and task in str(path))


@pytest.mark.scheduler
@pytest.mark.timeout(900)
def test_approved_rejected_and_rolled_back(migrated_database: Path, tmp_path: Path) -> None:
    from airflow_home import Airflow

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(600, 2)), columns=["age", "income"])
    frame["churned"] = (frame["age"] + 0.3 * rng.normal(size=600) > 0).astype("int64")
    frame["region"] = np.where(rng.random(600) < 0.4, "north", "south")
    frame.to_parquet(tmp_path / "customers.parquet", index=False)
    dags, home = tmp_path / "dags", tmp_path / "home" / "mlops"
    dags.mkdir()
    home.mkdir(parents=True)
    for example in EXAMPLES:
        shutil.copy(ROOT / "tests" / "examples" / example, dags)
    impatient = (ROOT / "tests" / "examples" / EXAMPLES[0]).read_text().partition("# END approve")[0]
    impatient = impatient.replace('"churn_approved"', '"churn_impatient"').replace(
        "duration(days=2)", "duration(seconds=10)"
    )
    (dags / "impatient.py").write_text(impatient)
    shutil.copy(migrated_database, home / "mlflow.db")
    context = StepContext(store=LocalStore(home / "store"), tracking_uri=sqlite_uri(home / "mlflow.db"))
    first, second, third = (trained(context, frame, noise) for noise in (0.5, 0.1, 0.9))

    airflow = Airflow(tmp_path / "home", dags)
    with airflow.running(timeout=600):
        for dag in ("churn_approved", "churn_back", "churn_to_production"):
            airflow.wait_for_dag(dag)
        releases = Releases(airflow, tmp_path / "customers.parquet")
        run, question = releases.asked(first)
        assert question["subject"] == "Release churn version 1 as churn@champion?"
        assert "which no version has yet" in question["body"]
        assert f"[model test]({airflow.url}/mlops/reports/churn_approved/test/" in question["body"]
        assert "0 releases of 'churn' to 'champion' in a row are green" in question["body"]
        assert question["assigned_users"] == [{"id": "admin", "name": "admin"}]
        assert releases.answer(run, "Approve", "first of its kind")["state"] == "success"

        run, question = releases.asked(second)
        assert "| noise | `0.1` | `0.5` |" in question["body"]
        assert "| `roc_auc` |" in question["body"]
        assert "`region` | north |" in question["body"]
        assert releases.answer(run, "Approve", "better")["state"] == "success"

        run, _ = releases.asked(third)
        end = releases.answer(run, "Reject", "noisier")
        assert (end["state"], end["approve"], end["promote"][0]) == ("failed", ("failed", 1), "upstream_failed")

        # Nobody answers this one: it is not asked again by itself, and nothing is released.
        airflow.wait_for_dag("churn_impatient")
        customers = str(tmp_path / "customers.parquet")
        end = releases.ended(releases.start("churn_impatient", model=third, customers=customers))
        assert (end["state"], end["approve"], end["promote"][0]) == ("failed", ("failed", 1), "upstream_failed")
        assert "nobody answered in time" in airflow_logs(airflow, "churn_impatient", "approve")

        assert releases.ended(releases.start("churn_back", why="late by 20% more"))["state"] == "success"
        airflow.wait_for_dag("churn_archived")
        archived = releases.start("churn_archived")
        production = releases.start("churn_to_production", version=2)
        assert "churn version 2" in releases.question(production)["subject"]
        end = releases.answer(production, "Approve", "two weeks in staging")
        assert end["state"] == "success", end
        assert releases.ended(archived)["state"] == "success"
        cards = releases.call("GET", f"{production}/taskInstances/production/links")["extra_links"]
        request = urllib.request.Request(cards["Model card"], headers={"Authorization": f"Bearer {airflow.token}"})
        page = urllib.request.urlopen(request, timeout=300).read().decode()
        assert "Model card: churn_production version 1" in page
        assert "two weeks in staging" in page
        report = releases.call("GET", f"{run}/taskInstances/approve/links")["extra_links"]
        assert "/mlops/reports/churn_approved/approve/" in report["Report"]
        rows = json.loads(airflow.cli("mlops", "history", "churn", "--output", "json").stdout.splitlines()[-1])
        status = json.loads(airflow.cli("mlops", "status", "--output", "json").stdout.splitlines()[-1])
    standing = {(row["model"], row["alias"]): row["version"] for row in status}
    assert standing == {("churn", "champion"): 1, ("churn_production", "champion"): 1, ("churn_staging", "champion"): 1}
    assert [(row["action"], row["version"], row["by"], row["reason"]) for row in rows] == [
        ("promote", 1, "admin", "first of its kind"),
        ("promote", 2, "admin", "better"),
        ("rollback", 1, "admin", "late by 20% more"),
    ]
