"""A small loop, quick enough to be disturbed often: data lands, is watched, a policy decides, a challenger is released.

In March the world turns round: what made a customer return now keeps him. The champion, trained in January, fails on
it; the loop trains on what it saw, tests the challenger against the champion, and releases it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.steps import StepContext, run_step
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import sqlite_uri
from faults.parts import Parts

DAG = Path(__file__).with_name("loop_dag.py")
MONTHS = {"2025-01": 1.0, "2025-03": -1.0}
#: The stages, with the points at which a kill tells most: after an effect, before anybody knows of it.
STAGES = (
    ("watch", "month", "start"),
    ("watch", "labels", "end"),
    ("watch", "snapshot", "snapshot.referenced"),
    ("watch", "predict", "predict.published"),
    ("watch", "drift", "drift.recorded"),
    ("watch", "performance", "end"),
    ("retrain", "decide", "decide.recorded"),
    ("retrain", "snapshot", "end"),
    ("retrain", "train", "train.model_uploaded"),
    ("retrain", "test", "report.details_written"),
    ("retrain", "register", "register.version_created"),
    ("retrain", "promote", "promote.alias_moved"),
)


def rows(month: str, sign: float, count: int = 1500) -> pd.DataFrame:
    """Return orders of a month; ``sign`` says which way their first feature works."""
    rng = np.random.default_rng(int(month[-2:]))
    start = pd.Timestamp(month)
    step = (start + pd.offsets.MonthBegin(1) - start) / count
    frame = pd.DataFrame(
        {
            "order_id": [f"{month}-{number}" for number in range(count)],
            "ordered_at": [start + step * number for number in range(count)],
            "price": rng.normal(size=count).round(6),
            "size": rng.normal(size=count).round(6),
        }
    )
    frame["returned"] = (sign * frame["price"] + 0.5 * frame["size"] + rng.normal(size=count) > 0).astype("int64")
    return frame


class Loop:
    """A model's loop in an Airflow home: its DAGs, its data, its first champion.

    :param name: of the model; DAGs, assets and folders are named after it, so that many loops share one Airflow.
    """

    #: DAG, task and point of each stage.
    stages: list[tuple[str, str, str]]
    #: The DAG that is started from outside, and the one that its events start.
    dags: tuple[str, str]

    def __init__(self, name: str, home: Path, dags: Path) -> None:
        self.name, self.folder = name, dags
        self.inbox = home / "inbox" / name
        store = LocalStore(home / "mlops" / "store")
        self.context = StepContext(store=store, tracking_uri=sqlite_uri(home / "mlops" / "mlflow.db"))

    def release(self, made: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Make a model the first champion."""
        model, test = made
        register_model(self.context, model=model, model_name=self.name, evidence=[test])
        promote_model(self.context, model=f"models:/{self.name}/1", reason="the first")

    def over(self, parts: Parts) -> bool:
        """Return whether all events have been answered and all runs have ended."""
        first, second = self.dags
        runs = parts.rows("select dag_id, state from dag_run where dag_id in (?, ?)", first, second)
        if not {*self.dags} <= {dag for dag, _ in runs} or any(state in ("queued", "running") for _, state in runs):
            return False
        queued = "select count(*) from asset_dag_run_queue where target_dag_id in (?, ?)"
        told = "select count(distinct asset_id) from asset_event where source_dag_id = ?"
        return bool(parts.rows(queued, first, second)[0][0] == 0 and parts.rows(told, first)[0][0] == 2)

    def made(self, source: Any, roles: dict[str, Any], days: str, **recipe: Any) -> tuple[Any, Any]:
        """Return a model, and its test, made by the steps themselves."""
        sys.path.insert(0, str(self.folder))
        try:
            data = self._step("snapshot_data", source=source, name="first", roles=roles)
            model = self._step("train_model", dataset=data, split={"by": "time", "test": days}, **recipe)
            test = self._step(
                "evaluate_model", model=model, tests=[{"kind": "metric", "metric": "roc_auc", "min": 0.6}]
            )
        finally:
            sys.path.remove(str(self.folder))
        return model, test

    def _step(self, step: str, **arguments: Any) -> dict[str, Any]:
        run = {"dag_id": "first", "run_id": "first", "task_id": step, "map_index": -1}
        spec = {"step": step, "args": arguments, "key": f"first/{type(self).__name__}/{step}/-1", "run": run}
        found: dict[str, Any] = run_step(
            {**spec, "store": self.context.store.uri, "tracking_uri": self.context.tracking_uri}
        )
        return found


class SmallLoop(Loop):
    """A loop that begins with a file: a watched inbox, a sensor that waits for labels, monitors, a retraining."""

    def __init__(self, name: str, home: Path, dags: Path) -> None:
        super().__init__(name, home, dags)
        self.dags = f"{name}_watch", f"{name}_retrain"
        self.stages = [(f"{name}_{dag}", task, point) for dag, task, point in STAGES]
        for part in ("orders", "labels"):
            (self.inbox / part).mkdir(parents=True)
        text = DAG.read_text().replace("NAME_OF_THE_MODEL", name).replace("FOLDER_OF_THE_DATA", str(self.inbox))
        (dags / f"loop_{name}.py").write_text(text)
        if not (dags / "shop").exists():
            shutil.copytree(DAG.with_name("shop"), dags / "shop")

    def first(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the model that all loops begin with, and its test."""
        file = self.inbox.parent / "2025-01.parquet"
        rows("2025-01", MONTHS["2025-01"]).to_parquet(file, index=False)
        roles = {"key": "order_id", "time": "ordered_at", "target": "returned"}
        return self.made(str(file), roles, "15d", trainer="shop.model:train")

    def begin(self, parts: Parts) -> None:
        """Have March come, whole, with its labels."""
        frame = rows("2025-03", MONTHS["2025-03"])
        for part, columns in (("labels", ["order_id", "returned"]), ("orders", list(frame.columns))):
            hidden = self.inbox / part / ".coming"
            frame[columns].to_parquet(hidden, index=False)
            hidden.rename(self.inbox / part / "2025-03.parquet")
