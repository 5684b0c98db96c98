"""From staging to production, each a registered name of its own."""

from __future__ import annotations

# START stages
from airflow.sdk import DAG, Param

from airflow_mlops.operators.registry import ApproveModelOperator, PromoteModelOperator

with DAG("churn_to_production", schedule=None, params={"version": Param(1, type="integer")}):
    model = "models:/churn/{{ params.version }}"
    staging = PromoteModelOperator(task_id="staging", model=model, to_name="churn_staging", reason="tests passed")
    approve = ApproveModelOperator(
        task_id="approve", model=model, to_name="churn_production", auto_approve={"green_runs": 3}
    )
    production = PromoteModelOperator(
        task_id="production", model=model, to_name="churn_production", evidence=[approve.output]
    )
    staging >> approve
# END stages
