"""### MLOps level 4: monitoring drives retraining, testing and release

Every verdict of level 3 starts a run, and so does a schedule. A policy decides and says why in one sentence. If it is
to be, a challenger is trained on all rows whose labels have come, tested against the champion on days that neither has
seen, and released if it is better beyond chance. If not, it stays in the registry with the reason, and nothing moves.

* The present of a run is the end of the period that its events speak of, so that months can be replayed. By hand:
  trigger it with a `clock`, and with `force` to retrain whatever the policy says.
* Triggers that come together are each counted once, and runs take turns: one retraining.
* `MLOPS_SERVER`: a challenger that won first answers a share of the requests there, and goes back if it does not hold.
* `airflow mlops decisions flights_late` and `airflow mlops history flights_late` tell what was done, and why.
* Clear a task, or run a day again: decision, data, model, version and release are those that there are.
"""

from __future__ import annotations

import datetime as dt
import json
import os

from airflow.sdk import DAG, Asset, Param, TaskGroup, task
from airflow.sdk.exceptions import AirflowSkipException
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_mlops.notifications.gate import GateNotifier
from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.monitoring import AlertOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mlops.operators.retraining import DecideRetrainingOperator
from airflow_mlops.operators.serving import DeployModelOperator
from airflow_mlops.operators.training import TrainModelOperator

DRIFT, PERFORMANCE = Asset("flights_drift"), Asset("flights_performance")
FOLDER = os.path.join(os.environ.get("AIRFLOW_HOME", os.path.expanduser("~/airflow")), "flights")
SERVER, CANARY = os.environ.get("MLOPS_SERVER"), json.loads(os.environ.get("MLOPS_CANARY", "{}"))
NAME, CHAMPION = "{{ params.model_name }}", "{{ params.model_name }}@champion"
REASON = "{{ ti.xcom_pull('decide')['reason'] }}"
# START policy
POLICY = {
    "performance": {"metric": "roc_auc", "drop": 0.03, "windows": [1, 2]},  # a month is long enough to be sure of
    "drift": {"share": 0.5, "windows": [2, 3]},  # by itself it warns
    "max_age": "60d",
    "cooldown": "30d",
    "budget": {"runs": 5, "per": "300d"},
    "min_new_labels": 10_000,
}
# END policy

with DAG(
    dag_id="mlops_level_4",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 12 2 * *", timezone="UTC"), assets=DRIFT | PERFORMANCE
    ),
    start_date=dt.datetime(2013, 5, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    max_active_runs=1,
    params={
        "clock": Param(None, type=["null", "string"], format="date", description="The present; empty: the events'"),
        "policy": Param(POLICY, type="object", description="When to train again"),
        "force": Param(False, type="boolean", description="Retrain whatever the policy says"),
        "hyperparameters": Param(None, type=["null", "object"], description="Empty: those of the champion"),
        "start": Param("2013-01-01", type="string", format="date", description="First day that there is data of"),
        "label_delay": Param("30d", type="string", description="How long labels take to come"),
        "folder": Param(FOLDER, type="string", description="Where the monthly files land"),
        "model_name": Param("flights_late", type="string", description="Name in the registry"),
    },
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": dt.timedelta(seconds=30), "on_failure_callback": GateNotifier()},
    doc_md=__doc__,
    tags=["mlops", "level-4"],
) as level_4:

    @task
    def clock(**context) -> str:
        """Return the present: that of the run's parameters, else of its events, else of its schedule."""
        from airflow_mlops.operators.window import clock_of

        now = clock_of(context, context["params"]["clock"])
        if not "2013-01" < now < "2014-02":
            raise AirflowSkipException("the example has flights of 2013 alone: trigger it with a clock of that year")
        return now

    # START decide
    decide = DecideRetrainingOperator(
        task_id="decide",
        model_name=NAME,
        subject=NAME,
        policy="{{ {'max_age': '1s'} if params.force else params.policy }}",
        trained_at="{{ params.start if params.force else '' }}",
        clock=clock(),
    )
    # END decide

    with TaskGroup("data", tooltip="One immutable, validated version of all rows whose labels have come") :

        @task
        def window(decision: dict, params: dict) -> dict:
            from airflow_mlops.core.policy.windows import training_window

            return training_window(
                decision["clock"], kind="expanding", start=params["start"], label_delay=params["label_delay"]
            )

        snapshot = SnapshotDataOperator(
            task_id="snapshot",
            source="{{ params.folder }}/flights-*.parquet",
            name="flights",
            roles={"key": "flight_id", "time": "scheduled_departure", "target": "late"},
            window=window(decide.output),
        )
        validate = ValidateDataOperator(
            task_id="validate", dataset=snapshot.output, expectations="flights/expectations.yaml"
        )

    with TaskGroup("model", tooltip="A challenger, and whether it is better"):
        # START challenger
        train = TrainModelOperator(
            task_id="train",
            dataset=validate.output,
            trainer="flights.trainer:train",
            features="flights.features:features",
            hyperparameters="{{ params.hyperparameters or params.model_name ~ '@champion' }}",
            split={"by": "time", "test": "21d"},  # days are compared with days: 15 at least
            experiment=NAME,
        )
        test = EvaluateModelOperator(
            task_id="test",
            model=train.output,
            champion=CHAMPION,
            report_name=NAME,
            tests=[
                {"kind": "metric", "metric": "roc_auc", "min": 0.6},
                {"kind": "champion", "metric": "roc_auc", "require": "better"},
                {"kind": "slices", "by": ["origin"], "metric": "roc_auc", "min": 0.55, "min_rows": 200},
                *({"kind": kind} for kind in ("predictions", "signature", "load")),
            ],
            fail_on="never",  # to lose is no failure of the pipeline
        )
        register = RegisterModelOperator(
            task_id="register",
            model=train.output,
            model_name=NAME,
            evidence=[test.output],
            tags={"mlops.reason": REASON},
        )
        # END challenger

    with TaskGroup("release", tooltip="Only for a challenger that won"):

        @task.short_circuit(ignore_downstream_trigger_rules=False)
        def won(report: dict) -> bool:
            print(report["summary"])
            return report["passed"]

        promote = PromoteModelOperator(task_id="promote", model=register.output, evidence=[test.output], reason=REASON)
        gate, reports = won(test.output), [test.output]
        register >> gate >> promote
        if SERVER:
            canary = DeployModelOperator(
                task_id="canary", model=register.output, server=SERVER, strategy="canary", canary=CANARY
            )
            gate >> canary >> promote
            reports.append(canary.output)

    # START tell
    tell = AlertOperator(
        task_id="tell",
        reports=reports,
        subject=NAME,
        channels={"model_test": "digest", "deployment": "digest"},  # nobody is paged, everybody can read why
        notifiers=[],
        trigger_rule="all_done_min_one_success",
    )
    test >> tell
    promote >> tell
    # END tell
