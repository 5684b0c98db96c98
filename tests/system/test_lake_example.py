"""Level 1 with the source and the store on S3 and an MLflow server: everything through connections."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.store import open_store
from servers.mlflow import start_mlflow, stop_mlflow
from servers.s3 import KEY, SECRET, S3Server

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def mlflow_url(tmp_path: Path, migrated_database: Path) -> Iterator[str]:
    folder = tmp_path / "server"
    folder.mkdir()
    url, server = start_mlflow(folder, migrated_database)
    try:
        yield url
    finally:
        stop_mlflow(server)


def put_customers(server: S3Server, uri: str, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = 400
    frame = pd.DataFrame(
        {
            "customer_id": np.arange(rows) + seed * rows,
            "seen_at": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(rows), "h"),
            "calls": rng.integers(0, 50, rows),
            "months": rng.integers(1, 40, rows),
        }
    )
    frame["churned"] = (frame["calls"] / frame["months"] + rng.normal(size=rows) > 1).astype("int64")
    path = tmp_path / f"{seed}.parquet"
    frame.to_parquet(path, index=False)
    server.put(uri, path.read_bytes())


def connect(airflow_test: Any, name: str, kind: str, **more: Any) -> None:
    airflow_test.connections[name] = json.dumps({"conn_type": kind, **more})


def test_from_a_file_on_s3_to_the_champion(
    airflow_test: Any, s3_server: S3Server, mlflow_url: str, tmp_path: Path
) -> None:
    for name in ("lake_level_1.py", "churn_model.py"):
        shutil.copy(EXAMPLES / name, airflow_test.dags)
    (airflow_test.home / "airflow.cfg").write_text("[mlops]\nbackend = connections\n")
    lake, mlops = s3_server.bucket(), s3_server.bucket()
    aws = {"login": KEY, "password": SECRET}
    where = {"endpoint_url": s3_server.url, "region_name": "eu-north-1"}
    connect(airflow_test, "lake", "aws", **aws, extra=where)
    connect(airflow_test, "mlops_store_default", "aws", **aws, extra={**where, "bucket": mlops, "prefix": "churn"})
    connect(airflow_test, "mlflow_default", "mlflow", host=mlflow_url)
    put_customers(s3_server, f"s3://{lake}/customers/1.parquet", tmp_path, 1)

    conf = json.dumps({"customers": f"s3://{lake}/customers/*.parquet", "settle": "1s"})
    run = airflow_test.cli("dags", "test", "churn_from_the_lake", "--conf", conf)
    assert run.returncode == 0, run.stdout[-6000:]
    assert SECRET not in run.stdout
    assert "1 new files of 1" in run.stdout

    store = open_store(f"s3://{mlops}/churn", s3_server.access)
    assert len([key for key in store.keys("data") if key.endswith(".parquet")]) == 2, "the data, and the test rows"
    assert not (airflow_test.home / "mlops").exists(), "nothing is on this machine"
    status = airflow_test.cli("mlops", "status", "churn", "--output", "json")
    assert status.returncode == 0, status.stdout
    assert "champion" in status.stdout
    doctor = airflow_test.cli("mlops", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert SECRET not in doctor.stdout
    # Nothing is old enough to go.
    before = sorted(store.keys())
    shown = airflow_test.cli("mlops", "gc")
    assert shown.returncode == 0, shown.stdout
    assert sorted(store.keys()) == before
