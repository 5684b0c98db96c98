"""Orders that somebody else writes: is this day like the days before? A DAG without model, registry or profile."""

from __future__ import annotations

import datetime as dt

# START drift
from airflow.sdk import DAG, Asset, Param, task

from airflow_mlops.operators.monitoring import DetectDriftOperator

orders_watched = Asset("orders_watched")

with DAG(
    "orders_drift",
    schedule="@daily",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={
        "orders": Param("/data/orders/today/*.parquet", type="string"),
        "before": Param("/data/orders/before/*.parquet", type="string"),
    },
):
    drift = DetectDriftOperator(
        task_id="drift",
        current="{{ params.orders }}",
        reference="{{ params.before }}",
        roles={"key": "order_id", "private": "email"},
        columns={"total": {"test": "psi", "threshold": 0.2}, "country": {}},
        by="channel",
        subject="orders",
        outlet=orders_watched,
    )

    @task
    def tell(report: dict) -> str:
        return report["summary"]

    tell(drift.output)
# END drift
