"""### MLOps level 1: the pipeline is automated, the release is by hand

Snapshot the data, validate it, train, test against the champion, register. A person then looks at the report and
promotes the version: with `airflow mlops promote flights_late VERSION`, or by running `mlops_level_1_promote`.

* **Schema skew** (a column gone or of another type) stops the run. **Value skew** is recorded, and training goes on.
* It runs on a schedule, on new data (the asset `flights_landed`), and on demand with parameters of your own.
* Clear a task and it picks up what is already done; nothing is trained, registered or promoted twice.
"""

from __future__ import annotations

import datetime as dt
import os

from airflow.sdk import DAG, Asset, Param, TaskGroup, task
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_mlops.notifications.gate import GateNotifier
from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mlops.operators.training import TrainModelOperator

LANDED = Asset("flights_landed")
SNAPSHOT = Asset("flights_snapshot")
FOLDER = os.path.join(os.environ.get("AIRFLOW_HOME", os.path.expanduser("~/airflow")), "flights")
CHAMPION = "{{ params.model_name }}@champion"

with DAG(
    dag_id="mlops_level_1",
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("0 6 2 * *", timezone="UTC"), assets=[LANDED]),
    start_date=dt.datetime(2013, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    max_active_runs=1,
    render_template_as_native_obj=True,
    params={
        "start": Param("2013-01-01", type="string", format="date", description="First day of the data"),
        "end": Param("2013-03-01", type="string", format="date", description="The day after the last one"),
        "folder": Param(FOLDER, type="string", description="Where the monthly files land"),
        "model_name": Param("flights_late", type="string", description="Name in the registry"),
        "max_iter": Param(100, type="integer", minimum=1, maximum=2000, description="Boosting rounds"),
        "min_auc": Param(0.6, type="number", minimum=0, maximum=1, description="Least ROC AUC on the test rows"),
    },
    default_args={"retries": 2, "retry_delay": dt.timedelta(seconds=30), "on_failure_callback": GateNotifier()},
    doc_md=__doc__,
    tags=["mlops", "level-1"],
) as level_1:
    with TaskGroup("data", tooltip="One immutable, validated version of the data"):

        @task(doc_md="Stands in for whatever brings your data: the months' files, unless they are there already.")
        def land(params: dict) -> list[str]:
            from flights.source import land as land_months

            return land_months(params["start"], params["end"], params["folder"])

        snapshot = SnapshotDataOperator(
            task_id="snapshot",
            source=land(),
            name="flights",
            roles={"key": "flight_id", "time": "scheduled_departure", "target": "late"},
            window={"start": "{{ params.start }}", "end": "{{ params.end }}"},
            outlet=SNAPSHOT,
        )
        validate = ValidateDataOperator(
            task_id="validate", dataset=snapshot.output, expectations="flights/expectations.yaml"
        )

    with TaskGroup("model", tooltip="A model that has earned its place in the registry"):
        train = TrainModelOperator(
            task_id="train",
            dataset=validate.output,
            trainer="flights.trainer:train",
            features="flights.features:features",
            hyperparameters={"max_iter": "{{ params.max_iter }}"},
            split={"by": "time", "test": "21d"},  # days are compared with days: 15 at least
            experiment="{{ params.model_name }}",
        )
        test = EvaluateModelOperator(
            task_id="test",
            model=train.output,
            champion=CHAMPION,
            report_name="{{ params.model_name }}",
            tests=[
                {"kind": "metric", "metric": "roc_auc", "min": "{{ params.min_auc }}"},
                {"kind": "champion", "metric": "roc_auc", "require": "not_worse", "margin": 0.01},
                {"kind": "slices", "by": ["origin"], "metric": "roc_auc", "min": 0.55, "min_rows": 200},
                {"kind": "signature"},
                {"kind": "load"},
                {"kind": "latency", "p95_ms": 200, "severity": "warning"},  # a worker is not the server
                {"kind": "size", "max_mb": 50},
            ],
        )
        register = RegisterModelOperator(
            task_id="register", model=train.output, model_name="{{ params.model_name }}", evidence=[test.output]
        )

with DAG(
    dag_id="mlops_level_1_promote",
    schedule=None,
    params={
        "model_name": Param("flights_late", type="string", description="Name in the registry"),
        "version": Param(1, type="integer", minimum=1, description="The version that is to serve"),
        "reason": Param("", type="string", description="Why; kept in the ledger"),
    },
    default_args={"on_failure_callback": GateNotifier()},
    doc_md="### Release by hand\nMakes a registered version the champion. `airflow mlops history` shows every release.",
    tags=["mlops", "level-1"],
) as promote:
    PromoteModelOperator(
        task_id="promote",
        model="models:/{{ params.model_name }}/{{ params.version }}",
        alias="champion",
        reason="{{ params.reason }}",
    )
