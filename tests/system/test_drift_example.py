"""The example of the docs, run in Airflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "detect_drift.py"


def orders(seed: int, scale: float) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "order_id": np.arange(2000) + 2000 * seed,
            "email": [f"{number}@x" for number in range(2000)],
            "total": random.lognormal(3, 0.5, 2000) * scale,
            "country": random.choice(["de", "fr", "it"], 2000),
            "channel": random.choice(["web", "app"], 2000),
        }
    )


def test_a_day_unlike_the_days_before_is_told(airflow_test: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, airflow_test.dags)
    orders(1, 1).to_parquet(tmp_path / "before.parquet")
    orders(2, 100).to_parquet(tmp_path / "cents.parquet")
    conf = {"before": str(tmp_path / "before.parquet"), "orders": str(tmp_path / "cents.parquet")}

    done = airflow_test.cli("dags", "test", "orders_drift", "--conf", json.dumps(conf))

    assert done.returncode == 0, done.stdout[-3000:]
    assert "cents has drifted from before: 1 of 2 columns have drifted" in done.stdout
    assert "2 of 2 segments by channel have drifted" in done.stdout
    assert "@x" not in done.stdout
    assert len(list((airflow_test.home / "mlops" / "store" / "reports").rglob("report.html"))) == 1
