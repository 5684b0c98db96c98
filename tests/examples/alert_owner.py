"""Orders and a model that somebody else serves: who is told when one of them is not what it was."""

from __future__ import annotations

# START alert
import pendulum
from airflow.providers.http.notifications.http import HttpNotifier
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, Param

from airflow_mlops.operators.data import ValidateDataOperator
from airflow_mlops.operators.monitoring import AlertOperator

with DAG(
    "orders_watched",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1),
    catchup=False,
    params={"orders": Param("/data/orders/*.parquet", type="string")},
):
    validate = ValidateDataOperator(
        task_id="validate",
        dataset="{{ params.orders }}",
        expectations=[
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "total"}},
            {
                "type": "expect_column_values_to_be_between",
                "kwargs": {"column": "total", "min_value": 0},
                "severity": "warning",
            },
        ],
    )
    AlertOperator(
        task_id="alert",
        reports=[validate.output],
        subject="orders",
        owner="order desk",
        notifiers=[
            SmtpNotifier(to="desk@example.com", subject="{{ mlops_subject }}", html_content="{{ mlops_html }}"),
            HttpNotifier(http_conn_id="pager", endpoint="alerts", json="{{ mlops_alert }}"),
        ],
        digest_notifiers=[
            SmtpNotifier(to="team@example.com", subject="{{ mlops_subject }}", html_content="{{ mlops_html }}"),
        ],
        mute_until="{{ var.value.get('mute_orders_until', '') }}",
        trigger_rule="all_done",
        retries=5,
        retry_delay=pendulum.duration(seconds=1),
        retry_exponential_backoff=True,
    )
# END alert
