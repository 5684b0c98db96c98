"""Checks before any traffic: what a model without an input example is asked."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.core import models
from airflow_mlops.core.serving import checks, offline
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.vocabulary import ModelRef


def test_rows_that_were_held_out_stand_in_for_an_input_example(context: StepContext, tmp_path: Any) -> None:
    ref = ModelRef(uri="models:/m-1", model_id="m-1", digest="sha256:a")
    assert checks.held_out(context, ref.to_dict()) is None
    pd.DataFrame({"a": np.arange(50.0)}).to_parquet(tmp_path / "rows.parquet")
    context.store.put_file("data/rows.parquet", tmp_path / "rows.parquet")
    dataset = {"uri": context.store.uri_of("data/rows.parquet"), "format": "parquet"}
    models.record(context, dataclasses.replace(ref, test_dataset=dataset), {"MLmodel": "sha256:b"})
    rows = checks.held_out(context, {"uri": "models:/m-1", "model_id": "m-1"})
    assert rows is not None
    assert rows["a"].tolist() == list(range(checks.ROWS))


def test_predictions_agree_within_a_tolerance() -> None:
    nan = float("nan")
    assert offline.disagreeing([1.0, nan, "x", [0.5, None]], [1.0 + 1e-9, nan, "x", [0.5, None]], 1e-6) == []
    assert offline.disagreeing([1.0, 2.0], [1.0, 2.1], 1e-6) == [1]
    assert offline.disagreeing([1.0], [1.0, 2.0], 1e-6) == [0, 1]
    assert offline.disagreeing([{"p": 1}], [{"q": 1}], 1e-6) == [0]
