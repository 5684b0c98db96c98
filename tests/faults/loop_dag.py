"""The loop that the fault tests disturb: a watched inbox, monitors, and a retraining that their events start."""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_mlops.operators.data import SnapshotDataOperator
from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.monitoring import DetectDriftOperator, MonitorPerformanceOperator
from airflow_mlops.operators.registry import PromoteModelOperator, RegisterModelOperator
from airflow_mlops.operators.retraining import DecideRetrainingOperator
from airflow_mlops.operators.serving import BatchPredictOperator
from airflow_mlops.operators.training import TrainModelOperator
from airflow_mlops.sensors.data import NewDataSensor
from airflow_mlops.triggers.data import NewDataEventTrigger

NAME, FOLDER = "NAME_OF_THE_MODEL", "FOLDER_OF_THE_DATA"
ROLES = {"key": "order_id", "time": "ordered_at", "target": "returned"}
CHAMPION = f"{NAME}@champion"
arrivals = NewDataEventTrigger(source=f"{FOLDER}/orders/*.parquet", settle="1s", poll_interval=1.0)
LANDED = Asset(f"{NAME}_landed", watchers=[AssetWatcher(name=f"{NAME}_inbox", trigger=arrivals)])
DRIFT, PERFORMANCE = Asset(f"{NAME}_drift"), Asset(f"{NAME}_performance")

with DAG(
    f"{NAME}_watch",
    schedule=[LANDED],
    start_date=dt.datetime(2025, 1, 1),
    max_active_runs=1,
    render_template_as_native_obj=True,
):

    @task(multiple_outputs=True)
    def month(triggering_asset_events: dict) -> dict:
        paths = [
            path
            for events in triggering_asset_events.values()
            for one in events
            for path in one.extra["payload"]["new"]["paths"]
        ]
        start = dt.date.fromisoformat(max(paths).rpartition("/")[2][:7] + "-01")
        end = (start + dt.timedelta(days=31)).replace(day=1)
        return {"path": max(paths), "window": {"start": start.isoformat(), "end": end.isoformat()}}

    period = month()
    labels = NewDataSensor(
        task_id="labels", source=f"{FOLDER}/labels/*.parquet", settle="2s", poke_interval=1, deferrable=True
    )
    snapshot = SnapshotDataOperator(
        task_id="snapshot", source=period["path"], name=f"{NAME}_scored", roles=ROLES, window=period["window"]
    )
    predict = BatchPredictOperator(
        task_id="predict",
        model="models:/" + CHAMPION,
        dataset=snapshot.output,
        log_name=NAME,
        window=period["window"],
    )
    drift = DetectDriftOperator(
        task_id="drift",
        current=snapshot.output,
        reference=CHAMPION,
        subject=NAME,
        window=period["window"],
        report="never",
        outlet=DRIFT,
    )
    performance = MonitorPerformanceOperator(
        task_id="performance",
        predictions=predict.output,
        labels=f"{FOLDER}/labels/*.parquet",
        target="returned",
        roles={"key": "order_id"},
        metrics=["roc_auc"],
        max_drop={"roc_auc": 0.05},
        subject=NAME,
        window=period["window"],
        outlet=PERFORMANCE,
    )
    labels >> performance

with DAG(
    f"{NAME}_retrain",
    schedule=(DRIFT | PERFORMANCE),
    start_date=dt.datetime(2025, 1, 1),
    max_active_runs=1,
    render_template_as_native_obj=True,
):
    decide = DecideRetrainingOperator(
        task_id="decide",
        model_name=NAME,
        inlets=[DRIFT, PERFORMANCE],
        policy={
            "performance": {"metric": "roc_auc", "drop": 0.05, "windows": [1, 1]},
            "drift": {"share": 0.9, "windows": [1, 1]},
            "cooldown": "1d",
        },
    )
    fresh = SnapshotDataOperator(
        task_id="snapshot", source=f"{FOLDER}/orders/*.parquet", name=f"{NAME}_training", roles=ROLES
    )
    train = TrainModelOperator(
        task_id="train",
        dataset=fresh.output,
        trainer="shop.model:train",
        split={"by": "time", "test": "15d"},
        experiment=NAME,
    )
    test = EvaluateModelOperator(
        task_id="test",
        model=train.output,
        champion=CHAMPION,
        report_name=NAME,
        tests=[
            {"kind": "metric", "metric": "roc_auc", "min": 0.6},
            {"kind": "champion", "metric": "roc_auc", "require": "better"},
        ],
    )
    register = RegisterModelOperator(
        task_id="register",
        model=train.output,
        model_name=NAME,
        evidence=[test.output],
        tags={"reason": "{{ ti.xcom_pull('decide')['reason'] }}"},
    )
    promote = PromoteModelOperator(
        task_id="promote",
        model=register.output,
        evidence=[test.output],
        reason="{{ ti.xcom_pull('decide')['reason'] }}",
    )
    decide >> fresh
