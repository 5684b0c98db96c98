"""The example of docs/monitoring/history.md."""

from __future__ import annotations

from typing import Any

from airflow_mlops.core.store import Store


def keep_the_return_rate(store: Store) -> list[tuple[str, float | None]]:
    """Record the return rate of two weeks, and read it back."""
    # [START history]
    from airflow_mlops.core.monitoring import history

    week: dict[str, Any] = {"start": "2026-03-02", "end": "2026-03-09"}
    history.record(store, "returns", week, {"rate": 0.031}, "business")
    week = {"end": "2026-03-16", "length": "7d"}
    history.record(store, "returns", week, {"rate": 0.058}, "business", severity="warning", summary="it has doubled")

    points = history.read(store, "returns", kind="business", metric="rate")
    rates = {point.window["end"]: point.figures["rate"] for point in points}
    # [END history]
    return list(rates.items())
