"""The store on an S3 server that throttles, fails, breaks connections, or does not keep its promises."""

from __future__ import annotations

import datetime as dt
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core import s3, s3_probe, s3_upload
from airflow_mlops.core.errors import (
    CannotReachError,
    CredentialsError,
    SourceChangedError,
    SpecError,
    UnsupportedError,
)
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.store import Store, open_store
from airflow_mlops.core.store_s3 import S3Store
from servers.s3 import SECRET, Proxy, S3Server

BIG = 20 << 20


@pytest.fixture
def far(s3_server: S3Server, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store behind the proxy, on a server that was probed."""
    monkeypatch.setattr(s3, "ATTEMPTS", 3)
    uri = f"s3://{s3_server.bucket()}/p"
    store = open_store(uri, replace(s3_server.access, endpoint_url=s3_proxy.url, uri=uri))
    assert isinstance(store, S3Store)
    store.probe()
    s3_proxy.requests.clear()
    return store


@pytest.fixture
def near(far: S3Store, s3_server: S3Server) -> Store:
    """The same store, seen without the proxy."""
    return open_store(far.uri, s3_server.access)


def uploads(store: Any) -> list[str]:
    return [key for key, _, _ in s3_upload.unfinished(store.client, store.bucket, store.prefix)]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(BIG))
    return path


@pytest.mark.parametrize("what", ["slow_down", "error", "cut_upload", "cut_answer"])
@pytest.mark.parametrize("if_absent", [False, True])
def test_a_write_survives_a_fault_and_is_made_once(
    far: S3Store, near: Store, s3_proxy: Proxy, what: str, if_absent: bool
) -> None:
    fault = s3_proxy.fail("PUT", "/p/x", what)
    assert far.put_bytes("x", b"mine", if_absent=if_absent), "a lost answer is not a lost race"
    assert near.get_bytes("x") == b"mine"
    assert fault.hit == 1
    if if_absent:
        assert not far.put_bytes("x", b"again", if_absent=True)


@pytest.mark.parametrize("what", ["slow_down", "error", "cut_upload", "cut_answer"])
@pytest.mark.parametrize("request_", [("PUT", "partNumber=2"), ("POST", r"/p/x\?uploadId"), ("POST", r"/p/x\?uploads")])
@pytest.mark.parametrize("if_absent", [False, True])
def test_an_upload_in_parts_survives_a_fault_in_each_of_its_requests(
    far: S3Store, near: Any, s3_proxy: Proxy, big: Path, what: str, request_: tuple[str, str], if_absent: bool
) -> None:
    fault = s3_proxy.fail(*request_, what)
    assert far.put_file("x", big, if_absent=if_absent)
    assert fault.hit == 1
    assert near.get_bytes("x") == big.read_bytes()
    if (what, request_[1]) != ("cut_answer", r"/p/x\?uploads"):
        assert uploads(near) == []
    else:
        # Nobody knows the id of the one whose answer was lost: it is cleaned when it is old.
        later = dt.datetime.now(dt.timezone.utc) + dt.timedelta(minutes=1)
        assert len([one for one, _ in near.leftovers(later, delete=True) if "upload" in one]) == 1
        assert uploads(near) == []


@pytest.mark.parametrize("what", ["slow_down", "error", "cut_upload"])
def test_an_upload_that_cannot_end_leaves_nothing(
    far: S3Store, near: Any, s3_proxy: Proxy, big: Path, what: str
) -> None:
    s3_proxy.fail("PUT", "partNumber=2", what, times=100)
    with pytest.raises(CannotReachError) as caught:
        far.put_file("x", big)
    assert caught.value.retryable
    assert SECRET not in str(caught.value) + repr(caught.value.fields)
    assert not near.exists("x")
    assert uploads(near) == []


def test_each_part_goes_with_its_checksum(far: S3Store, near: Store, s3_proxy: Proxy, big: Path) -> None:
    """moto is no judge of checksums, so the proxy is asked what was sent."""
    far.put_file("x", big)
    far.put_bytes("y", b"1")
    sent = [headers for method, path, headers in s3_proxy.headers if method == "PUT" and re.search("/p/[xy]", path)]
    assert len(sent) == 3
    assert all(headers.get("x-amz-checksum-sha256") for headers in sent)


@pytest.mark.parametrize("what", ["slow_down", "error", "cut_answer", "cut_download"])
def test_a_read_survives_faults(far: S3Store, near: Store, s3_proxy: Proxy, what: str) -> None:
    near.put_bytes("x", bytes(range(256)) * 20_000)
    s3_proxy.fail("GET", "/p/x", what, times=2)
    assert far.get_bytes("x") == bytes(range(256)) * 20_000
    s3_proxy.fail("GET", "/p/x", what, times=2)
    with far.open_input("x") as file:
        assert file.read() == bytes(range(256)) * 20_000


def test_a_file_that_is_read_by_ranges_is_one_version(far: S3Store, near: Store) -> None:
    near.put_bytes("x", b"a" * (5 << 20))
    with far.open_input("x") as file:
        assert file.read(10) == b"a" * 10
        near.put_bytes("x", b"b" * (5 << 20))
        with pytest.raises(SourceChangedError, match="replaced or deleted"):
            file.read()


def test_a_server_without_conditional_put_is_refused_at_first_use(s3_server: S3Server, s3_proxy: Proxy) -> None:
    uri = f"s3://{s3_server.bucket()}/p"
    store = open_store(uri, replace(s3_server.access, endpoint_url=s3_proxy.url))
    s3_proxy.fail("PUT", "probe-", "unconditional", times=100)
    for _ in range(2):
        with pytest.raises(UnsupportedError, match="ignores 'If-None-Match"):
            store.put_bytes("x", b"1")
    plain = open_store(uri, s3_server.access)
    assert list(plain.keys()) == []
    assert plain.client.list_objects_v2(Bucket=plain.bucket).get("KeyCount") == 0, "the probe leaves nothing"


def test_a_server_that_completes_uploads_unconditionally_gets_one_put(
    s3_server: S3Server, s3_proxy: Proxy, big: Path
) -> None:
    uri = f"s3://{s3_server.bucket()}/p"
    store = open_store(uri, replace(s3_server.access, endpoint_url=s3_proxy.url))
    s3_proxy.fail("POST", "uploadId", "unconditional", times=100)
    assert store.put_file("x", big, if_absent=True)
    assert not store.put_file("x", big, if_absent=True)
    assert not [path for method, path in s3_proxy.requests if method == "POST" and "/p/x" in path]


def test_the_probe_is_remembered_in_the_store(far: S3Store, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_probe, "_probed", {})
    s3_proxy.requests.clear()
    far.put_bytes("x", b"1")
    assert not [path for _, path in s3_proxy.requests if "probe-" in path]


def test_errors_name_the_cause_and_the_cure(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="there is no bucket 'b-nothing'"):
        open_store("s3://b-nothing/p", s3_server.access).put_bytes("x", b"")
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    nobody = replace(s3_server.access, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(CannotReachError, match="does not answer"):
        open_store("s3://bucket/p", nobody).get_bytes("x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(CredentialsError, match="store_conn_id"):
        open_store("s3://bucket/p", replace(s3_server.access, key=None, secret=None)).get_bytes("x")


WRITE = """
import sys
from airflow_mlops.core.store import open_store
store = open_store(sys.argv[1])
print(store.put_file("data/big", sys.argv[2], if_absent=True))
"""


@pytest.mark.parametrize("point", CRASH_POINTS["write_to_s3"])
def test_a_writer_killed_in_an_upload_leaves_the_old_state_and_what_it_left_is_cleaned(
    s3_store: S3Store, big: Path, point: str
) -> None:
    command = [sys.executable, "-c", WRITE, s3_store.uri, str(big)]
    killed = subprocess.run(command, env={**os.environ, VARIABLE: point}, capture_output=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    published = point == "s3.published"
    assert s3_store.exists("data/big") == published
    assert len(uploads(s3_store)) == (not published)

    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == str(not published)
    assert s3_store.get_bytes("data/big") == big.read_bytes()

    # One that began lately may belong to a living writer.
    now = dt.datetime.now(dt.timezone.utc)
    assert [one for one, _ in s3_store.leftovers(now - dt.timedelta(days=1)) if "upload" in one] == []
    later = now + dt.timedelta(minutes=1)
    assert len([one for one, _ in s3_store.leftovers(later) if "upload" in one]) == (not published)
    assert len(uploads(s3_store)) == (not published), "looking deletes nothing"
    list(s3_store.leftovers(later, delete=True))
    assert uploads(s3_store) == []
    assert s3_store.get_bytes("data/big") == big.read_bytes()


def test_the_next_upload_of_a_process_sweeps_what_is_a_day_old(
    s3_store: S3Store, big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandoned = s3_upload.Upload(s3_store.client, s3_store.bucket, s3_store._full("data/other"), {})
    elsewhere = s3_upload.Upload(s3_store.client, s3_store.bucket, "some/prefix2/x", {})
    abandoned.__enter__(), elsewhere.__enter__()
    s3_store.put_file("data/1", big)
    assert len(uploads(s3_store)) == 1
    monkeypatch.setattr(s3_upload, "_swept", set())
    monkeypatch.setattr(s3_upload, "STALE", dt.timedelta(seconds=-60))
    s3_store.put_file("data/2", big)
    assert uploads(s3_store) == []
    assert [key for key, _, _ in s3_upload.unfinished(s3_store.client, s3_store.bucket, "")] == ["some/prefix2/x"]
