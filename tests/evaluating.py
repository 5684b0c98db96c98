"""Models and data that the tests of evaluation and monitoring share: real ones, small."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core import models
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.tracking import client, experiment_id, sqlite_uri
from airflow_mlops.core.training.rowkeys import hash_rows, save_row_keys
from airflow_mlops.core.vocabulary import ModelRef

FEATURES = ["größe", "distance"]


def make_rows(rows: int = 600, seed: int = 0, start: str = "2013-01-01") -> pd.DataFrame:
    """Return rows whose target follows from two features, with a key, a time and a group to slice by."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": np.arange(rows) + seed * 1_000_000,
            "day": pd.date_range(start, periods=rows, freq="h"),
            "größe": rng.normal(size=rows),
            "distance": rng.normal(size=rows),
            "airport": rng.choice(["JFK", "LGA", "Orléans"], size=rows, p=[0.6, 0.37, 0.03]),
        }
    )
    odds = 1.5 * frame["größe"] + 0.8 * frame["distance"] + rng.normal(scale=0.7, size=rows)
    frame["late"] = (odds > 0).astype("int64")
    return frame


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database whose migrations have run, which takes seconds; the tests get copies."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client(StepContext(store=LocalStore(file.parent), tracking_uri=sqlite_uri(file)), "a test")
    return file


@pytest.fixture(autouse=True)
def _database(migrated: Path, tmp_path: Path) -> None:
    shutil.copy(migrated, tmp_path / "mlflow.db")


@pytest.fixture(name="make_rows")
def make_rows_fixture() -> Callable[..., pd.DataFrame]:
    """Make rows of the example."""
    return make_rows


@pytest.fixture
def frame() -> pd.DataFrame:
    """600 labelled rows."""
    return make_rows()


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Write a frame as Parquet and return its path."""

    def write(frame: pd.DataFrame, name: str = "test") -> str:
        path = tmp_path / f"{name}.parquet"
        frame.to_parquet(path, index=False)
        return str(path)

    return write


@pytest.fixture
def log_model(context: StepContext) -> Callable[..., ModelRef]:
    """Fit a logistic regression (or take a model), log it to MLflow, and put it on record as a trainer would."""

    def log(
        rows: pd.DataFrame | None = None,
        *,
        columns: list[str] = FEATURES,
        model: Any = None,
        recorded: bool = True,
        alias: str | None = None,
        name: str = "flights_late",
        training: dict[str, Any] | None = None,
        keys: pd.DataFrame | None = None,
        example: bool = True,
        signature: bool = True,
        **options: Any,
    ) -> ModelRef:
        import mlflow
        from mlflow.models import infer_signature
        from sklearn.linear_model import LogisticRegression

        rows = make_rows(seed=9) if rows is None else rows
        if model is None:
            model = LogisticRegression().fit(rows[columns], rows["late"])
        mlflow_client = client(context, "a test")
        with mlflow.start_run(experiment_id=experiment_id(mlflow_client, context, "tests")) as run:
            flavour = mlflow.pyfunc if isinstance(model, mlflow.pyfunc.PythonModel) else mlflow.sklearn
            key = "python_model" if flavour is mlflow.pyfunc else "sk_model"
            if flavour is mlflow.sklearn:
                options.setdefault("serialization_format", "cloudpickle")
            info = flavour.log_model(
                **{key: model},
                name="model",
                pip_requirements=["scikit-learn"],
                signature=infer_signature(rows[columns], rows["late"]) if signature else None,
                input_example=rows[columns].head(3) if example else None,
                **options,
            )
        if keys is not None:
            uri = save_row_keys(context.store, hash_rows(keys, {"key": "id"}))
            training = {"row_keys_uri": uri, "row_key_columns": ["id"], "rows": len(keys), **(training or {})}
        ref = ModelRef(
            uri=f"models:/{info.model_id}",
            model_id=info.model_id,
            run_id=run.info.run_id,
            name=name,
            training=training,
            target="late",
        )
        if recorded:
            folder = Path(mlflow.artifacts.download_artifacts(ref.uri))
            manifest = models.manifest_of(folder)
            ref = ModelRef(**{**ref.__dict__, "digest": models.digest_of(manifest)})
            models.record(context, ref, manifest)
        if alias:
            from mlflow.exceptions import MlflowException

            with contextlib.suppress(MlflowException):
                mlflow_client.create_registered_model(name)
            version = mlflow_client.create_model_version(name, ref.uri, run.info.run_id, model_id=info.model_id)
            mlflow_client.set_registered_model_alias(name, alias, version.version)
            ref = ModelRef(**{**ref.__dict__, "version": int(version.version)})
        return ref

    return log
