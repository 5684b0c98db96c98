"""The trainer in the DAG file itself, and one model for each of several settings."""

from __future__ import annotations

import datetime as dt

# START decorator
from airflow.sdk import DAG, Param, task

from airflow_mlops.operators.data import SnapshotDataOperator

with DAG(
    "churn_compared",
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    params={"customers": Param("/data/customers/*.parquet", type="string")},
):
    snapshot = SnapshotDataOperator(
        task_id="snapshot",
        source="{{ params.customers }}",
        roles={"key": "customer_id", "group": "household", "private": ["email", "seen_at"]},
    )

    @task.train_model(target="churned", split={"by": "group", "test": 0.25}, metrics=["roc_auc", "log_loss"])
    def forest(X, y, random_state, max_depth=3):
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(50, max_depth=max_depth, random_state=random_state).fit(X, y)

    @task
    def best(models: list[dict]) -> str:
        return max(models, key=lambda model: model["metrics"]["roc_auc"])["uri"]

    best(forest.partial(dataset=snapshot.output).expand(max_depth=[2, 4]))
# END decorator
