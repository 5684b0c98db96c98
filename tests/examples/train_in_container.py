"""A churn model that is trained in a container; the wait takes no worker slot."""

from __future__ import annotations

# START container
from airflow.sdk import DAG, Param

from airflow_mlops.operators.training import TrainModelOperator

with DAG(
    "churn_in_container",
    params={
        "customers": Param("/data/customers/*.parquet", type="string"),
        "image": Param("registry.example.com/team/ml:1.4", type="string"),
    },
):
    TrainModelOperator(
        task_id="train",
        dataset="{{ params.customers }}",
        trainer="churn_model:train",
        features="churn_model:features",
        roles={"key": "customer_id", "time": "seen_at", "private": ["email", "household"], "target": "churned"},
        runtime={
            "image": "{{ params.image }}",
            "memory": "2g",
            "cpus": 1,
            "timeout": "2h",
            "environment": {"OMP_NUM_THREADS": "1"},
            "private_environment": {"WAREHOUSE_DSN": "{{ conn.warehouse.get_uri() }}"},
        },
        deferrable=True,
    )
# END container
