"""Predictions of the champion every day, from the day on which there is one."""

from __future__ import annotations

# START served
from airflow.sdk import DAG, task

from airflow_mlops.operators.serving import BatchPredictOperator

with DAG("orders_predicted", schedule="@daily", catchup=False):

    @task.short_circuit
    def served(model_name: str) -> bool:
        """Go on once there is a champion: before the first release there is nothing to predict with, and no failure."""
        from airflow_mlops.hooks.mlflow import MLflowHook

        with MLflowHook().session() as mlflow:
            found = mlflow.search_registered_models(f"name = '{model_name}'")
            return any("champion" in model.aliases for model in found)

    predict = BatchPredictOperator(task_id="predict", model="models:/orders@champion", dataset="/data/orders/*.parquet")
    served("orders") >> predict
# END served
