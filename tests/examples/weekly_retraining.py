"""A warehouse table, once a week: is there reason to train again, and is what comes of it better than what serves?"""

from __future__ import annotations

# START weekly
import pendulum
from airflow.sdk import DAG, Param

from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mlops.operators.retraining import DecideRetrainingOperator
from airflow_mlops.operators.training import TrainModelOperator

UNTIL = "{{ params.until or (dag_run.run_after | ds) }}"

with DAG(
    "churn_weekly",
    schedule="0 6 * * 1",
    start_date=pendulum.datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={"until": Param(None, type=["null", "string"], format="date", description="Rows before; empty: today")},
    default_args={"retries": 2, "retry_delay": pendulum.duration(minutes=1)},
):
    snapshot = SnapshotDataOperator(
        task_id="snapshot",
        conn_id="warehouse",
        sql="select customer_id, seen_at, calls, months, churned from shop.customers",
        order_by="customer_id",
        name="customers",
        roles={"key": "customer_id", "time": "seen_at", "target": "churned"},
        window={"start": "2025-01-01", "end": UNTIL},
    )
    # What is downstream is skipped in a week that gives no reason.
    decide = DecideRetrainingOperator(
        task_id="decide",
        model_name="churn",
        reports=[snapshot.output],
        policy={"new_rows": 300, "max_age": "28d"},
        clock=UNTIL,
    )
    validate = ValidateDataOperator(
        task_id="validate",
        dataset=snapshot.output,
        expectations=[
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "churned"}},
            {"type": "expect_column_values_to_be_between", "kwargs": {"column": "months", "min_value": 0}},
        ],
    )
    train = TrainModelOperator(
        task_id="train",
        dataset=validate.output,
        trainer="churn_model:train",
        features="churn_model:features",
        split={"by": "time", "test": "28d"},
    )
    test = EvaluateModelOperator(
        task_id="test",
        model=train.output,
        champion="churn@champion",
        tests=[
            {"kind": "metric", "metric": "roc_auc", "min": 0.7},
            {"kind": "champion", "metric": "roc_auc", "require": "not_worse", "margin": 0.02, "on_unclear": "promote"},
        ],
        fail_on="never",
    )
    register = RegisterModelOperator(
        task_id="register",
        model=train.output,
        model_name="churn",
        evidence=[validate.output, test.output],
        reason="{{ ti.xcom_pull('decide')['reason'] }}",
    )
    # A challenger that loses is on record with the reason, and the champion stays.
    PromoteModelOperator(task_id="promote", model=register.output, fail_on="never")
    decide >> validate
# END weekly
