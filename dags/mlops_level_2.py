"""### MLOps level 2: a change in code is tested, trained, approved and released

A commit on the watched ref starts a run, or any CI does through Airflow's REST API. The project's own tests run in an
environment of the commit, and the model is trained there, from its code. It carries the sha, has to hold against the
champion, goes to `staging`, waits for a person, is deployed where there is a server, and is the champion then.

* `MLOPS_REPOSITORY` (URL or path), `MLOPS_REF`, `MLOPS_GIT_CONN_ID` in Airflow's environment say what is watched.
* Optional: `MLOPS_SERVER`, a server (`airflow mlops serve` runs); `MLOPS_BASE_IMAGE`, to train in an image per commit.
* Back in one step: `airflow mlops rollback flights_late`; `mlops_level_2_serve` then deploys what is the champion.
"""

from __future__ import annotations

import datetime as dt
import os

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Asset, AssetWatcher, Param, TaskGroup, task

from airflow_mlops.notifications.gate import GateNotifier
from airflow_mlops.operators.approval import ApproveModelOperator
from airflow_mlops.operators.code import CheckoutCodeOperator
from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mlops.operators.serving import BuildImageOperator, DeployModelOperator
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.sensors.serving import ModelServerSensor
from airflow_mlops.triggers.code import CodeChangeEventTrigger

REPOSITORY, REF = os.environ.get("MLOPS_REPOSITORY") or None, os.environ.get("MLOPS_REF", "main")
GIT_CONN_ID, BASE_IMAGE = os.environ.get("MLOPS_GIT_CONN_ID") or None, os.environ.get("MLOPS_BASE_IMAGE")
P95, POLL = float(os.environ.get("MLOPS_P95_MS", "500")), float(os.environ.get("MLOPS_POLL_SECONDS", "60"))
CHECKS = [{"kind": "example"}, {"kind": "offline"}, {"kind": "latency", "p95_ms": P95}]
FOLDER = os.path.join(os.environ.get("AIRFLOW_HOME", os.path.expanduser("~/airflow")), "flights")
NAME, SERVER = "{{ params.model_name }}", os.environ.get("MLOPS_SERVER")
WINDOW = {"start": "2013-01-01", "end": "2013-04-01"}
CODE = Asset("flights_code")
if REPOSITORY or GIT_CONN_ID:
    commits = CodeChangeEventTrigger(repository=REPOSITORY, ref=REF, git_conn_id=GIT_CONN_ID, poll_interval=POLL)
    CODE = Asset("flights_code", watchers=[AssetWatcher(name="commits", trigger=commits)])
PATH, PYTHON, SHA = (f"{{{{ ti.xcom_pull('ci.checkout')['{name}'] }}}}" for name in ("path", "python", "sha"))
BECAUSE = f"commit {SHA}"

with DAG(
    dag_id="mlops_level_2",
    schedule=[CODE],
    max_active_runs=4,  # one may wait for its approval while the next is tested
    params={
        "sha": Param(None, type=["null", "string"], pattern="^[0-9a-f]{40}$", description="Commit; empty: the event's"),
        "repository": Param(REPOSITORY, type=["null", "string"], description="URL or path"),
        "model_name": (MODEL_NAME := Param("flights_late", type="string", description="Name in the registry")),
    },
    default_args={"retries": 2, "retry_delay": dt.timedelta(seconds=30), "on_failure_callback": GateNotifier()},
    doc_md=__doc__,
    tags=["mlops", "level-2"],
) as level_2:
    with TaskGroup("ci", tooltip="The commit, and whether it passes its own tests"):
        # START ci
        code = CheckoutCodeOperator(
            task_id="checkout",
            repository="{{ params.repository or '' }}",
            ref=REF,
            sha="{{ params.sha or '' }}",
            git_conn_id=GIT_CONN_ID,
            requirements="flights/requirements.txt",
        )
        tests = BashOperator(
            task_id="tests",
            bash_command='"$PYTHON" -m unittest discover --start-directory flights/tests --top-level-directory .',
            cwd=PATH,
            env={"PYTHON": PYTHON, "PATH": os.environ.get("PATH", os.defpath), "OMP_NUM_THREADS": "1"},
            retries=0,  # a commit that fails its tests fails them again
        )
        # END ci
        runtime, origin = {"python": PYTHON, "code": [PATH]}, code.output
        if BASE_IMAGE:
            image = BuildImageOperator(
                task_id="image",
                context=code.output,
                tag="flights:" + SHA,
                dockerfile="flights/Dockerfile",
                build_args={"BASE": BASE_IMAGE, "INSTALL": os.environ.get("MLOPS_IMAGE_INSTALL", "true")},
            )
            runtime, origin = {"image": image.output["id"], "code": [PATH]}, [code.output, image.output]

    with TaskGroup("data", tooltip="One immutable, validated version of the data"):

        @task(doc_md="Stands in for whatever brings your data.")
        def land() -> list[str]:
            from flights.source import land as land_months

            return land_months(**WINDOW, folder=FOLDER)

        snapshot = SnapshotDataOperator(
            task_id="snapshot",
            source=land(),
            name="flights",
            roles={"key": "flight_id", "time": "scheduled_departure", "target": "late"},
            window=WINDOW,
        )
        validate = ValidateDataOperator(
            task_id="validate", dataset=snapshot.output, expectations=PATH + "/flights/expectations.yaml"
        )
        code >> tests >> snapshot

    with TaskGroup("model", tooltip="A model of this commit that has earned its place in the registry"):
        train = TrainModelOperator(
            task_id="train",
            dataset=validate.output,
            trainer="flights.trainer:train",
            features="flights.features:features",
            split={"by": "time", "test": "21d"},
            runtime=runtime,
            code=origin,
        )
        test = EvaluateModelOperator(
            task_id="test",
            model=train.output,
            champion=NAME + "@champion",
            runtime=runtime,
            tests=[
                {"kind": "metric", "metric": "roc_auc", "min": 0.6},
                {"kind": "champion", "metric": "roc_auc", "require": "not_worse", "margin": 0.01},
                {"kind": "slices", "by": ["origin"], "metric": "roc_auc", "min": 0.55, "min_rows": 200},
                *({"kind": kind} for kind in ("predictions", "contract", "load")),
                {"kind": "latency", "p95_ms": P95, "severity": "warning"},  # a worker is not the server
                {"kind": "throughput", "min_rows_per_second": 1000, "severity": "warning"},
            ],
        )
        register = RegisterModelOperator(
            task_id="register", model=train.output, model_name=NAME, evidence=[test.output]
        )

    with TaskGroup("release", tooltip="Staging, a person's word, production"):
        staging = PromoteModelOperator(task_id="staging", model=register.output, alias="staging", reason=BECAUSE)
        approve = ApproveModelOperator(task_id="approve", model=register.output, evidence=[test.output])
        champion = PromoteModelOperator(
            task_id="champion", model=register.output, evidence=[test.output, approve.output], reason=BECAUSE
        )
        staging >> approve >> champion
        if SERVER:
            deploy = DeployModelOperator(task_id="deploy", model=register.output, server=SERVER, checks=CHECKS)
            smoke = ModelServerSensor(task_id="smoke", server=SERVER, model=register.output, timeout=600)
            approve >> deploy >> smoke >> champion

if SERVER:
    with DAG("mlops_level_2_serve", schedule=None, params={"model_name": MODEL_NAME}) as serve:
        DeployModelOperator(task_id="deploy", model="models:/" + NAME + "@champion", server=SERVER, checks=CHECKS)
