"""Readings of sensors, of which a few are always broken: those go aside, and training gets the others."""

from __future__ import annotations

import datetime as dt

# START quarantine
from airflow.sdk import DAG, Param, task

from airflow_mlops.operators.data import ValidateDataOperator

with DAG(
    "readings_without_broken_ones",
    schedule="@daily",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={"readings": Param("/data/readings/*.parquet", type="string")},
):
    validate = ValidateDataOperator(
        task_id="validate",
        dataset="{{ params.readings }}",
        name="readings",
        expectations=[
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "sensor"}},
            {"type": "expect_column_values_to_be_between", "kwargs": {"column": "celsius", "min_value": -90}},
            {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10}},
        ],
        quarantine={"max_share": 0.1},
    )

    @task
    def count(report: dict) -> str:
        return f"{report['dataset']['rows']} good, {report['metrics']['quarantined_rows']} in quarantine"

    count(validate.output)
# END quarantine
