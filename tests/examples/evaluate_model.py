"""A model that somebody else trained and registered, tested every week on the rows that came in since."""

from __future__ import annotations

import datetime as dt

# START evaluate
from airflow.sdk import DAG, Param, task

from airflow_mlops.operators.evaluation import EvaluateModelOperator

with DAG(
    "churn_tested",
    schedule="@weekly",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={"customers": Param("/data/customers/*.parquet", type="string"), "min_auc": Param(0.75, type="number")},
):
    evaluate = EvaluateModelOperator(
        task_id="evaluate",
        model="models:/churn@candidate",
        trust="unverified",
        dataset="{{ params.customers }}",
        target="churned",
        roles={"key": "customer_id", "private": "sex"},
        champion="churn@champion",
        tests=[
            {"kind": "metric", "metric": "roc_auc", "min": "{{ params.min_auc }}"},
            {"kind": "champion", "metric": "roc_auc", "require": "not_worse", "margin": 0.01},
            {"kind": "slices", "by": ["sex", "age"], "metric": "roc_auc", "max_gap": 0.1, "severity": "warning"},
            {"kind": "signature"},
            {"kind": "load"},
            {"kind": "latency", "p95_ms": 200},
            {"kind": "size", "max_mb": 50},
        ],
    )

    @task
    def tell(report: dict) -> str:
        return report["summary"]

    tell(evaluate.output)
# END evaluate

# START decorator
with DAG("churn_calibrated", schedule=None, start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)):

    @task.evaluate_model(
        model="models:/churn@candidate",
        trust="unverified",
        dataset="/data/customers/*.parquet",
        target="churned",
        roles={"key": "customer_id"},
    )
    def calibrated(model, X, y, probabilities, tolerance):
        gap = abs(probabilities[:, 1].mean() - y.mean())
        return {
            "passed": bool(gap < tolerance),
            "value": gap,
            "message": f"predicted and true rate differ by {gap:.3f}",
        }

    calibrated(tolerance=0.05)
# END decorator
