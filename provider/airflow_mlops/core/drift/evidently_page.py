"""Evidently's own page on a sample of both sides, beside ours."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from airflow_mlops.core.drift.compare import Verdict
from airflow_mlops.core.drift.reading import Opened
from airflow_mlops.core.extras import require

#: Rows of each side that the page is made of, and the seed that they are drawn by.
ROWS, SEED = 10_000, 0


def page(reference: Opened, current: Opened, verdicts: list[Verdict]) -> bytes:
    """Return the page, of the columns that were compared; those are named, or Evidently would leave types out."""
    evidently = require("evidently", "Evidently's report")
    presets = require("evidently.presets", "Evidently's report")
    kinds = {one.name: one.kind for one in verdicts if one.skipped is None}
    definition = evidently.DataDefinition(
        numerical_columns=[name for name, kind in kinds.items() if kind == "numeric"],
        categorical_columns=[name for name, kind in kinds.items() if kind == "categorical"],
    )
    sides = [
        evidently.Dataset.from_pandas(_sample(opened, kinds), data_definition=definition)
        for opened in (current, reference)
    ]
    snapshot = evidently.Report([presets.DataDriftPreset()]).run(*sides)
    with tempfile.TemporaryDirectory(prefix="airflow-mlops-") as folder:
        path = Path(folder) / "evidently.html"
        snapshot.save_html(str(path))
        return path.read_bytes()


def _sample(opened: Opened, kinds: dict[str, Any]) -> Any:
    import numpy as np
    import pyarrow as pa

    random, share = np.random.default_rng(SEED), min(1.0, ROWS / max(opened.rows, 1))
    batches = [batch.filter(pa.array(random.random(batch.num_rows) < share)) for batch in opened.batches(list(kinds))]
    frame = pa.Table.from_batches(batches).to_pandas()
    numbers = {name: "float64" for name, kind in kinds.items() if kind == "numeric"}
    return frame.astype(numbers)
