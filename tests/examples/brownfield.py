"""Gates on what is there already: a model file, a table, and a log of predictions of somebody else's service."""

from __future__ import annotations

import datetime as dt

# START adopt
from airflow.sdk import DAG, Param

from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator

with DAG(
    "churn_adopted",
    schedule=None,
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    params={"model": Param("s3://models/churn/model.joblib", type="string")},
):
    register = RegisterModelOperator(
        task_id="register",
        model="{{ params.model }}",
        model_name="churn",
        trust="pickle",
    )
    test = EvaluateModelOperator(
        task_id="test",
        model=register.output,
        table="customers",
        conn_id="warehouse",
        columns={"calls": "CALLS_30D", "months": "TENURE_MONTHS"},
        target="HAS_CHURNED",
        roles={"key": "CUSTOMER_NO"},
        tests=[
            {"kind": "metric", "metric": "roc_auc", "min": 0.7},
            {"kind": "load"},
        ],
    )
    PromoteModelOperator(task_id="promote", model=register.output, evidence=[test.output])
# END adopt

# START log
with DAG(
    "churn_log_checked",
    schedule="@weekly",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={"log": Param("s3://logs/churn/*.parquet", type="string")},
):
    EvaluateModelOperator(
        task_id="check",
        predictions={
            "uri": "{{ params.log }}",
            "format": "parquet",
            "columns": {"key": "request_id", "probability": "score", "label": "churned"},
        },
        subject="churn:7",
        tests=[
            {"kind": "metric", "metric": "roc_auc", "min": 0.7},
            {"kind": "slices", "by": ["country"], "metric": "roc_auc", "min": 0.6, "severity": "warning"},
        ],
    )
# END log
