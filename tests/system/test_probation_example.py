"""The example of the page on retraining: a release that was a mistake goes back, and a challenger that loses stays."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.core.registry import overview
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.steps import StepContext, run_step
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "probation.py"
TRAINER = """
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

def train(X, y, *, column="b"):
    return make_pipeline(ColumnTransformer([("keep", "passthrough", [column])]), LogisticRegression()).fit(X, y)
"""
ROLES = {"key": "order_id", "time": "ordered_at", "target": "returned"}


def orders(folder: Path) -> str:
    """Write orders whose return follows from ``a``, but in April and early May from ``b``."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2026-02-01", "2026-07-01", freq="2h", tz="UTC")
    frame = pd.DataFrame(rng.normal(size=(len(times), 3)), columns=list("abc"))
    frame.insert(0, "order_id", range(len(times)))
    frame.insert(1, "ordered_at", times)
    odd = (times >= "2026-04-01") & (times < "2026-05-11")
    told = np.where(odd, frame["b"], frame["a"]) + rng.normal(size=len(times))
    frame["returned"] = (told > 0).astype("int64")
    frame.to_parquet(folder / "orders.parquet", index=False)
    return str(folder / "*.parquet")


def test_a_mistake_goes_back_and_a_challenger_that_loses_stays(
    airflow_test: Any, migrated_database: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    shutil.copy(EXAMPLE, airflow_test.dags)
    (airflow_test.dags / "shop").mkdir()
    (airflow_test.dags / "shop" / "__init__.py").touch()
    (airflow_test.dags / "shop" / "model.py").write_text(TRAINER)
    home, data = airflow_test.home / "mlops", orders(tmp_path)
    home.mkdir()
    shutil.copy(migrated_database, home / "mlflow.db")
    store, uri, run = LocalStore(home / "store"), sqlite_uri(home / "mlflow.db"), {"dag_id": "first"}
    context = StepContext(store=store, tracking_uri=uri, key="first", run=run)
    monkeypatch.syspath_prepend(str(airflow_test.dags))
    for name in ("shop", "shop.model"):  # other tests have a shop, too
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = {"store": store.uri, "tracking_uri": uri, "run": run}
    window = {"start": "2026-02-01", "end": "2026-04-01"}
    args = {"source": data, "name": "orders", "roles": ROLES, "window": window}
    dataset = run_step({**spec, "step": "snapshot_data", "key": "first/snapshot", "args": args})
    args = {"dataset": dataset, "trainer": "shop.model:train", "hyperparameters": {"column": "a"}}
    model = run_step({**spec, "step": "train_model", "key": "first/train", "args": args})
    promote_model(context, model=register_model(context, model=model, model_name="orders"), clock="2026-04-01")

    def month(date: str, **conf: Any) -> dict[str, str]:
        run = airflow_test.cli("dags", "test", "orders_monthly", date, "--conf", json.dumps({"data": data, **conf}))
        assert run.returncode == 0, run.stdout[-4000:]
        with contextlib.closing(sqlite3.connect(airflow_test.home / "airflow.db")) as database:
            told = "select task_id, t.state from task_instance t join dag_run using (run_id) where logical_date like ?"
            states = database.execute(told, (f"{date}%",))
            return dict(states.fetchall())

    # In May what it had learnt before was wrong: a challenger wins, for a reason that everybody can read.
    may = month("2026-05-11", clock="2026-05-11", reason="Retrain, because performance was too low.")
    assert (may["rollback"], may["promote"]) == ("skipped", "success")
    # In July what was true before is true again: the release was a mistake, and the next challenger is a bad one.
    july = month("2026-07-01", start="2026-05-11", clock="2026-07-01", hyperparameters={"column": "c"}, reason="Again.")
    assert (july["rollback"], july["promote"]) == ("success", "skipped")

    rows = overview.history(context, "orders")
    assert [(row["entry"], row["action"], row["version"]) for row in rows] == [
        *((1, "promote", 1), (2, "promote", 2), (3, "rollback", 1), (None, "refused", 3)),
    ]
    assert rows[1]["reason"] == "Retrain, because performance was too low."
    assert rows[2]["reason"].startswith("Version 2 did worse than version 1 on the same rows: roc_auc is 0.")
    assert "since it was promoted on 2026-05-11, with labels known before 2026-06-24" in rows[2]["reason"]
    assert rows[2]["evidence"] == "model_test failed"
    assert rows[3]["reason"].startswith(
        "Again. Not promoted: the model test did not pass: roc_auc against the champion"
    )
    (row,) = json.loads(airflow_test.cli("mlops", "status", "--output", "json").stdout.splitlines()[-1])
    assert (row["version"], row["latest_version"]) == (1, 3)
    assert row["refused"].startswith("version 3: ")
