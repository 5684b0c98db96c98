"""Orders that are loaded into a table, and a champion that somebody moved: each starts a run."""

from __future__ import annotations

# START new-rows
from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_mlops.operators.retraining import DecideRetrainingOperator
from airflow_mlops.triggers.rows import NewRowsEventTrigger

rows = NewRowsEventTrigger(conn_id="shop", table="orders", column="order_id", poll_interval=30)
ORDERS = Asset("orders_loaded", watchers=[AssetWatcher(name="orders", trigger=rows)])

with DAG("orders_in_the_table", schedule=[ORDERS]):
    DecideRetrainingOperator(task_id="decide", model_name="orders", policy={"new_rows": 3})
# END new-rows

# START alias
from airflow.sdk import task  # noqa: E402

from airflow_mlops.triggers.registry import ModelAliasEventTrigger  # noqa: E402

moved = ModelAliasEventTrigger(model_name="churn", alias="champion", poll_interval=30)
CHAMPION = Asset("churn_champion", watchers=[AssetWatcher(name="moved", trigger=moved)])

with DAG("churn_moved", schedule=[CHAMPION]):

    @task
    def tell(triggering_asset_events=None) -> list[str]:
        told = [event.extra["payload"] for event in triggering_asset_events[CHAMPION]]
        return [f"{one['model_name']} is at version {one['version']}" for one in told]

    tell()
# END alias
