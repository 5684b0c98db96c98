"""What other libraries say while a model is logged stays out of the task's log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import logging, sys
import airflow.serialization.serde, airflow.utils.entry_points, airflow.utils.timezone, airflow.utils.trigger_rule
import numpy, pandas
from airflow_mlops.core.steps import run_step

logging.basicConfig(level=logging.INFO)
logging.captureWarnings(True)

def train(X, y):
    from sklearn.ensemble import HistGradientBoostingClassifier
    return HistGradientBoostingClassifier(max_iter=3).fit(X, y)

rows = pandas.DataFrame({"a": numpy.arange(400.0), "y": numpy.arange(400) % 2})
rows.to_parquet("rows.parquet")
run_step({
    "step": "train_model",
    "args": {"dataset": "rows.parquet", "trainer": train, "target": "y", "split": {"by": "random", "test": 0.25}},
    "store": "file://" + sys.argv[1] + "/store",
    "tracking_uri": "sqlite:///" + sys.argv[1] + "/mlflow.db",
    "key": "d/r/t/-1",
})
"""


def test_no_library_asks_airflows_deprecated_names_aloud(tmp_path: Path) -> None:
    """To name SciPy's functions skops asks every module for them: a thousand warnings without care."""
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path / "airflow"), "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert "Fitted HistGradientBoostingClassifier" in said
    assert ".agm" not in said, "the first of SciPy's functions that skops asks for"
    assert said.count("skops") < 5
