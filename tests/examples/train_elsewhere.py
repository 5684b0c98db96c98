"""A churn model that is trained and tested with libraries that Airflow's own environment does not have."""

from __future__ import annotations

import datetime as dt

# START operator
from airflow.sdk import DAG, Param, task

from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.training import TrainModelOperator

RUNTIME = {"python": "{{ params.python }}", "environment": {"OMP_NUM_THREADS": "1"}}
ROLES = {"key": "customer_id", "time": "seen_at", "private": ["email", "household"], "target": "churned"}

with DAG(
    "churn_elsewhere",
    schedule="@monthly",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={
        "customers": Param("/data/customers/*.parquet", type="string"),
        "python": Param("/opt/environments/churn", type="string"),
    },
):
    train = TrainModelOperator(
        task_id="train",
        dataset="{{ params.customers }}",
        trainer="churn_model:train",
        features="churn_model:features",
        roles=ROLES,
        runtime=RUNTIME,
    )
    EvaluateModelOperator(
        task_id="test",
        model=train.output,
        tests=[{"kind": "metric", "metric": "roc_auc", "min": 0.6}],
        runtime=RUNTIME,
    )
    # END operator

    # START decorator
    @task.train_model(dataset="{{ params.customers }}", roles=ROLES, runtime=RUNTIME)
    def forest(X, y, random_state, max_depth=3):
        from sklearn.ensemble import RandomForestClassifier

        print(f"growing a forest on {len(X)} rows")
        return RandomForestClassifier(50, max_depth=max_depth, random_state=random_state).fit(X, y)

    @task.evaluate_model(runtime=RUNTIME)
    def is_not_one_sided(model, X, y):
        share = float(model.predict(X).mean())
        return {"passed": 0.05 < share < 0.95, "predicted_share": share}

    is_not_one_sided(forest(max_depth=4))
    # END decorator
