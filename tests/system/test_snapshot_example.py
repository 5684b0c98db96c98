"""The example of the page on snapshots, on a user's files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "snapshot_data.py"


def test_the_month_asked_for_is_stored_once(airflow_test: Any) -> None:
    shutil.copy(EXAMPLE, airflow_test.dags)
    folder = airflow_test.dags / "orders"
    folder.mkdir()
    for number, month in enumerate(("01", "02")):
        lines = [f"{number}-{day},2026-{month}-{day:02} 08:00:00,9.5" for day in range(1, 29)]
        (folder / f"{month}.csv").write_text("order_id,ordered_at,total\n" + "\n".join(lines) + "\n")
    for _ in range(2):
        run = airflow_test.cli("dags", "test", "orders_snapshot")
        assert run.returncode == 0, run.stdout[-3000:]
    store = airflow_test.home / "mlops" / "store"
    (record,) = (store / "datasets").rglob("*.json")
    ref = json.loads(record.read_text())
    ref = ref.get("ref", ref)
    assert ref["rows"] == 28
    assert ref["window"] == {"start": "2026-01-01T00:00:00+00:00", "end": "2026-02-01T00:00:00+00:00"}
    assert len(list((store / "data").rglob("*.parquet"))) == 1
