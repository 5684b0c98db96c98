"""A model that somebody else trained and serves. All there is of it here is a table of what it said, on S3."""

from __future__ import annotations

# START watch
import pendulum
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, Param
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_mlops.operators.monitoring import AlertOperator, DetectDriftOperator, MonitorPerformanceOperator

with DAG(
    "churn_inference_watched",
    schedule=CronDataIntervalTimetable("0 6 1 * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1),
    catchup=False,
    params={"lake": Param("s3://lake/churn", type="string")},
    default_args={"aws_conn_id": "lake", "owner": "growth", "retries": 2, "retry_delay": pendulum.duration(seconds=1)},
):
    # Each month against the time when all was well, by thresholds that its own weeks give.
    drift = DetectDriftOperator(
        task_id="drift",
        current="{{ params.lake }}/inference/*.parquet",
        reference="{{ params.lake }}/when-it-was-well/*.parquet",
        roles={"key": "request_id", "time": "asked_at"},
        thresholds="learn",
        block="7d",
        predictions="score",
        subject="churn:7",
        window="data_interval",
    )
    # What came true is known four weeks later: each run settles the months whose time has come.
    performance = MonitorPerformanceOperator(
        task_id="performance",
        predictions={
            "uri": "{{ params.lake }}/inference/*.parquet",
            "format": "parquet",
            "columns": {"key": "request_id", "time": "asked_at", "probability": "score"},
        },
        labels="{{ params.lake }}/outcomes/*.parquet",
        roles={"key": "request_id"},
        target="churned",
        label_delay="28d",
        metrics=["roc_auc", "log_loss"],
        baseline={"roc_auc": 0.85},
        max_drop={"roc_auc": 0.05},
        subject="churn:7",
        window="data_interval",
    )
    mail = SmtpNotifier(to="growth@example.com", subject="{{ mlops_subject }}", html_content="{{ mlops_html }}")
    AlertOperator(
        task_id="alert",
        reports=[drift.output, performance.output],
        subject="churn:7",
        notifiers=[mail],
        trigger_rule="all_done",
    )
# END watch
