"""How a model server answers: our own every quarter of an hour, and one that somebody else runs."""

from __future__ import annotations

# START ours
import pendulum
from airflow.sdk import DAG

from airflow_mlops.operators.monitoring import AlertOperator, MonitorServiceOperator

with DAG("churn_served", schedule="*/15 * * * *", start_date=pendulum.datetime(2026, 1, 1), catchup=False):
    served = MonitorServiceOperator(
        task_id="served",
        server="churn",
        thresholds={"latency_p95_ms": 200, "error_share": 0.01},
    )
    AlertOperator(task_id="alert", reports=[served.output], owner="churn team")
# END ours

# START theirs
with DAG("scores_served", schedule="@hourly", start_date=pendulum.datetime(2026, 1, 1), catchup=False):
    MonitorServiceOperator(
        task_id="served",
        server_conn_id="scores",
        series={"requests": "http_requests_total", "code": "status", "latency": "http_request_duration_seconds"},
        thresholds={"latency_p99_ms": 500, "error_share": 0.01, "throughput": {"min": 0.1}},
    )
# END theirs
