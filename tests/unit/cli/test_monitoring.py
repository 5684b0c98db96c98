"""``airflow mlops calibrate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.core.steps import StepContext


def past(path: Path) -> str:
    """Write 20 weeks of prices, the last of them in another unit."""
    rng = np.random.default_rng(0)
    rows = 20 * 500
    frame = pd.DataFrame({"seen": pd.date_range("2024-01-01", periods=rows, freq="20160ms", tz="UTC")})
    frame["seen"] = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(
        np.arange(rows) * (20 * 7 * 86_400 / rows), "s"
    )
    frame["price"] = rng.lognormal(3, 0.5, rows)
    frame.loc[frame.index >= 19 * 500, "price"] *= 100
    frame.to_parquet(path)
    return str(path)


def test_calibrate_prints_what_each_sensitivity_would_have_cost(
    context: StepContext, airflow: Any, tmp_path: Path
) -> None:
    data = past(tmp_path / "past.parquet")
    words = ("calibrate", "shop", "--data", data, "--time", "seen")
    done, printed = airflow(*words, "--output", "json")
    assert not done
    rows = json.loads(printed[: printed.rindex("]") + 1])
    assert [row["sensitivity"] for row in rows] == ["low", "normal", "high"]
    assert [(row["windows"], row["incidents"], row["columns"]) for row in rows] == [(12, 1, "price 1")] * 3
    done, printed = airflow(*words, "--windows", "often")
    assert "k of the last n windows" in str(done)
