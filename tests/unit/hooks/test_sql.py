"""SqlHook: from Airflow's connections to the URL that a step reads by."""

from __future__ import annotations

import logging
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import CannotReachError, MissingExtraError, SpecError
from airflow_mlops.hooks.sql import SqlHook


def test_the_url_is_the_one_of_the_providers_hook(postgres: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", postgres.airflow_uri)
    hook = SqlHook("warehouse")
    with hook.get_conn().connect() as connection:
        assert connection.exec_driver_sql("select current_user").scalar() == "warehouse"
    assert list(hook.environment) == ["MLOPS_SQL_URL"]


def test_how_to_connect_is_read_from_the_extra(postgres: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlalchemy as sa

    extra = "?sslmode=require&application_name=mlops&cursor=dictcursor"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", postgres.airflow_uri + extra)
    assert dict(sa.make_url(SqlHook("warehouse").url).query) == {"sslmode": "require", "application_name": "mlops"}
    with pytest.raises(sa.exc.OperationalError, match="does not support SSL"):
        SqlHook("warehouse").get_conn().connect()


def test_sqlite_needs_no_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "with space.db"
    sqlite3.connect(path).execute("create table t (a)").connection.close()
    monkeypatch.setenv("AIRFLOW_CONN_LITE", f'{{"conn_type": "sqlite", "host": "{path}"}}')
    with SqlHook("lite").get_conn().connect() as connection:
        assert connection.exec_driver_sql("select count(*) from t").scalar() == 0


def test_connections_that_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotReachError, match="'nobody' cannot be had"):
        _ = SqlHook("nobody").url
    monkeypatch.setenv("AIRFLOW_CONN_WEB", "http://u:s3cret@example.com")
    with pytest.raises(SpecError, match="type 'http'"):
        _ = SqlHook("web").url
    # What Airflow's command line makes of a type that no installed provider has.
    monkeypatch.setenv("AIRFLOW_CONN_FILE", '{"conn_type": "generic", "host": "/srv/shop.db"}')
    with pytest.raises(SpecError, match="that provider and make the connection again"):
        _ = SqlHook("file").url
    monkeypatch.setenv("AIRFLOW_CONN_ODD", "oddbase://u:s3cret@example.com")
    with pytest.raises(SpecError, match="no installed provider knows the type 'oddbase'") as caught:
        _ = SqlHook("odd").url
    assert "s3cret" not in str(caught.value)


def test_without_the_provider_it_says_which_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://u:p@h/x")
    monkeypatch.setitem(sys.modules, "airflow.providers.common.sql.hooks.sql", None)
    with pytest.raises(MissingExtraError, match=r"airflow-provider-mlops\[sql\]"):
        _ = SqlHook("warehouse").url


def test_the_password_is_masked(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    masked: list[Any] = []
    monkeypatch.setattr("airflow.sdk.log.mask_secret", lambda secret, name=None: masked.append(secret))
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "postgres://u:s3cr%2Ft@h/x")
    url = SqlHook("warehouse").url
    assert "s3cr" in url
    assert {url, "s3cr/t", "s3cr%2Ft"} <= set(masked)
    assert "s3cr" not in caplog.text
