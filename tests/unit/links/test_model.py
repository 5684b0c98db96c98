"""Addresses of a task's report, MLflow run and model version."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops.backend import Tracking
from airflow_mlops.core.store import LocalStore, safe_name
from airflow_mlops.links.model import PREFIX, MLflowRunLink, ModelVersionLink, ReportLink, report_url, urls_of

MODEL = {"kind": "model", "name": "late flights", "version": 3, "run_id": "abc"}


def urls(result: dict[str, Any], tracking: Tracking | None, store: str = "/store") -> dict[str, str]:
    return urls_of(result, store_uri=store, tracking=tracking, dag_id="d")


def test_a_report_of_the_dag_has_an_address_below_the_base_url(store: LocalStore, monkeypatch: Any) -> None:
    uri = store.uri_of(f"reports/{safe_name('dag ü')}/t#1/report.html")
    assert report_url(store.uri, uri, "dag ü") == f"{PREFIX}/reports/dag%20%C3%BC/t%231/report.html"
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/team/")
    assert report_url(store.uri, uri, "dag ü", "far/store") == (
        "https://airflow.example.com/team/mlops/reports/dag%20%C3%BC/t%231/report.html?store=far%2Fstore"
    )


def test_a_report_that_is_elsewhere_has_none(store: LocalStore, tmp_path: Path) -> None:
    for uri in (
        None,
        "",
        store.uri,
        store.uri_of("reports/other/t/report.html"),
        store.uri_of("datasets/d/x"),
        (tmp_path / "x.html").as_uri(),
        store.uri + "/reports/d/../other/x",
        "s3://bucket/reports/d/x",
    ):
        assert report_url(store.uri, uri, "d") is None


@pytest.mark.parametrize(
    ("tracking", "base"),
    [
        (Tracking(tracking_uri="https://mlflow.example.com:5000/x/"), "https://mlflow.example.com:5000/x"),
        (Tracking(tracking_uri="http://internal:5000", ui_url="https://ml.example.com"), "https://ml.example.com"),
        (Tracking(tracking_uri="sqlite:////a.db", ui_url="http://me:hunter2@localhost:5000"), "http://localhost:5000"),
    ],
)
def test_mlflow_pages_are_where_people_open_mlflow_without_credentials(tracking: Tracking, base: str) -> None:
    assert urls(MODEL, tracking) == {
        "run": f"{base}/#/runs/abc",
        "version": f"{base}/#/models/late%20flights/versions/3",
    }


def test_a_registry_of_its_own_has_the_version() -> None:
    tracking = Tracking(tracking_uri="http://tracking", registry_uri="http://registry")
    assert urls(MODEL, tracking) == {
        "run": "http://tracking/#/runs/abc",
        "version": "http://registry/#/models/late%20flights/versions/3",
    }


@pytest.mark.parametrize("tracking", [None, Tracking(tracking_uri="sqlite:////home/mlflow.db")])
def test_without_a_server_there_is_no_address_rather_than_a_dead_one(tracking: Tracking | None) -> None:
    assert urls(MODEL, tracking) == {}


def test_what_is_not_registered_has_no_version_and_a_ledger_entry_has() -> None:
    tracking = Tracking(tracking_uri="http://m")
    assert urls({**MODEL, "version": None}, tracking) == {"run": "http://m/#/runs/abc"}
    assert urls({**MODEL, "kind": "dataset", "run_id": None}, tracking) == {}
    entry = {"kind": "ledger_entry", "model": "m", "version": 2}
    assert urls(entry, tracking) == {"version": "http://m/#/models/m/versions/2"}


def test_a_link_is_what_the_operator_left_and_empty_where_it_left_nothing() -> None:
    operator = SimpleNamespace(link_urls={"report": "r", "run": "m"})
    assert [link.get_link(operator, ti_key=None) for link in (ReportLink(), MLflowRunLink(), ModelVersionLink())] == [
        "r",
        "m",
        "",
    ]
    assert ReportLink().get_link(SimpleNamespace(), ti_key=None) == ""
    assert len({ReportLink().xcom_key, MLflowRunLink().xcom_key, ModelVersionLink().xcom_key}) == 3
