"""A DAG that loads orders, as it was for years, and two gates in it."""

from __future__ import annotations

import pendulum

# START gates
from airflow.sdk import DAG, Param, task

from airflow_mlops.operators.data import ValidateDataOperator
from airflow_mlops.operators.monitoring import DetectDriftOperator

with DAG(
    "orders_loaded",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1),
    catchup=False,
    params={
        "landed": Param("/data/orders/landed/today.parquet", type="string"),
        "loaded": Param("/data/orders/loaded", type="string"),
    },
):

    @task
    def extract(landed: str) -> str:
        return landed  # whatever brings the rows: its path goes on, not the rows

    @task
    def load(orders: str, loaded: str) -> None:
        import shutil

        shutil.copy(orders, loaded)

    orders = extract("{{ params.landed }}")
    # These two are new: what must hold of each row, and what the day must not be unlike.
    whole = ValidateDataOperator(
        task_id="whole",
        dataset=orders,
        expectations=[{"type": "expect_column_values_to_be_unique", "kwargs": {"column": "order_id"}}],
    )
    usual = DetectDriftOperator(
        task_id="usual",
        current=orders,
        reference="{{ params.loaded }}/*.parquet",
        roles={"key": "order_id", "time": "ordered_at"},
        thresholds="learn",
        block="1d",
        subject="orders",
        fail_on="warning",
    )
    [whole, usual] >> load(orders, "{{ params.loaded }}")
# END gates
