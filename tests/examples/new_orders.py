"""Orders that land on S3: a run begins whenever new ones are there, and takes a version of them."""

from __future__ import annotations

# START new-data
from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_mlops.operators.data import SnapshotDataOperator
from airflow_mlops.triggers.data import NewDataEventTrigger

FILES = "s3://lake/orders/*.parquet"
LANDED = Asset(
    "orders_landed",
    watchers=[AssetWatcher(name="orders", trigger=NewDataEventTrigger(source=FILES, aws_conn_id="lake"))],
)

with DAG("orders_from_the_lake", schedule=[LANDED]):
    SnapshotDataOperator(task_id="snapshot", source=FILES, aws_conn_id="lake", roles={"key": "order_id"})
# END new-data
