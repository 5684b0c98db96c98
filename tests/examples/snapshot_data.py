"""Orders that land as files: one immutable version of each month, announced to whoever is waiting for it."""

from __future__ import annotations

import datetime as dt

# START snapshot
from airflow.sdk import DAG, Asset, Param

from airflow_mlops.operators.data import SnapshotDataOperator

ORDERS = Asset("orders")

with DAG(
    "orders_snapshot",
    schedule="@monthly",
    start_date=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    catchup=False,
    params={
        "start": Param("2026-01-01", type="string", format="date"),
        "end": Param("2026-02-01", type="string", format="date"),
    },
):
    SnapshotDataOperator(
        task_id="snapshot",
        source="orders/*.csv",
        name="orders",
        roles={"key": "order_id", "time": "ordered_at"},
        window={"start": "{{ params.start }}", "end": "{{ params.end }}"},
        outlet=ORDERS,
    )
# END snapshot
