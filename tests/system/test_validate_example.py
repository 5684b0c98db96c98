"""The example of the docs, run in Airflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "validate_data.py"


def test_good_orders_are_counted_and_others_are_not(airflow_test: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, airflow_test.dags)
    orders = pd.DataFrame(
        {
            "order_id": [1, 2],
            "email": ["a@x", "b@x"],
            "ordered_at": pd.to_datetime(["2026-01-01"] * 2),
            "total": [9.5, -1],
        }
    )
    orders.to_parquet(tmp_path / "good.parquet")
    orders.drop(columns="total").to_parquet(tmp_path / "bad.parquet")

    good = airflow_test.cli(
        "dags", "test", "orders_checked", "--conf", json.dumps({"orders": str(tmp_path / "good.parquet")})
    )
    bad = airflow_test.cli(
        "dags", "test", "orders_checked", "2026-01-02", "--conf", json.dumps({"orders": str(tmp_path / "bad.parquet")})
    )

    assert good.returncode == 0, good.stdout[-3000:]
    assert "value skew in 1 of 4 expectations on 2 rows" in good.stdout
    assert bad.returncode != 0
    assert "schema skew in 3 of 4 expectations on 2 rows" in bad.stdout
    assert "a@x" not in good.stdout + bad.stdout
    assert len(list((airflow_test.home / "mlops" / "store" / "reports").rglob("report.html"))) == 2
