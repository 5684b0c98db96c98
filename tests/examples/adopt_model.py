"""A model that another team trained, registered and serves: on record here, so that it can be watched."""

from __future__ import annotations

# START adopt
from airflow.sdk import DAG, Param

from airflow_mlops.operators.registry import AdoptModelOperator

with DAG(
    "churn_taken_over",
    schedule=None,
    params={
        "model": Param("models:/churn@champion", type="string"),
        "trained_on": Param("s3://lake/churn/trained-on/*.parquet", type="string"),
    },
) as dag:
    AdoptModelOperator(
        task_id="adopt",
        model="{{ params.model }}",
        reference="{{ params.trained_on }}",
        roles={"key": "customer_id", "time": "seen_at"},
        baseline={"roc_auc": 0.9},
    )
# END adopt
