"""Orders in a warehouse: each month's rows as one immutable version, read without loading them into memory."""

from __future__ import annotations

import datetime as dt

# START snapshot-sql
from airflow.sdk import DAG, Asset, Param

from airflow_mlops.operators.data import SnapshotDataOperator

with DAG(
    "orders_from_warehouse",
    schedule="@monthly",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={
        "start": Param("2026-01-01", type="string", format="date"),
        "end": Param("2026-02-01", type="string", format="date"),
        "country": Param("SE", type="string"),
    },
):
    SnapshotDataOperator(
        task_id="snapshot",
        conn_id="warehouse",
        sql="select order_id, ordered_at, total from shop.orders where country = :country",
        parameters={"country": "{{ params.country }}"},
        order_by="order_id",
        name="orders",
        roles={"key": "order_id", "time": "ordered_at"},
        window={"start": "{{ params.start }}", "end": "{{ params.end }}"},
        outlet=Asset("orders_from_warehouse"),
    )
# END snapshot-sql
