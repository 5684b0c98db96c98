"""A new version gets a growing share of the requests, and goes back by itself if it does not hold."""

from __future__ import annotations

# START canary
from airflow.sdk import DAG

from airflow_mlops.operators.serving import DeployModelOperator

with DAG("churn_canary", schedule=None):
    DeployModelOperator(
        task_id="deploy",
        model="models:/churn@champion",
        server="churn",
        strategy="canary",
        canary={"steps": [5, 25, 50], "interval": "10m", "min_requests": 200, "max_error_rate": 0.01},
        deferrable=True,
    )
# END canary
