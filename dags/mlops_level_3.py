"""### MLOps level 3: what serves is watched, and people hear of what deserves it

Each month: the data that came is validated, scored by the champion, and held against the data that the champion was
trained on; what the model says is held against what it said before; months whose labels have come are measured, the
newest one is estimated until then. Every figure is a point in a history (`airflow mlops history flights_late`), every
verdict an event of an asset, and one alert is one incident.

* **Features that drift** are news, in a digest. **Broken data**, **predictions** unlike those before and a **loss of
  performance** alert. Nothing retrains yet: that is level 4.
* Thresholds of drift are learnt from the weeks of the champion's own data, not taken from a textbook.
* Labels may be late: a month is measured once its labels have had `label_delay` to come, and nothing waits for them.
* Run it for a month again, or clear a task: the month's predictions, report and figures are replaced, never doubled.
"""

from __future__ import annotations

import datetime as dt
import os

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import DAG, Asset, Param, TaskGroup, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_mlops.notifications.gate import GateNotifier
from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.operators.monitoring import AlertOperator, DetectDriftOperator, MonitorPerformanceOperator
from airflow_mlops.operators.serving import BatchPredictOperator

FOLDER = os.path.join(os.environ.get("AIRFLOW_HOME", os.path.expanduser("~/airflow")), "flights")
NAME, CHAMPION = "{{ params.model_name }}", "{{ params.model_name }}@champion"
START = "{{ params.start or (data_interval_start | ds) }}"
END = "{{ params.end or (data_interval_end | ds) }}"
WINDOW = {"start": START, "end": END}
DRIFT, PERFORMANCE = Asset("flights_drift"), Asset("flights_performance")

with DAG(
    dag_id="mlops_level_3",
    schedule=CronDataIntervalTimetable("0 6 1 * *", timezone="UTC"),
    start_date=dt.datetime(2013, 4, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    max_active_runs=1,
    params={
        "start": Param(None, type=["null", "string"], format="date", description="First day; empty: the interval's"),
        "end": Param(None, type=["null", "string"], format="date", description="The day after the last one"),
        "folder": Param(FOLDER, type="string", description="Where the monthly files land"),
        "model_name": Param("flights_late", type="string", description="Name in the registry"),
        "label_delay": Param("30d", type="string", description="How long labels take to come"),
        "max_drop": Param(0.05, type="number", minimum=0, description="Loss of ROC AUC that alerts"),
    },
    render_template_as_native_obj=True,
    default_args={"retries": 2, "retry_delay": dt.timedelta(seconds=30), "on_failure_callback": GateNotifier()},
    doc_md=__doc__,
    tags=["mlops", "level-3"],
) as level_3:
    with TaskGroup("data", tooltip="What came, and whether it is whole"):

        @task(doc_md="Stands in for whatever brings your data: the month's file, unless it is there already.")
        def land(start: str, end: str, folder: str) -> list[str]:
            from flights.source import land as land_months

            if not start.startswith("2013"):
                raise AirflowSkipException(
                    "the example has flights of 2013 alone: trigger it with a month of that year"
                )
            return land_months(start, end, folder)

        # START quality
        snapshot = SnapshotDataOperator(
            task_id="snapshot",
            source=land(START, END, "{{ params.folder }}"),
            name="flights_scored",
            roles={"key": "flight_id", "time": "scheduled_departure", "target": "late"},
            window=WINDOW,
        )
        quality = ValidateDataOperator(
            task_id="quality", dataset=snapshot.output, expectations="flights/expectations.yaml", fail_on="never"
        )
        # END quality

    with TaskGroup("model", tooltip="What the champion says, and how right it was"):
        # START monitors
        predict = BatchPredictOperator(
            task_id="predict",
            model="models:/" + CHAMPION,
            dataset=snapshot.output,
            log_name=NAME,
            columns=["origin"],
            window=WINDOW,
        )
        features = DetectDriftOperator(
            task_id="features",
            current=snapshot.output,
            reference=CHAMPION,
            thresholds="learn",
            block="7d",
            subject=NAME,
            window=WINDOW,
            report="drifted",
            outlet=DRIFT,
        )
        predictions = DetectDriftOperator(
            task_id="predictions",
            current=predict.output,
            reference={"history": 3},
            columns={"prediction_probability": {"test": "psi", "threshold": 0.25}},
            predictions="prediction_probability",
            subject=NAME + "-predictions",
            window=WINDOW,
        )
        performance = MonitorPerformanceOperator(
            task_id="performance",
            predictions=predict.output,
            labels="{{ params.folder }}/flights-*.parquet",
            target="late",
            roles={"key": "flight_id"},
            label_delay="{{ params.label_delay }}",
            metrics=["roc_auc", "log_loss"],
            max_drop={"roc_auc": "{{ params.max_drop }}"},
            slices=["origin"],
            subject=NAME,
            window=WINDOW,
            outlet=PERFORMANCE,
        )
        # END monitors

    # START alert
    AlertOperator(
        task_id="alert",
        reports=[quality.output, features.output, predictions.output, performance.output],
        subject=NAME,
        notifiers=[],  # such as SmtpNotifier(to=..., subject="{{ mlops_subject }}", html_content="{{ mlops_html }}")
        trigger_rule="none_skipped",  # whatever the monitors came to, if there was data
    )
    # END alert
