"""A store with things of every age in it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from airflow_mlops.core import digests
from airflow_mlops.core.data.dataset import write_table
from airflow_mlops.core.registry.promote import promote_model
from airflow_mlops.core.registry.register import register_model
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore
from airflow_mlops.core.vocabulary import DatasetRef


@pytest.fixture
def context(mlflow_context: StepContext) -> StepContext:
    """The step's context on an MLflow that is set up already."""
    return mlflow_context


@pytest.fixture
def aged(store: LocalStore) -> Callable[..., None]:
    """Make everything below some prefixes (default: all) look as if it was written days ago."""

    def age(*prefixes: str, days: float = 100) -> None:
        then = (dt.datetime.now() - dt.timedelta(days=days)).timestamp()
        for key in list(store.keys()):
            if not prefixes or key.startswith(prefixes):
                os.utime(store.path_of(key), (then, then))

    return age


@pytest.fixture
def snapshot(store: LocalStore) -> Callable[..., DatasetRef]:
    """Store a small dataset of customers."""

    def write(name: str = "churn", customers: Any = (1, 2, 3), roles: Any = None, **columns: Any) -> DatasetRef:
        table = pa.table({"customer": list(customers), "spent": [float(i) for i in range(len(customers))], **columns})
        return write_table(store, table, name=name, roles={"key": "customer"} if roles is None else roles)

    return write


@pytest.fixture
def version(context: StepContext, log_model: Any, snapshot: Any, store: LocalStore) -> Callable[..., dict[str, Any]]:
    """Register a version of ``churn`` that was trained and tested on datasets of its own, with evidence."""
    made: list[int] = []

    def register(customers: Any = None, promote: bool = False, **more: Any) -> dict[str, Any]:
        import numpy as np

        from airflow_mlops.core.data.dataset import read_frame
        from airflow_mlops.core.training.rowkeys import hash_rows, save_row_keys

        number = len(made) + 1
        made.append(number)
        customers = customers or [10 * number + i for i in range(4)]
        training, test = snapshot("train", customers), snapshot("test", [1000 * one for one in customers])
        keys = hash_rows(read_frame(store, training), {"key": "customer"})
        record = {
            "dataset_digest": training.digest,
            "row_keys_uri": save_row_keys(store, np.asarray(keys)),
            "row_key_columns": ["customer"],
        }
        ref = log_model(str(number), training=record, test_dataset=test.to_dict(), **more)
        details = {"tests": [], "of": ref["uri"]}
        key = f"reports/flights/test/{number}/details.json"
        store.put_json(key, details)
        store.put_bytes(key.replace("details.json", "report.html"), b"<p>")
        report = {
            "kind": "model_test",
            "passed": True,
            "severity": "ok",
            "summary": "All good.",
            "subject": ref["digest"],
            "details_uri": store.uri_of(key),
            "report_uri": store.uri_of(key.replace("details.json", "report.html")),
            "digest": digests.of_json(details),
        }
        own = dataclasses.replace(context, key=f"register/{number}")
        found = register_model(own, model=ref, model_name="churn", evidence=[report])
        if promote:
            own = dataclasses.replace(context, key=f"promote/{number}")
            promote_model(own, model=f"churn/{found['version']}")
        return found

    return register
