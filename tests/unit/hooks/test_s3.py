"""From connections of type aws to the access of a step, and to a store in a bucket."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from starlette.requests import Request

from airflow_mlops.core.errors import CannotReachError, CredentialsError, MissingExtraError, SpecError
from airflow_mlops.core.s3 import SOURCE, STORE, S3Access
from airflow_mlops.hooks.s3 import S3AccessHook
from airflow_mlops.hooks.store import StoreHook
from servers.s3 import KEY, SECRET, S3Server


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Define a connection, as the environment of a deployment does."""

    def define(name: str, conn_type: str = "aws", **more: Any) -> str:
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps({"conn_type": conn_type, **more}))
        return name

    return define


def test_keys_region_endpoint_and_certificate_become_the_access(connect: Any) -> None:
    extra = {
        "region_name": "eu-north-1",
        "endpoint_url": "https://minio.example.com:9000",
        "verify": "/etc/ca.pem",
        "config_kwargs": {"s3": {"addressing_style": "virtual"}},
    }
    hook = S3AccessHook(connect("lake", login=KEY, password=SECRET, extra=extra))
    assert hook.access == S3Access(
        endpoint_url="https://minio.example.com:9000",
        region="eu-north-1",
        key=KEY,
        secret=SECRET,
        verify="/etc/ca.pem",
        addressing_style="virtual",
    )
    assert S3Access.from_json(hook.environment[SOURCE]) == hook.access
    assert SECRET not in repr(hook.access)


def test_an_endpoint_of_its_own_service_wins(connect: Any) -> None:
    extra = {"endpoint_url": "http://all", "service_config": {"s3": {"endpoint_url": "http://only-s3"}}}
    assert (
        S3AccessHook(connect("lake", login=KEY, password=SECRET, extra=extra)).access.endpoint_url == "http://only-s3"
    )


def test_a_connection_without_keys_leaves_them_to_the_machine_that_runs_the_step(connect: Any) -> None:
    access = S3AccessHook(connect("lake", extra={"region_name": "eu-north-1"})).access
    assert (access.key, access.secret, access.region) == (None, None, "eu-north-1")


def test_a_role_is_assumed_and_its_session_is_what_travels(connect: Any, s3_server: S3Server) -> None:
    extra = {
        "role_arn": "arn:aws:iam::123456789012:role/mlops",
        "region_name": "eu-north-1",
        "service_config": {"s3": {"endpoint_url": s3_server.url}, "sts": {"endpoint_url": s3_server.url}},
    }
    access = S3AccessHook(connect("lake", login=KEY, password=SECRET, extra=extra)).access
    assert access.key not in (None, KEY)
    assert access.token
    bucket = s3_server.bucket()
    assert access.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_secrets_are_masked_in_logs(connect: Any) -> None:
    from airflow.sdk.log import redact

    _ = S3AccessHook(
        connect("lake", login=KEY, password="pw-very-secret-1", extra={"region_name": "eu-north-1"})
    ).access
    assert "pw-very-secret-1" not in str(redact("it is pw-very-secret-1"))


def test_what_cannot_be_had_is_an_error_and_never_the_machines_own_role(connect: Any) -> None:
    with pytest.raises(CannotReachError, match=r"'lake' cannot be had.*secrets back end"):
        _ = S3AccessHook("lake").access
    with pytest.raises(SpecError, match="must have type 'aws'"):
        _ = S3AccessHook(connect("lake", "postgres")).access


def test_a_role_that_cannot_be_assumed_is_no_access(connect: Any) -> None:
    nobody = {"sts": {"endpoint_url": "http://127.0.0.1:9"}}
    extra = {"role_arn": "arn:aws:iam::1:role/x", "region_name": "eu-north-1", "service_config": nobody}
    with pytest.raises((CannotReachError, CredentialsError)) as caught:
        _ = S3AccessHook(connect("lake", login=KEY, password=SECRET, extra=extra)).access
    assert SECRET not in str(caught.value)


def test_without_the_amazon_provider_it_says_what_to_install(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect("lake", login=KEY, password=SECRET)
    monkeypatch.setitem(sys.modules, "airflow.providers.amazon.aws.hooks.base_aws", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[amazon\]'"):
        _ = S3AccessHook("lake").access


# The store


def stored(connect: Any, s3_server: S3Server, **extra: Any) -> StoreHook:
    where = {"region_name": "eu-north-1", "endpoint_url": s3_server.url}
    return StoreHook(connect("shelf", login=KEY, password=SECRET, extra={**where, **extra}))


def test_a_bucket_and_a_prefix_are_a_store(connect: Any, s3_server: S3Server) -> None:
    bucket = s3_server.bucket()
    hook = stored(connect, s3_server, bucket=bucket, prefix="/team/churn/")
    assert hook.uri == f"s3://{bucket}/team/churn"
    assert hook.get_conn().put_bytes("x", b"1", if_absent=True)
    assert s3_server.client.get_object(Bucket=bucket, Key="team/churn/x")["Body"].read() == b"1"
    assert S3Access.from_json(hook.environment[STORE]).uri == hook.uri
    assert SECRET not in hook.uri
    assert stored(connect, s3_server, bucket=bucket).uri == f"s3://{bucket}"
    assert stored(connect, s3_server, service_config={"s3": {"bucket_name": bucket}}).uri == f"s3://{bucket}"


def test_a_connection_that_names_no_bucket_or_an_impossible_one_is_refused(connect: Any, s3_server: S3Server) -> None:
    for extra in ({}, {"bucket": " "}, {"bucket": 5}):
        with pytest.raises(SpecError, match="names no bucket"):
            _ = stored(connect, s3_server, **extra).uri
    with pytest.raises(SpecError):
        _ = stored(connect, s3_server, bucket="key:pw123@bucket").uri
    with pytest.raises(SpecError):
        _ = stored(connect, s3_server, bucket="bucket", prefix="../x").uri


def test_a_folder_needs_no_variable(connect: Any, tmp_path: Any) -> None:
    hook = StoreHook(connect("shelf", "fs", extra={"path": str(tmp_path)}))
    assert hook.environment == {}
    assert hook.access is None


def test_a_secrets_back_end_that_is_down_is_never_the_embedded_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    import airflow.sdk.execution_time.supervisor as supervisor

    class Down:
        def get_connection(self, conn_id: str) -> None:
            raise ConnectionError("the vault does not answer")

    monkeypatch.setattr(supervisor, "ensure_secrets_backend_loaded", lambda: [Down()])
    monkeypatch.setenv("AIRFLOW__MLOPS__BACKEND", "connections")
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "home"))
    for ask in (lambda: StoreHook().uri, lambda: StoreHook("shelf").environment, lambda: S3AccessHook("lake").access):
        with pytest.raises(CannotReachError, match="secrets back end"):
            ask()
    assert not (tmp_path / "home").exists()


# Reports in Airflow's UI


def test_the_api_server_serves_reports_from_a_bucket(connect: Any, s3_server: S3Server) -> None:
    import asyncio

    from fastapi import HTTPException

    from airflow_mlops.web.app import report_file

    hook = stored(connect, s3_server, bucket=s3_server.bucket(), prefix="mlops")
    store = hook.get_conn()
    page = b"<p>" + b"x" * (3 << 20)
    store.put_bytes("reports/flights/t/1/report.html", page)
    store.put_bytes("reports/other/t/1/report.html", b"other")
    store.put_bytes("ledger/x", b"secret")

    def ask(path: str, method: str = "GET") -> tuple[Any, bytes]:
        request = Request({"type": "http", "method": method, "headers": [], "path": "/", "query_string": b""})
        answer = report_file(request, "flights", path, "shelf")

        async def body() -> bytes:
            if not hasattr(answer, "body_iterator"):
                return bytes(answer.body)
            return b"".join([bytes(block) async for block in answer.body_iterator])

        return answer, asyncio.run(body())

    answer, body = ask("t/1/report.html")
    assert body == page
    assert answer.headers["content-length"] == str(len(page))
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in answer.headers["content-security-policy"]
    answer, body = ask("t/1/report.html", "HEAD")
    assert (body, answer.headers["content-length"]) == (b"", str(len(page)))
    for path in ("t/1", "t/2/report.html", "../other/t/1/report.html", "../../ledger/x", "", ".staging/x"):
        with pytest.raises(HTTPException) as caught:
            ask(path)
        assert caught.value.status_code == 404
