"""A churn model, trained every month on the customers of that day."""

from __future__ import annotations

import datetime as dt

# START train
from airflow.sdk import DAG, Param, task

from airflow_mlops.operators.data import SnapshotDataOperator
from airflow_mlops.operators.training import TrainModelOperator

with DAG(
    "churn_trained",
    schedule="@monthly",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={"customers": Param("/data/customers/*.parquet", type="string"), "C": Param(1.0, type="number")},
):
    snapshot = SnapshotDataOperator(
        task_id="snapshot",
        source="{{ params.customers }}",
        roles={"key": "customer_id", "time": "seen_at", "private": "email", "target": "churned"},
    )
    train = TrainModelOperator(
        task_id="train",
        dataset=snapshot.output,
        trainer="churn_model:train",
        features="churn_model:features",
        hyperparameters={"C": "{{ params.C }}"},
        split={"by": "time", "test": "28d"},
        experiment="churn",
    )

    @task
    def tell(model: dict) -> str:
        return f"{model['uri']} has AUC {model['metrics']['roc_auc']:.3f} on {model['test_dataset']['rows']} rows"

    tell(train.output)
# END train
