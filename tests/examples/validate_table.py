"""A table that another team fills: checked every night where it is, under that team's column names."""

from __future__ import annotations

import datetime as dt

# START validate-table
from airflow.sdk import DAG, Param

from airflow_mlops.operators.data import ValidateDataOperator

with DAG(
    "orders_in_warehouse_checked",
    schedule="@daily",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={"end": Param("2026-02-01", type="string", format="date")},
):
    ValidateDataOperator(
        task_id="validate",
        conn_id="warehouse",
        table="shop.orders",
        columns={"total": "TOTAL_EUR"},
        roles={"key": "order_id", "time": "ordered_at"},
        window={"end": "{{ params.end }}", "length": "31d"},
        expectations=[
            {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "order_id"}},
            {"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "total", "type_": "float"}},
            {
                "type": "expect_column_values_to_be_between",
                "kwargs": {"column": "total", "min_value": 0},
                "severity": "warning",
            },
        ],
    )
# END validate-table
