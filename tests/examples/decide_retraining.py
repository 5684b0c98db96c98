"""A policy that decides on the verdicts of two monitors."""

from __future__ import annotations

import datetime as dt

# START decide
from airflow.sdk import DAG, Asset, task
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_mlops.operators.retraining import DecideRetrainingOperator

DRIFT, PERFORMANCE = Asset("churn_drift"), Asset("churn_performance")

with DAG(
    "churn_retraining",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable("0 6 * * *", timezone="UTC"), assets=DRIFT | PERFORMANCE
    ),
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    max_active_runs=1,
):
    decide = DecideRetrainingOperator(
        task_id="decide",
        model_name="churn",
        inlets=[DRIFT, PERFORMANCE],  # what a run was triggered by is read anyway; this reads what others left, too
        policy={
            "performance": {"metric": "roc_auc", "drop": 0.03, "windows": [2, 3]},
            "drift": {"share": 0.5, "windows": [3, 3]},
            "max_age": "60d",
            "cooldown": "14d",
            "budget": {"runs": 4, "per": "90d"},
        },
        follow={"retrain": "train", "warn": "tell"},
    )

    @task
    def train(decision: dict) -> str:
        return f"decision {decision['seq']}: {decision['reason']}"

    @task
    def tell(decision: dict) -> None:
        print(decision["reason"])

    train(decide.output)
    tell(decide.output)
# END decide
