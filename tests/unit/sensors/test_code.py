"""CodeChangeSensor: in a worker and deferred it returns the same."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, TaskDeferred

from airflow_mlops.exceptions import MlopsFailed, MlopsUnavailable
from airflow_mlops.sensors.code import CodeChangeSensor
from servers.git import LOGIN, PASSWORD, GitServer, Repository


@pytest.fixture
def context(tmp_path: Path) -> Any:
    ti = SimpleNamespace(bundle_instance=SimpleNamespace(path=tmp_path))
    return {"ti": ti, "dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py"))}


def sensor(**more: Any) -> CodeChangeSensor:
    return CodeChangeSensor(**{"task_id": "wait", "ref": "main", "poke_interval": 0.05, "timeout": 1.0, **more})


def finish(task: CodeChangeSensor, context: Any, caught: TaskDeferred) -> Any:
    async def first() -> Any:
        stream = caught.trigger.run()
        try:
            return (await asyncio.wait_for(anext(stream), 30)).payload
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    return getattr(task, caught.method_name)(context, event=asyncio.run(first()))


def test_deferred_or_not_it_returns_the_same(repository: Repository, context: Any) -> None:
    one = repository.commit("one")
    task = sensor(repository="project", since=one, deferrable=True)
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context)
    assert caught.value.timeout == dt.timedelta(seconds=1)
    _, arguments = caught.value.trigger.serialize()
    assert arguments == {
        "repository": str(repository.folder),
        "ref": "main",
        "git_conn_id": None,
        "since": one,
        "poll_interval": 0.05,
    }
    repository.commit("two")
    three = repository.commit("three")
    found = finish(task, context, caught.value)
    assert found == sensor(repository="project", since=one).execute(context)
    assert found == sensor(repository="project", since=one, deferrable=True).execute(context), "it is there already"
    assert (found["id"], found["commits"]["count"]) == (three, 2)


def test_a_former_result_is_what_was_seen(repository: Repository, context: Any) -> None:
    repository.commit("one")
    first = sensor(repository="project").execute(context)
    assert first["subject"] == "one"
    assert len(json.dumps(first)) < 16384
    with pytest.raises(AirflowSensorTimeout):
        sensor(repository="project", since=first, timeout=0.1).execute(context)
    with pytest.raises(AirflowSensorTimeout):
        sensor(repository="project", ref="not-there-yet", timeout=0.1).execute(context)


def test_through_a_connection_of_the_git_provider(
    repository: Repository, git_server: GitServer, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = repository.commit("one")
    connection = {"conn_type": "git", "host": git_server.url(repository), "login": LOGIN, "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_CODE", json.dumps(connection))
    found = sensor(git_conn_id="code").execute(context)
    assert (found["id"], found["repository"]) == (sha, git_server.url(repository))
    # The connection's login opens another repository of the same server.
    monkeypatch.setenv("AIRFLOW_CONN_CODE", json.dumps({**connection, "host": f"{git_server.url(repository)}/none"}))
    assert sensor(git_conn_id="code", repository=git_server.url(repository)).execute(context) == found


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        ({"conn_type": "http", "host": "https://example.com/x"}, "expected 'git'"),
        ({"conn_type": "git"}, "has no host"),
        ({"conn_type": "git", "host": "/x", "extra": {"keyfile": "/k"}}, "did you mean 'key_file'"),
        ({"conn_type": "git", "host": "/x", "extra": {"key_file": "/no/such"}}, "not on this machine"),
        ({"conn_type": "git", "host": "/x", "extra": {"private_key": "k", "key_file": "/k"}}, "not both"),
        ({"conn_type": "git", "host": "/x", "extra": {"github_app_id": "1"}}, "GitHub App"),
        ({"conn_type": "git", "host": "/x", "extra": {"strict_host_key_checking": "ask"}}, "must be one of"),
        ({"conn_type": "git", "host": "/x", "extra": {"ssh_port": "ssh"}}, "must be a number"),
    ],
)
def test_a_connection_that_cannot_be_says_why(
    connection: dict[str, Any], said: str, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CODE", json.dumps(connection))
    with pytest.raises(MlopsFailed, match=said):
        sensor(git_conn_id="code").execute(context)


def test_errors_say_whether_to_try_again(context: Any) -> None:
    for deferrable in (False, True):
        with pytest.raises(MlopsUnavailable, match="secrets back end"):
            sensor(git_conn_id="absent", deferrable=deferrable).execute(context)
        with pytest.raises(MlopsFailed, match="is not there"):
            sensor(repository="nothing", deferrable=deferrable).execute(context)
        with pytest.raises(MlopsUnavailable, match="cannot be reached now"):
            sensor(repository="http://127.0.0.1:9/x.git", deferrable=deferrable).execute(context)
    event = {"error": {"type": "CannotReachError", "message": "m", "retryable": True, "fields": {}}}
    with pytest.raises(MlopsUnavailable, match="CannotReachError: m"):
        sensor(repository="x").execute_complete(context, event)
    with pytest.raises(ValueError, match="repository or git_conn_id"):
        sensor()
    with pytest.raises(ValueError, match="password in it"):
        sensor(repository="https://u:p@example.com/x.git")
    # The same where a template brought it.
    task = sensor(repository="{{ var.value.repository }}")
    task.repository = "https://u:hunter22@example.com/x.git"
    with pytest.raises(MlopsFailed, match="password in it") as caught:
        task.execute(context)
    assert "hunter22" not in str(caught.value)
