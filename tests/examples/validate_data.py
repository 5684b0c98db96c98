"""Orders that somebody else writes: checked every day, and counted only if their columns are as agreed."""

from __future__ import annotations

import datetime as dt

# START validate
from airflow.sdk import DAG, Param, task

from airflow_mlops.operators.data import ValidateDataOperator

with DAG(
    "orders_checked",
    schedule="@daily",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={"orders": Param("/data/orders/*.parquet", type="string")},
):
    validate = ValidateDataOperator(
        task_id="validate",
        dataset="{{ params.orders }}",
        roles={"key": "order_id", "private": "email"},
        expectations=[
            {
                "type": "expect_table_columns_to_match_set",
                "kwargs": {"column_set": ["order_id", "email", "ordered_at", "total"]},
            },
            {"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "total", "type_": "float"}},
            {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "order_id"}},
            {
                "type": "expect_column_values_to_be_between",
                "kwargs": {"column": "total", "min_value": 0, "max_value": 5000, "mostly": 0.99},
                "severity": "warning",
            },
        ],
    )

    @task
    def count(report: dict) -> int:
        return report["dataset"]["rows"]

    count(validate.output)
# END validate
