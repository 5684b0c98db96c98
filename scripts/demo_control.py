"""The control of the demo: a model that nobody retrains, over the same months, and what the loop gained over it.

Both are scored on the same flights, month by month. A day's flights depend on each other, so the error of a month's
difference is that of leaving out one day at a time, and months are added up as independent.

Run as a program, it scores months with the frozen version and writes what it says to a file::

    python scripts/demo_control.py HOME VERSION FOLDER OUT
"""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.steps import StepContext

MODEL = "flights_late"


def context_of(home: Path) -> StepContext:
    """Return the store and the registry of the demo, without an Airflow."""
    from airflow_mlops.core.steps import StepContext
    from airflow_mlops.core.store import LocalStore
    from airflow_mlops.core.tracking import sqlite_uri

    uri = sqlite_uri(home / "mlops" / "mlflow.db")
    return StepContext(
        store=LocalStore(home / "mlops" / "store"), tracking_uri=uri, key="", run={}, log=logging.getLogger("demo")
    )


def freeze(home: Path, version: str, folder: Path, out: Path) -> None:
    """Score every file of a folder with one version, and write key and probability."""
    import pandas as pd

    from airflow_mlops.core import models
    from airflow_mlops.core.evaluation.loading import features, fetch
    from airflow_mlops.core.training.predictions import predict

    context = context_of(home)
    with tempfile.TemporaryDirectory() as scratch:
        ref = models.resolve(context, f"models:/{MODEL}/{version}")
        copy = fetch(context, ref, Path(scratch) / "model", "recorded")
        with copy.code():
            model, parts = copy.load(), []
            for path in sorted(folder.glob("*.parquet")):
                frame = pd.read_parquet(path)
                said = predict(model, features(copy, frame, []))
                assert said.probabilities is not None
                parts.append(pd.DataFrame({"key": frame["flight_id"], "frozen": said.probabilities[:, -1]}))
    pd.concat(parts).to_parquet(out, index=False)


@dataclasses.dataclass(frozen=True)
class Gain:
    """What the loop scored above the frozen model in one month, or in the mean over some.

    :param error: standard error of the difference, by days.
    """

    loop: float
    frozen: float
    error: float

    @property
    def ahead(self) -> float:
        """The difference."""
        return self.loop - self.frozen

    @property
    def interval(self) -> tuple[float, float]:
        """The difference's 95 % interval."""
        return self.ahead - 1.96 * self.error, self.ahead + 1.96 * self.error


def month_of(frame: pandas.DataFrame) -> Gain:
    """Compare the two on one month's rows: columns ``late``, ``loop``, ``frozen``, ``day``."""
    from sklearn.metrics import roc_auc_score

    from airflow_mlops.core.evaluation.significance import jackknife

    late, loop, frozen = (frame[name].to_numpy() for name in ("late", "loop", "frozen"))

    def ahead(mask: Any) -> float:
        return float(roc_auc_score(late[mask], loop[mask]) - roc_auc_score(late[mask], frozen[mask]))

    found = jackknife(ahead, frame["day"].astype("category").cat.codes.to_numpy().astype("int64"), unit="days")
    assert found is not None
    return Gain(float(roc_auc_score(late, loop)), float(roc_auc_score(late, frozen)), found.error)


def mean_of(gains: list[Gain]) -> Gain:
    """Return the mean over months."""
    count = len(gains)
    return Gain(
        sum(one.loop for one in gains) / count,
        sum(one.frozen for one in gains) / count,
        math.sqrt(sum(one.error**2 for one in gains)) / count,
    )


def months_of(home: Path, folder: Path, out: Path) -> dict[str, Gain]:
    """Compare what the loop said of each month with what the frozen model did."""
    import pandas as pd

    from airflow_mlops.core.predictions import layout

    context = context_of(home)
    frozen = pd.read_parquet(out)
    found = {}
    for window in layout.windows(context.store, MODEL):
        assert window.window is not None
        month = window.window["start"][:7]
        table = layout.read(context.store, MODEL, window=window.window, columns=[layout.KEY, layout.PROBABILITY])
        said = table.to_pandas().rename(columns={layout.KEY: "key", layout.PROBABILITY: "loop"})
        truth = pd.read_parquet(
            folder / f"flights-{month}.parquet", columns=["flight_id", "scheduled_departure", "late"]
        )
        truth = truth.rename(columns={"flight_id": "key"})
        truth["day"] = truth.pop("scheduled_departure").dt.strftime("%m-%d")
        both = truth.merge(said, on="key").merge(frozen, on="key")
        if len(both) < 0.95 * len(truth):
            raise RuntimeError(f"only {len(both):,} of the {len(truth):,} flights of {month} were scored by both")
        found[month] = month_of(both)
    return found


if __name__ == "__main__":
    freeze(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
