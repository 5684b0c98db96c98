"""A release that a person approves, and the way back."""

from __future__ import annotations

import pendulum

# START approve
from airflow.sdk import DAG, Param

from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.registry import (
    ApproveModelOperator,
    ArchiveModelsOperator,
    PromoteModelOperator,
    RegisterModelOperator,
    RollbackModelOperator,
)

with DAG(
    "churn_approved",
    schedule=None,
    default_args={"retries": 2, "retry_delay": pendulum.duration(seconds=1)},
    params={
        "model": Param("runs:/<run id>/model", type="string"),
        "customers": Param("/data/customers/*.parquet", type="string"),
    },
):
    test = EvaluateModelOperator(
        task_id="test",
        model="{{ params.model }}",
        trust="unverified",
        dataset="{{ params.customers }}",
        target="churned",
        champion="churn@champion",
        tests=[
            {"kind": "metric", "metric": "roc_auc", "min": 0.75},
            {"kind": "slices", "by": ["region"], "metric": "roc_auc", "min": 0.5, "min_rows": 50},
        ],
    )
    register = RegisterModelOperator(task_id="register", model="{{ params.model }}", model_name="churn")
    approve = ApproveModelOperator(
        task_id="approve",
        model=register.output,
        evidence=[test.output],
        assigned_users=["admin"],
        response_timeout=pendulum.duration(days=2),
        auto_approve={"green_runs": 5},
    )
    # The ledger names who approved, and why.
    promote = PromoteModelOperator(
        task_id="promote", model=register.output, evidence=[test.output, approve.output], alias="champion"
    )
# END approve

# START rollback
with DAG("churn_back", schedule=None, params={"why": Param("", type="string")}):
    RollbackModelOperator(task_id="rollback", model_name="churn", reason="{{ params.why }}")
# END rollback

# START archive
with DAG("churn_archived", schedule="@monthly", start_date=pendulum.datetime(2026, 1, 1), catchup=False):
    ArchiveModelsOperator(task_id="archive", model_name="churn", keep=10, reason="monthly")
# END archive
