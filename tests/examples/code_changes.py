"""Commits start runs: of a repository that is watched, or waited for inside a DAG on a schedule."""

from __future__ import annotations

# START watcher
from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_mlops.operators.code import CheckoutCodeOperator
from airflow_mlops.triggers.code import CodeChangeEventTrigger

REPOSITORY = "https://git.example.com/team/churn.git"
COMMITS = CodeChangeEventTrigger(repository=REPOSITORY, ref="main", git_conn_id="code")
CODE = Asset("churn_code", watchers=[AssetWatcher(name="commits", trigger=COMMITS)])

with DAG("churn_commits", schedule=[CODE], max_active_runs=4):
    CheckoutCodeOperator(task_id="checkout", repository=REPOSITORY, ref="main", git_conn_id="code")
# END watcher

# START sensor
from airflow_mlops.sensors.code import CodeChangeSensor  # noqa: E402

BEFORE = "{{ ti.xcom_pull(task_ids='commit', include_prior_dates=True) }}"

with DAG("churn_nightly", schedule="@daily", render_template_as_native_obj=True):
    CodeChangeSensor(
        task_id="commit", repository=REPOSITORY, git_conn_id="code", since=BEFORE, deferrable=True, timeout=3600
    )
# END sensor
