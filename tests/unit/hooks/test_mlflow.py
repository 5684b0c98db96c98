"""The connection of type ``mlflow``: addresses, credentials, and what its test says."""

from __future__ import annotations

import http.server
import json
import logging
import os
import runpy
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from airflow_mlops.core.errors import CredentialsError, MlopsError, SpecError
from airflow_mlops.hooks.mlflow import MLflowHook, tracking_of

SECRET = "s3cr3t/pass word"


def conn(**fields: Any) -> Connection:
    extra = fields.pop("extra", None)
    return Connection(
        conn_id="ours",
        conn_type=fields.pop("conn_type", "mlflow"),
        extra=json.dumps(extra) if extra else None,
        **fields,
    )


@pytest.mark.parametrize(
    ("fields", "uri"),
    [
        ({"host": "mlflow.example.com"}, "http://mlflow.example.com"),
        ({"host": "mlflow.example.com", "port": 443}, "https://mlflow.example.com:443"),
        ({"host": "mlflow.example.com", "port": 5000, "schema": "https"}, "https://mlflow.example.com:5000"),
        ({"host": "https://mlflow.example.com/mlflow/", "port": 8080}, "https://mlflow.example.com:8080/mlflow"),
        ({"host": "mlflow.example.com:5001", "port": 5000}, "http://mlflow.example.com:5001"),
        ({"host": "::1", "port": 5000}, "http://[::1]:5000"),
        ({"host": "https://user:pw@mlflow.example.com"}, "https://mlflow.example.com"),
        ({"host": "mlflow", "conn_type": "http"}, "http://mlflow"),
    ],
)
def test_addresses(fields, uri):
    assert tracking_of(conn(**fields), "ours").tracking_uri == uri


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        (
            {"login": "ana", "password": SECRET},
            {
                "MLFLOW_TRACKING_USERNAME": "ana",
                "MLFLOW_TRACKING_PASSWORD": SECRET,
                "MLFLOW_TRACKING_TOKEN": "",
            },
        ),
        (
            {"password": SECRET},
            {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": "", "MLFLOW_TRACKING_TOKEN": SECRET},
        ),
        (
            {"extra": {"token": SECRET}},
            {"MLFLOW_TRACKING_USERNAME": "", "MLFLOW_TRACKING_PASSWORD": "", "MLFLOW_TRACKING_TOKEN": SECRET},
        ),
        # What a form hands over: text for everything.
        (
            {"extra": {"insecure_tls": "true", "timeout": "7"}},
            {"MLFLOW_TRACKING_INSECURE_TLS": "true", "MLFLOW_HTTP_REQUEST_TIMEOUT": "7"},
        ),
        (
            {"extra": {"insecure_tls": True, "timeout": 7}},
            {"MLFLOW_TRACKING_INSECURE_TLS": "true", "MLFLOW_HTTP_REQUEST_TIMEOUT": "7"},
        ),
        ({"extra": {"insecure_tls": "False", "timeout": "", "registry_uri": "", "token": ""}}, {}),
        ({"extra": {"server_cert_path": "/ca.pem"}}, {"MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca.pem"}),
    ],
)
def test_credentials_and_options(fields, expected):
    assert dict(tracking_of(conn(host="mlflow", **fields), "ours").environment) == expected


def test_credentials_in_the_host_are_taken_out_of_it():
    tracking = tracking_of(conn(host="https://ana:p%40ss@mlflow"), "ours")

    assert tracking.environment["MLFLOW_TRACKING_PASSWORD"] == "p@ss"
    assert "p%40ss" not in tracking.tracking_uri


def test_a_worker_that_has_other_credentials_does_not_send_them(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "worker")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "other server's")
    seen = []
    with server(lambda handler: (seen.append(handler.headers["Authorization"]), answer(handler, 500))[1]) as port:
        check(host="localhost", port=port, extra={"token": "abc"})

    assert seen
    assert set(seen) == {"Bearer abc"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no host"),
        ({"host": "mlflow", "conn_type": "postgres"}, "type 'postgres'"),
        ({"host": "ftp://mlflow"}, "http or https, not to 'ftp'"),
        ({"host": "mlflow", "schema": "db"}, "http or https, not to 'db'"),
        ({"host": "mlflow:port"}, "not an address"),
        ({"host": "mlflow", "extra": {"tokn": SECRET}}, "did you mean 'token'"),
        ({"host": "mlflow", "extra": {"timeout": "soon"}}, "whole seconds"),
        ({"host": "mlflow", "extra": {"insecure_tls": "maybe"}}, "true or false"),
        ({"host": "mlflow", "extra": {"insecure_tls": "true", "server_cert_path": "/ca"}}, "give one of them"),
        ({"host": "mlflow", "login": "a", "password": SECRET, "extra": {"token": SECRET}}, "a login and a token"),
        ({"host": "mlflow", "extra": {"registry_uri": "https://a:s3cr3t@registry"}}, "registry_uri.*credentials"),
    ],
)
def test_mistakes_are_named_without_quoting_secrets(fields, message):
    with pytest.raises(SpecError, match=message) as error:
        tracking_of(conn(**fields), "ours")
    assert "s3cr3t" not in str(error.value)


def test_secrets_are_masked_raw_and_encoded():
    from airflow.sdk._shared.secrets_masker import redact

    tracking_of(conn(host="mlflow", login="ana", password="pa/ss wörd-1"), "ours")
    tracking_of(conn(host="mlflow", extra={"token": "t0k/en=2"}), "ours")

    for text in ("pa/ss wörd-1", "pa%2Fss%20w%C3%B6rd-1", "t0k/en=2", "t0k%2Fen%3D2"):
        assert "***" in str(redact(f"sent {text} there"))
        assert text not in str(redact(f"sent {text} there"))
    assert "wörd" not in repr(tracking_of(conn(host="mlflow", login="ana", password="pa/ss wörd-1"), "ours"))


# -- what the test of a connection says ------------------------------------------------------------------------------


def answer(handler: Any, status: int, body: str = "{}", content: str = "application/json") -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", content)
    handler.end_headers()
    handler.wfile.write(body.encode())


class server:  # noqa: N801
    """A tiny HTTP server whose every answer is ``respond``'s."""

    def __init__(self, respond: Callable[[Any], None], tls: ssl.SSLContext | None = None) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                respond(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)

    def __enter__(self) -> int:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return int(self.server.server_address[1])

    def __exit__(self, *args: Any) -> None:
        self.server.shutdown()
        self.server.server_close()


def check(**fields: Any) -> tuple[bool, str]:
    """Press "Test" on a connection, as Airflow does."""
    os.environ["AIRFLOW_CONN_OURS"] = _json(fields)
    try:
        return MLflowHook("ours").test_connection()
    finally:
        del os.environ["AIRFLOW_CONN_OURS"]


def _json(fields: dict[str, Any]) -> str:
    return json.dumps({"conn_type": "mlflow", **fields})


@pytest.fixture
def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, '{"message": "from a proxy"}', "refuses the credentials"),
        (404, '{"detail": "no such page"}', "not as an MLflow server does"),
        (401, "no", "refuses the credentials; check login, password or token"),
        (403, "no", "does not permit this to the user"),
        (500, "boom", "server error"),
        (503, "busy", "server error"),
        (404, "<html>nothing here</html>", "not as an MLflow server does; check host, port and path"),
        (200, "<html>Welcome to nginx</html>", "not as an MLflow server does"),
    ],
)
def test_a_server_that_answers_otherwise(status, body, message, caplog):
    with server(lambda handler: answer(handler, status, body)) as port, caplog.at_level(logging.DEBUG):
        ok, said = check(host="127.0.0.1", port=port, login="ana", password=SECRET)

    assert not ok
    assert message in said
    assert f"127.0.0.1:{port}" in said
    assert "s3cr3t" not in said + caplog.text


def test_nothing_listens(free_port):
    ok, said = check(host="127.0.0.1", port=free_port)
    assert not ok
    assert "connection refused" in said
    assert f"127.0.0.1:{free_port}" in said


def test_a_host_that_does_not_exist():
    ok, said = check(host="mlflow.invalid", port=5000)
    assert not ok
    assert "host name is unknown" in said


def test_a_server_that_does_not_answer_in_time():
    hang = threading.Event()
    with server(lambda handler: hang.wait(20)) as port:
        ok, said = check(host="127.0.0.1", port=port, extra={"timeout": "1"})
        hang.set()
    assert not ok
    assert "no answer in time" in said


@pytest.fixture
def certificate(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "server.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / "key.pem"), "-out", str(path)],
        capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl is not installed")
    with open(path, "a") as file:
        file.write((tmp_path / "key.pem").read_text())
    return path


@pytest.mark.parametrize(
    ("extra", "trusted"),
    [({}, False), ({"insecure_tls": "true"}, True), ({"server_cert_path": "{certificate}"}, True)],
)
def test_tls(certificate, extra, trusted):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    extra = {key: value.format(certificate=certificate) for key, value in extra.items()}
    with server(lambda handler: answer(handler, 401), context) as port:
        ok, said = check(host="localhost", port=port, schema="https", extra=extra)

    assert not ok
    # Once the certificate is accepted, the server is heard.
    assert ("credentials" in said) == trusted
    assert ("TLS certificate not accepted" in said) == (not trusted)


def test_the_embedded_back_end_answers(migrated_database, tmp_path, monkeypatch):
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")

    assert MLflowHook().test_connection() == (True, f"MLflow answers at sqlite:///{tmp_path}/mlflow.db")
    with MLflowHook().session() as mlflow_client:
        assert mlflow_client.get_experiment("0").name == "Default"
    assert MLflowHook().get_conn().search_registered_models() == []


def test_credentials_are_in_the_environment_only_during_a_session(monkeypatch, free_port):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(
        "AIRFLOW_CONN_OURS", _json({"host": "127.0.0.1", "port": free_port, "login": "a", "password": "b"})
    )
    with MLflowHook("ours").session():
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "b"
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_a_401_is_not_retried_and_a_500_is(monkeypatch):
    from airflow_mlops.core.steps import run_step

    found: dict[int, MlopsError] = {}
    for status in (401, 500):
        with server(lambda handler, status=status: answer(handler, status, "x")) as port:
            spec = {
                "step": "promote_model",
                "args": {"model": "churn/1"},
                "store": "/nonexistent",
                "tracking_uri": f"http://127.0.0.1:{port}",
            }
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ana")
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cr3t")
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            with pytest.raises(MlopsError) as error:
                run_step(spec)
            found[status] = error.value

    assert isinstance(found[401], CredentialsError)
    assert (found[401].retryable, found[500].retryable) == (False, True)
    assert "s3cr3t" not in str([e.to_dict() for e in found.values()])


def test_the_connection_form():
    from airflow_mlops.get_provider_info import get_provider_info
    from airflow_mlops.hooks.mlflow import EXTRA

    (form,) = [one for one in get_provider_info()["connection-types"] if one["connection-type"] == "mlflow"]
    assert form["hook-name"] == MLflowHook.hook_name
    assert set(form["conn-fields"]) == set(EXTRA)
    assert form["conn-fields"]["token"]["schema"]["format"] == "password"


def test_the_metadata_keeps_to_airflows_schema():
    import importlib.resources

    import jsonschema

    from airflow_mlops.get_provider_info import get_provider_info

    schema = json.loads((importlib.resources.files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    whole = json.loads((importlib.resources.files("airflow") / "provider.yaml.schema.json").read_text())
    types = {**whole["properties"]["connection-types"], "definitions": whole.get("definitions", {})}
    jsonschema.validate(get_provider_info()["connection-types"], types)


def test_a_task_of_ones_own_asks_whether_there_is_a_champion(migrated_database, tmp_path, monkeypatch):
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path))
    example = Path(__file__).parents[2] / "examples" / "first_champion.py"
    served = runpy.run_path(str(example))["served"].function
    assert not served("orders")
    with MLflowHook().session() as mlflow:
        mlflow.create_registered_model("orders")
        mlflow.create_model_version("orders", source=(tmp_path / "artifacts").as_uri())
        assert not served("orders")
        mlflow.set_registered_model_alias("orders", "champion", "1")
    assert served("orders")
