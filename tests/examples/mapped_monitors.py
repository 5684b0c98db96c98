"""One DAG for many models and regions: a mapped task a monitor."""

from __future__ import annotations

import pendulum

# START mapped
from airflow.sdk import DAG, Param, task

from airflow_mlops.operators.monitoring import AlertOperator, DetectDriftOperator, MonitorPerformanceOperator

REGIONS = ("north", "south")
WINDOW = {"end": "{{ params.end }}", "length": "31d"}

with DAG(
    "models_watched",
    schedule="@monthly",
    start_date=pendulum.datetime(2026, 1, 1),
    catchup=False,
    params={
        "lake": Param("/data", type="string"),
        "models": Param(["churn", "returns"], type="array"),
        "end": Param("2026-02-01", type="string", format="date"),
    },
):

    @task
    def logs(params: dict) -> list[dict]:
        """Return what differs from model to model."""
        columns = {"key": "id", "time": "at", "probability": "score", "label": "came_true"}
        return [
            {"subject": name, "predictions": {"uri": f"{params['lake']}/{name}/*.parquet", "columns": columns}}
            for name in params["models"]
        ]

    performance = MonitorPerformanceOperator.partial(
        task_id="performance",
        window=WINDOW,
        metrics=["roc_auc"],
        thresholds={"roc_auc": 0.7},
        map_index_template="{{ task.subject }}",
    ).expand_kwargs(logs())
    drift = DetectDriftOperator.partial(
        task_id="drift",
        roles={"key": "id", "time": "at"},
        columns={"score": {"test": "psi", "threshold": 0.2}},
        window=WINDOW,
        map_index_template="{{ task.subject }}",
    ).expand_kwargs(
        [
            {
                "subject": f"churn-{region}",
                "current": f"{{{{ params.lake }}}}/churn/{region}.parquet",
                "reference": f"{{{{ params.lake }}}}/before/{region}.parquet",
            }
            for region in REGIONS
        ]
    )
    AlertOperator(task_id="alert", reports=[performance.output, drift.output], trigger_rule="all_done")
# END mapped
