"""### MLOps level 4: monitoring drives retraining, testing and release

Every verdict of level 3 starts a run, and so do new data and a schedule. A policy decides, and says why in one
sentence. Then a challenger is trained on all rows whose labels have come, and released if it is better than the
champion, beyond chance, on days that neither has seen. If not, it is kept with the reason, and nothing moves. A release
is on probation: where the version before is shown to be better on what came since, it goes back by itself.

* The present of a run is what its events speak of, so months can be replayed. By hand: with a `clock`, and `force`.
* Triggers that come together are counted once each, and runs take turns. A task that is cleared finds what it did.
* `MLOPS_SERVER`: a challenger that won first answers a share of the requests there, and goes back if it does not hold.
* `airflow mlops decide flights_late` and `airflow mlops history flights_late` tell what was done, and why.
"""

from __future__ import annotations

import datetime as dt
import json
import os

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, Param, TaskGroup, task
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_mlops.notifications.gate import GateNotifier
from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.monitoring import AlertOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator, RollbackModelOperator
from airflow_mlops.operators.retraining import DecideRetrainingOperator
from airflow_mlops.operators.serving import DeployModelOperator
from airflow_mlops.operators.training import TrainModelOperator

DRIFT, PERFORMANCE, LANDED = Asset("flights_drift"), Asset("flights_performance"), Asset("flights_landed")
MONTHLY = CronTriggerTimetable("0 12 2 * *", timezone="UTC")
FOLDER = os.path.join(os.environ.get("AIRFLOW_HOME", os.path.expanduser("~/airflow")), "flights")
SERVER, CANARY = os.environ.get("MLOPS_SERVER"), json.loads(os.environ.get("MLOPS_CANARY", "{}"))
NAME, CHAMPION = "{{ params.model_name }}", "{{ params.model_name }}@champion"
FILES, EXPECTATIONS = "{{ params.folder }}/flights-*.parquet", "flights/expectations.yaml"
P95 = float(os.environ.get("MLOPS_P95_MS", "500"))
DEPLOY = {"server": SERVER, "checks": [{"kind": "example"}, {"kind": "offline"}, {"kind": "latency", "p95_ms": P95}]}
ROLES = {"key": "flight_id", "time": "scheduled_departure", "target": "late"}
NOW, REASON = "{{ ti.xcom_pull('clock') }}", "{{ ti.xcom_pull('decide')['reason'] }}"
POLICY = {
    "performance": {"metric": "roc_auc", "drop": 0.03, "windows": [2, 3]},
    "drift": {"share": 0.5, "windows": [3, 3]},  # by itself it warns
    "new_rows": 100_000,
    "max_age": "90d",
    "cooldown": "45d",
    "budget": {"runs": 5, "per": "300d"},
    "min_new_labels": 10_000,
}

with DAG(
    dag_id="mlops_level_4",
    schedule=AssetOrTimeSchedule(timetable=MONTHLY, assets=DRIFT | PERFORMANCE | LANDED),
    start_date=dt.datetime(2013, 5, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    max_active_runs=1,
    params={
        "clock": Param(None, type=["null", "string"], format="date", description="The present; empty: the events'"),
        "policy": Param(POLICY, type="object", description="When to train again"),
        "force": Param(False, type="boolean", description="Retrain whatever the policy says"),
        "hyperparameters": Param(None, type=["null", "object"], description="Empty: those of the champion"),
        "label_delay": Param("30d", type="string", description="How long labels take to come"),
        "folder": Param(FOLDER, type="string", description="Where the monthly files land"),
        "model_name": Param("flights_late", type="string", description="Name in the registry"),
    },
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": dt.timedelta(seconds=30), "on_failure_callback": GateNotifier()},
    doc_md=__doc__,
    tags=["mlops", "level-4"],
) as level_4:

    @task(doc_md="The present: of the parameters, else of the events, else of the schedule.")
    def clock(**context) -> str:
        from airflow_mlops.operators.window import clock_of

        now = clock_of(context, context["params"]["clock"])
        if not "2013-01" < now < "2014-02":
            raise AirflowSkipException("the example has flights of 2013 alone: trigger it with a clock of that year")
        return now

    # START probation
    with TaskGroup("probation", tooltip="Whether the last release was a mistake") as probation:

        @task.short_circuit(ignore_downstream_trigger_rules=False)
        def labels(triggering_asset_events: dict) -> bool:
            """Go on if labels have come; of drift alone there is nothing to compare."""
            events = [event for some in triggering_asset_events.values() for event in some]
            return not events or any(event.extra.get("settled") for event in events)

        compare = EvaluateModelOperator(
            task_id="compare",
            model="models:/" + CHAMPION,
            champion=CHAMPION,
            dataset=FILES,
            roles={**ROLES, "label_delay": "{{ params.label_delay }}"},
            tests=[{"kind": "previous", "metric": "roc_auc", "probation": "60d", "margin": 0.005}],
            clock=NOW,
            fail_on="never",
        )
        rollback = RollbackModelOperator(task_id="rollback", model_name=NAME, evidence=compare.output, clock=NOW)
        labels() >> compare >> rollback >> (over := EmptyOperator(task_id="over", trigger_rule="none_failed"))
        if SERVER:
            rollback >> DeployModelOperator(task_id="restore", model="models:/" + CHAMPION, **DEPLOY)
    # END probation

    (present := clock()) >> probation
    decide = DecideRetrainingOperator(
        task_id="decide",
        model_name=NAME,
        subject=NAME,
        policy="{{ params.policy }}",
        force="{{ params.force }}",
        clock=present,
        inlets=[DRIFT, PERFORMANCE, LANDED],  # an event may come too late for the run that it would have started
    )

    with TaskGroup("data", tooltip="One immutable, validated version of all rows whose labels have come"):

        @task
        def window(decision: dict, params: dict) -> dict:
            from airflow_mlops.core.policy.windows import training_window

            return training_window(decision["clock"], start="2013-01-01", label_delay=params["label_delay"])

        snapshot = SnapshotDataOperator(
            task_id="snapshot", source=FILES, name="flights", roles=ROLES, window=window(decide.output)
        )
        validate = ValidateDataOperator(task_id="validate", dataset=snapshot.output, expectations=EXPECTATIONS)

    with TaskGroup("model", tooltip="A challenger, and whether it is better"):
        train = TrainModelOperator(
            task_id="train",
            dataset=validate.output,
            trainer="flights.trainer:train",
            features="flights.features:features",
            hyperparameters="{{ params.hyperparameters or params.model_name ~ '@champion' }}",
            split={"by": "time", "test": "21d"},  # days are compared with days: 15 at least
        )
        test = EvaluateModelOperator(
            task_id="test",
            model=train.output,
            champion=CHAMPION,
            tests=[
                {"kind": "metric", "metric": "roc_auc", "min": 0.6},
                {"kind": "champion", "metric": "roc_auc", "require": "better"},
                {"kind": "anchor", "metric": "roc_auc", "margin": 0.01},
                *({"kind": kind} for kind in ("predictions", "signature", "load")),
            ],
            fail_on="never",  # to lose is no failure of the pipeline
        )
        register = RegisterModelOperator(
            task_id="register", model=train.output, model_name=NAME, evidence=[test.output], reason=REASON
        )
        over >> train  # with the settings of what serves then

    with TaskGroup("release", tooltip="Only for a challenger that won"):
        promote = PromoteModelOperator(
            task_id="promote",
            model=register.output,
            evidence="{{ ti.xcom_pull(['model.test', 'release.canary']) | select | list }}",
            clock="{{ ti.xcom_pull('decide')['clock'] }}",
            fail_on="never",
            trigger_rule="none_failed_min_one_success",  # it says why it refuses what has lost, too
        )
        if SERVER:

            @task.short_circuit(ignore_downstream_trigger_rules=False)
            def won(report: dict) -> bool:
                return report["passed"]

            how = {"strategy": "canary", "canary": CANARY, "capture": {"flush_seconds": 5}, "on_rollback": "skip"}
            canary = DeployModelOperator(task_id="canary", model=register.output, **how, **DEPLOY)
            won(test.output) >> canary >> promote

    AlertOperator(task_id="tell", reports=[test.output], subject=NAME, channels={"model_test": "digest"})
