"""A model that was trained elsewhere: tested, registered with the evidence, and promoted on it."""

from __future__ import annotations

# START promote
from airflow.sdk import DAG, Param

from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator

with DAG(
    "churn_released",
    schedule=None,
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
            {"kind": "champion", "metric": "roc_auc", "require": "not_worse"},
            {"kind": "signature"},
        ],
    )
    register = RegisterModelOperator(
        task_id="register",
        model="{{ params.model }}",
        model_name="churn",
        tags={"team": "growth"},
        evidence=[test.output],
    )
    # Rests on the evidence that was registered; the champion must still be the one it was measured against.
    promote = PromoteModelOperator(
        task_id="promote",
        model=register.output,
        alias="champion",
        reason="run {{ run_id }} passed",
    )
# END promote
