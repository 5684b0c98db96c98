"""Taking over the watch on a version that somebody else trained, registered and serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core import models
from airflow_mlops.core.drift.binding import champion_profile
from airflow_mlops.core.drift.step import detect_drift
from airflow_mlops.core.errors import IntegrityError, NotFoundError, SpecError
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.monitoring.performance import monitor_performance
from airflow_mlops.core.registry.adopt_version import adopt_model
from airflow_mlops.core.registry.versions import version_record
from airflow_mlops.core.tracking import client


@pytest.fixture
def theirs(mlflow_context: Any, log_model: Any) -> Any:
    """Version 1 of ``theirs`` and its alias, made with nothing but MLflow."""
    api = client(mlflow_context, "the test")
    ref = log_model(record=False)
    api.create_registered_model("theirs")
    api.create_model_version("theirs", ref["uri"], run_id=ref["run_id"], model_id=ref["model_id"])
    api.set_registered_model_alias("theirs", "production", "1")
    return api


@pytest.fixture
def january(tmp_path: Path) -> str:
    values = np.random.default_rng(0).normal(size=400)
    pd.DataFrame({"customer": range(400), "age": values}).to_parquet(tmp_path / "january.parquet")
    pd.DataFrame({"customer": range(400), "age": values + 3}).to_parquet(tmp_path / "july.parquet")
    return str(tmp_path / "january.parquet")


def test_what_monitors_need_is_on_record_and_no_alias_moves(as_task, mlflow_context, theirs, january, tmp_path) -> None:
    ref = adopt_model(
        as_task("a"),
        model="models:/theirs@production",
        reference=january,
        baseline={"roc_auc": 0.9},
        roles={"key": "customer"},
    )
    assert (ref["name"], ref["version"], ref["baseline"]) == ("theirs", 1, {"roc_auc": 0.9})
    assert ref["digest"].startswith("sha256:")
    assert models.recorded(mlflow_context, models.ModelRef.from_dict({**ref, "uri": f"models:/{ref['model_id']}"}))
    assert theirs.get_registered_model("theirs").aliases == {"production": 1}
    assert len(theirs.search_model_versions("name='theirs'")) == 1

    # Drift by the alias needs the current data alone.
    version, profile, _ = champion_profile(mlflow_context, "theirs", "production")
    assert (version, profile.rows) == (1, 400)
    Path(january).rename(tmp_path / "gone.parquet")
    drifted = detect_drift(as_task("d"), current=str(tmp_path / "july.parquet"), reference="theirs@production")
    assert drifted["passed"] is False
    assert "customer" not in [one["column"] for one in drifted["failures"]]

    # A log that somebody else writes is measured from the level on record.
    count = 400
    truth = np.random.default_rng(1).integers(0, 2, count)
    log = pd.DataFrame({"id": range(count), "score": np.random.default_rng(2).random(count), "truth": truth})
    log["at"] = pd.date_range("2026-01-01", periods=count, freq="h", tz="UTC")
    log.to_parquet(tmp_path / "log.parquet")
    columns = {"key": "id", "time": "at", "probability": "score", "label": "truth"}
    report = monitor_performance(
        as_task("m"),
        predictions={"uri": str(tmp_path / "log.parquet"), "format": "parquet", "columns": columns},
        subject="theirs:1",
        max_drop=0.05,
        window={"start": "2026-01-01", "end": "2026-02-01"},
    )
    assert report["baseline"] == {"roc_auc": 0.9}
    assert report["severity"] == "error"


def test_adopted_again_what_is_given_takes_the_place_of_what_was(as_task, theirs, january, tmp_path) -> None:
    first = adopt_model(as_task("a"), model="theirs/1", reference=january, baseline={"roc_auc": 0.9})
    again = adopt_model(as_task("b"), model="theirs/1", baseline={"kind": "model_test", "metrics": {"roc_auc": 0.8}})
    assert (again["baseline"], again["reference"]) == ({"roc_auc": 0.8}, first["reference"])
    assert again["profile_uri"] == first["profile_uri"]
    july = adopt_model(as_task("c"), model="theirs/1", reference=str(tmp_path / "july.parquet"))
    assert july["profile_uri"] != first["profile_uri"]
    assert july["baseline"] == {"roc_auc": 0.8}


def test_what_cannot_be_adopted_is_said_in_one_line(as_task, theirs, log_model, mlflow_context, tmp_path) -> None:
    with pytest.raises(SpecError, match="no version in the registry"):
        adopt_model(as_task("a"), model=log_model(record=False)["uri"])
    with pytest.raises(SpecError, match="baseline is"):
        adopt_model(as_task("a"), model="theirs/1", baseline=["roc_auc"])
    with pytest.raises(NotFoundError):
        adopt_model(as_task("a"), model="theirs@champion")
    adopt_model(as_task("a"), model="theirs/1")
    for weights in mlflow_context.store.root.parent.rglob("weights.txt"):
        weights.write_text("2")
    with pytest.raises(IntegrityError):
        adopt_model(as_task("b"), model="theirs/1")


@pytest.mark.parametrize("point", CRASH_POINTS["adopt_version"])
def test_killed_at_any_point_and_tried_again(mlflow_context, theirs, january, tmp_path, point: str) -> None:
    spec = {
        "step": "adopt_model",
        "args": {"model": "theirs/1", "reference": january, "baseline": {"roc_auc": 0.9}},
        "store": mlflow_context.store.uri,
        "tracking_uri": mlflow_context.tracking_uri,
        "key": "run/1",
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "airflow_mlops.core", "--spec", "spec.json", "--report", "report.json"]
    killed = subprocess.run(command, cwd=tmp_path, env={**os.environ, VARIABLE: point}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    ref = adopt_model(mlflow_context, model="theirs/1", reference=january, baseline={"roc_auc": 0.9})

    assert version_record(mlflow_context, "theirs", 1)["baseline"] == {"roc_auc": 0.9}
    assert [mlflow_context.store.uri_of(key) for key in mlflow_context.store.keys("profiles")] == [ref["profile_uri"]]
    assert theirs.get_registered_model("theirs").aliases == {"production": 1}
