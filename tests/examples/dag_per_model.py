"""One file of models, one DAG a model: an entry in ``models.yaml`` is all that a new model needs."""

from __future__ import annotations

# START models
from pathlib import Path
from typing import Any

import pendulum
import yaml
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, get_parsing_context, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_mlops.operators.monitoring import AlertOperator, MonitorPerformanceOperator


def watched(dag_id: str, name: str, *, schedule: str = "0 6 1 * *", owner: str, **monitor: Any) -> DAG:
    """Return the DAG of one model; what its entry has beside schedule and owner goes to its monitor."""
    with DAG(
        dag_id,
        schedule=CronDataIntervalTimetable(schedule, timezone="UTC"),
        start_date=pendulum.datetime(2026, 1, 1),
        catchup=False,
        default_args={"owner": owner, "aws_conn_id": "lake"},
        tags=["watched", owner],
        auto_register=False,
    ) as dag:
        performance = MonitorPerformanceOperator(
            task_id="performance", subject=name, window="data_interval", max_drop=0.05, **monitor
        )
        AlertOperator(task_id="alert", reports=[performance.output], subject=name, trigger_rule="all_done")
    return dag


def broken(dag_id: str, error: Exception) -> DAG:
    """Return the DAG of an entry that is wrong: it says so, on its page and when it runs."""
    text = f"{type(error).__name__}: {error}"
    start = pendulum.datetime(2026, 1, 1)
    with DAG(
        dag_id, schedule="@daily", start_date=start, catchup=False, doc_md=text, tags=["broken"], auto_register=False
    ) as dag:

        @task
        def entry_in_models_yaml() -> None:
            raise AirflowFailException(text)

        entry_in_models_yaml()
    return dag


wanted = get_parsing_context().dag_id  # a worker makes the DAG of its task alone
for name, entry in yaml.safe_load(Path(__file__).with_name("models.yaml").read_text(encoding="utf-8")).items():
    dag_id = f"watch_{name}"
    if wanted in (None, dag_id):
        try:
            globals()[dag_id] = watched(dag_id, name, **entry)
        except Exception as error:
            globals()[dag_id] = broken(dag_id, error)
# END models
