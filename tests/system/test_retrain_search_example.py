"""The example of the page on retraining: a search that ends in one model, with the reason on its version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "retrain_search.py"
TRAINER = """
from sklearn.linear_model import LogisticRegression

def train(X, y, *, C=1.0):
    return LogisticRegression(C=C).fit(X, y)
"""


def test_the_best_settings_before_the_test_rows_train_the_version(airflow_test: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, airflow_test.dags)
    (airflow_test.dags / "shop").mkdir()
    (airflow_test.dags / "shop" / "__init__.py").touch()
    (airflow_test.dags / "shop" / "model.py").write_text(TRAINER)
    rng = np.random.default_rng(0)
    times = pd.date_range(end=pd.Timestamp.now("UTC").floor("h"), periods=2600, freq="2h")
    # Many columns of little weight: the strength of the penalty matters, and no two settings are equally good.
    frame = pd.DataFrame({"order_id": range(2600), "ordered_at": times})
    frame = frame.join(pd.DataFrame(rng.normal(size=(2600, 12)), columns=list("abcdefghijkl")))
    frame["returned"] = (frame[list("abcd")].sum(axis=1) + rng.normal(size=2600) > 0).astype("int64")
    frame.to_parquet(tmp_path / "orders.parquet", index=False)
    run = airflow_test.cli("dags", "test", "orders_retraining", "--conf", json.dumps({"data": f"{tmp_path}/*.parquet"}))
    assert run.returncode == 0, run.stdout[-4000:]
    store = airflow_test.home / "mlops" / "store"
    (record,) = (json.loads(path.read_text()) for path in (store / "versions" / "orders").glob("*.json"))
    ref = record["ref"]
    searched = [json.loads(path.read_text())["ref"] for path in (store / "models").glob("*.json")]
    others = [one for one in searched if one["run_id"] != ref["run_id"]]
    assert len(others) == 4, "three settings at random, and the champion's"
    test_start = ref["test_dataset"]["window"]["start"]
    assert all(one["test_dataset"]["window"]["end"] <= test_start for one in others)
    assert len({one["metrics"]["roc_auc"] for one in others}) > 1
    winner = max(others, key=lambda one: one["metrics"]["roc_auc"])
    settings = [one["training"]["recipe"]["hyperparameters"] for one in (winner, ref)]
    assert settings[0] == settings[1]

    from mlflow import MlflowClient

    uri = f"sqlite:///{airflow_test.home}/mlops/mlflow.db"
    tags = MlflowClient(tracking_uri=uri, registry_uri=uri).get_model_version("orders", "1").tags
    assert tags["reason"].startswith("Retrain, because the model is")
