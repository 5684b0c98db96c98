"""The DAGs that teams write first, as the docs show them, run in Airflow on real Postgres, S3 and mail servers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.core.monitoring import history
from airflow_mlops.core.registry.ledger import Ledger
from airflow_mlops.core.store import LocalStore
from servers.inboxes import MailServer
from servers.s3 import KEY, SECRET, S3Server

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CUSTOMERS = """
create schema if not exists shop;
drop table if exists shop.customers;
select setseed(0.5);
create table shop.customers as
    select i as customer_id, timestamptz '2025-11-01' + i * interval '3 hours' as seen_at, c as calls, m as months,
        (c / m::float + (random() - 0.5) > 0.5)::int as churned
    from (select i, (random() * 20)::int as c, 1 + (random() * 40)::int as m from generate_series(0, 799) i) rows;
"""


def run(airflow: Any, dag: str, date: str = "2026-02-01", *, ok: bool = True, **conf: Any) -> str:
    done = airflow.cli("dags", "test", dag, date, "--conf", json.dumps(conf))
    assert (done.returncode == 0) is ok, done.stdout[-5000:]
    return str(done.stdout)


def test_weekly_retraining_from_a_warehouse_table(airflow_test: Any, postgres: Any) -> None:
    for name in ("weekly_retraining.py", "churn_model.py"):
        shutil.copy(EXAMPLES / name, airflow_test.dags)
    postgres.execute(CUSTOMERS)
    airflow_test.connections["warehouse"] = postgres.airflow_uri

    store = LocalStore(airflow_test.home / "mlops" / "store")

    def released() -> list[int | None]:
        return [entry.version for entry in Ledger(store, "churn").entries()]

    def versions() -> int:
        return len(list(store.keys("versions")))

    out = run(airflow_test, "churn_weekly", until="2026-01-05")
    assert "Retrain, because" in out
    assert "s3cr" not in out
    assert (released(), versions()) == ([1], 1)


def test_a_model_of_somebody_else_by_its_inference_table_on_s3(
    airflow_test: Any, s3_server: S3Server, mail_server: MailServer, tmp_path: Path
) -> None:
    shutil.copy(EXAMPLES / "watch_inference_table.py", airflow_test.dags)
    lake = f"s3://{s3_server.bucket()}/churn"
    extra = {"endpoint_url": s3_server.url, "region_name": "eu-north-1"}
    aws = {"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra}
    airflow = dataclasses.replace(
        airflow_test, connections={"lake": json.dumps(aws), "smtp_default": mail_server.connection}
    )
    rng = np.random.default_rng(0)

    def put(folder: str, frame: pd.DataFrame) -> None:
        frame.to_parquet(tmp_path / "rows.parquet", index=False)
        s3_server.put(f"{lake}/{folder}/{len(frame)}.parquet", (tmp_path / "rows.parquet").read_bytes())

    def asked(start: str, days: int) -> pd.DataFrame:
        count = 48 * days
        score = rng.random(count)
        times = pd.date_range(start, periods=count, freq="30min", tz="UTC")
        ids = [f"{start}-{number}" for number in range(count)]
        return pd.DataFrame({"request_id": ids, "asked_at": times, "age": rng.normal(50, 9, count), "score": score})

    put("when-it-was-well", asked("2025-10-01", 70))
    inference = asked("2026-01-01", 59)
    # In February somebody sends months for years, and in January already nothing came true as it was said.
    inference.loc[inference["asked_at"] >= "2026-02-01", "age"] *= 12
    put("inference", inference)
    outcomes = inference.loc[inference["asked_at"] < "2026-02-01", ["request_id"]]
    put("outcomes", outcomes.assign(churned=rng.integers(0, 2, len(outcomes))))

    run(airflow, "churn_inference_watched", "2026-02-01T06:00:00+00:00", lake=lake)
    assert mail_server.received == []
    last = run(airflow, "churn_inference_watched", "2026-03-01T06:00:00+00:00", lake=lake)

    store = LocalStore(airflow.home / "mlops" / "store")
    drift = history.read(store, "churn", kind="drift")
    assert [point.severity for point in drift] == ["ok", "warning"]
    (january,) = history.read(store, "churn", kind="performance")
    assert (january.version, january.severity) == ("7", "error")
    assert january.window["start"].startswith("2026-01-01")
    # Features that drift are for a digest; a loss of performance is for the owner.
    (mail,) = mail_server.received
    assert (mail["To"], mail["Subject"]) == ("growth@example.com", "[error] Loss of performance: churn:7")
    assert not (airflow.home / "mlops" / "mlflow.db").exists(), "no registry is asked"
    assert SECRET not in last


def test_gates_in_a_dag_that_loads_orders(airflow_test: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "gates_in_etl.py", airflow_test.dags)
    loaded = tmp_path / "loaded"
    loaded.mkdir()
    rng = np.random.default_rng(0)

    def day(date: str, first: int) -> pd.DataFrame:
        times = pd.date_range(date, periods=288, freq="5min", tz="UTC")
        totals = rng.lognormal(3, 0.5, 288)
        return pd.DataFrame({"order_id": range(first, first + 288), "ordered_at": times, "total": totals})

    for number in range(10):
        day(f"2026-01-{number + 1:02d}", 1000 * number).to_parquet(loaded / f"{number}.parquet")
    landed = tmp_path / "today.parquet"
    conf = {"landed": str(landed), "loaded": str(loaded)}

    day("2026-01-11", 10_000).to_parquet(landed)
    run(airflow_test, "orders_loaded", "2026-01-12", **conf)
    assert len(list(loaded.iterdir())) == 11
    (loaded / "today.parquet").rename(loaded / "10.parquet")

    cents = day("2026-01-12", 11_000)
    cents.assign(total=cents["total"] * 100).to_parquet(landed)
    out = run(airflow_test, "orders_loaded", "2026-01-13", ok=False, **conf)
    assert "MlopsGateFailed" in out
    assert len(list(loaded.iterdir())) == 11, "cents are not loaded"


def test_mapped_monitors_are_one_task_a_model_and_region(airflow_test: Any, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "mapped_monitors.py", airflow_test.dags)
    rng = np.random.default_rng(0)
    count = 24 * 31
    for folder in ("churn", "before", "returns"):
        (tmp_path / folder).mkdir()
        for number, region in enumerate(("north", "south")):
            score = rng.random(count) ** (4 if (folder, region) == ("churn", "south") else 1)
            truth = rng.random(count) < (0.5 if folder == "returns" else score)
            frame = pd.DataFrame({"id": np.arange(count) + number * count, "score": score})
            frame["at"] = pd.date_range("2026-01-01", periods=count, freq="h", tz="UTC")
            frame.assign(came_true=truth.astype(int)).to_parquet(tmp_path / folder / f"{region}.parquet")

    run(airflow_test, "models_watched", lake=str(tmp_path))

    store = LocalStore(airflow_test.home / "mlops" / "store")
    found = {name: history.read(store, name)[0].severity for name in ("churn", "returns", "churn-north", "churn-south")}
    assert found == {"churn": "ok", "returns": "error", "churn-north": "ok", "churn-south": "warning"}
    incidents = airflow_test.cli("mlops", "history", "returns", "--incidents", "-o", "json")
    assert '"opened"' in incidents.stdout
