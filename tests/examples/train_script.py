"""A churn model, trained by a script and by a notebook as they are."""

from __future__ import annotations

import datetime as dt

# START script
from airflow.sdk import DAG, Param

from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.training import TrainModelOperator

with DAG(
    "churn_by_script",
    schedule="@monthly",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={"customers": Param("/data/customers/*.parquet", type="string")},
):
    train = TrainModelOperator(
        task_id="train",
        dataset="{{ params.customers }}",
        roles={"key": "customer_id", "time": "seen_at", "private": "email", "target": "churned"},
        command=["python", "scripts/train_churn.py", "{dataset}", "{model_out}"],
    )
    EvaluateModelOperator(
        task_id="test", model=train.output, tests=[{"kind": "metric", "metric": "roc_auc", "min": 0.6}]
    )
# END script

# START notebook
with DAG(
    "churn_by_notebook",
    schedule="@monthly",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={"customers": Param("/data/customers/*.parquet", type="string"), "C": Param(1.0, type="number")},
):
    TrainModelOperator(
        task_id="train",
        dataset="{{ params.customers }}",
        roles={"key": "customer_id", "time": "seen_at", "private": "email", "target": "churned"},
        notebook="notebooks/train_churn.ipynb",
        hyperparameters={"C": "{{ params.C }}"},
    )
# END notebook
