"""A new recipe against the champion's, where the champion was trained on all rows that there are."""

from __future__ import annotations

# START backtest
from airflow.sdk import DAG, Param

from airflow_mlops.operators.evaluation import EvaluateModelOperator

with DAG(
    "late_backtested",
    schedule=None,
    params={"model": Param("models:/late/8", type="string"), "history": Param("/data/history.parquet", type="string")},
):
    backtest = EvaluateModelOperator(
        task_id="backtest",
        model="{{ params.model }}",
        champion="late@champion",
        dataset="{{ params.history }}",
        roles={"key": "id", "time": "day", "target": "late", "private": "airport"},
        on="backtest",
        backtest={"origins": 4, "horizon": "7d", "gap": "1d"},
        tests=[
            {"kind": "metric", "metric": "roc_auc", "min": 0.7},
            {"kind": "champion", "metric": "roc_auc", "require": "better"},
        ],
    )
# END backtest
