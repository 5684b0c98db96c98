"""Churn predicted every month; whether it was right is known a month later."""

from __future__ import annotations

import datetime as dt

# START predict
from airflow.sdk import DAG, Param

from airflow_mlops.operators.serving import BatchPredictOperator

with DAG(
    "churn_predicted",
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    params={
        "customers": Param("/data/customers/*.parquet", type="string"),
        "start": Param("2026-01-01", type="string"),
        "end": Param("2026-02-01", type="string"),
    },
) as predicted:
    predict = BatchPredictOperator(
        task_id="predict",
        model="models:/churn@champion",
        trust="unverified",
        dataset="{{ params.customers }}",
        roles={"key": "customer_id", "time": "seen_at", "group": "household"},
        columns=["region"],
        window={"start": "{{ params.start }}", "end": "{{ params.end }}"},
    )
# END predict

# START monitor
from airflow_mlops.operators.monitoring import MonitorPerformanceOperator

with DAG(
    "churn_monitored",
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    params={
        "labels": Param("/data/churned/*.parquet", type="string"),
        "start": Param("2026-01-01", type="string"),
        "end": Param("2026-02-01", type="string"),
    },
) as monitored:
    monitor = MonitorPerformanceOperator(
        task_id="monitor",
        predictions="churn",
        labels="{{ params.labels }}",
        roles={"key": "customer_id"},
        target="churned",
        label_delay="28d",
        window={"start": "{{ params.start }}", "end": "{{ params.end }}"},
        metrics=["roc_auc", "log_loss"],
        baseline={"roc_auc": 0.8},
        max_drop={"roc_auc": 0.05},
        slices=["region"],
    )
# END monitor
