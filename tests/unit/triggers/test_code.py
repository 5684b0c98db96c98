"""The sensor's trigger ends with one event; the asset's never ends, and tells of each commit under its sha."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from airflow_mlops.triggers import code
from airflow_mlops.triggers.code import CodeChangeEventTrigger, CodeChangeSensorTrigger
from servers.git import LOGIN, PASSWORD, GitServer, Repository
from triggering import AssetState, check_serialized, run

QUICK: dict[str, Any] = {"ref": "main", "poll_interval": 0.05}


def watcher(repository: Repository, state: AssetState | None = None, **more: Any) -> CodeChangeEventTrigger:
    trigger = CodeChangeEventTrigger(**{"repository": str(repository.folder), **QUICK, **more})
    if state is not None:
        trigger.asset_state_store = state  # type: ignore[assignment]
    return trigger


@pytest.mark.parametrize("kind", [CodeChangeSensorTrigger, CodeChangeEventTrigger])
def test_what_is_serialized_makes_the_same_trigger(kind: Any) -> None:
    one = kind(repository="https://example.com/x.git", ref="v1", git_conn_id="code", poll_interval=7.0)
    check_serialized(one, asset=kind is CodeChangeEventTrigger)


def test_the_sensors_trigger_waits_for_the_next_commit_and_ends(repository: Repository) -> None:
    one = repository.commit("one")
    trigger = CodeChangeSensorTrigger(repository=str(repository.folder), since=one, **QUICK)

    async def wait() -> Any:
        stream = trigger.run()
        event = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.5)
        assert not event.done()
        repository.commit("two")
        found = (await asyncio.wait_for(event, 30)).payload["change"]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        return found

    found = asyncio.run(wait())
    assert (found["subject"], found["previous"]) == ("two", one)
    assert found["commits"] == {"count": 1, "shas": [found["sha"]]}


def test_the_assets_trigger_tells_of_every_commit_of_a_push(repository: Repository) -> None:
    shas = [repository.commit("one")]

    def push() -> None:
        shas.extend(repository.commit(name) for name in ("two", "three"))

    events = run(watcher(repository), push, lambda: None)
    assert [one["id"] for one in events] == shas
    assert [one["subject"] for one in events] == ["one", "two", "three"]
    assert [one["kind"] for one in events] == ["commit"] * 3
    assert len(json.dumps(events[0])) < 2000


def test_a_restart_goes_on_from_the_watermark(repository: Repository) -> None:
    state = AssetState()
    one = repository.commit("one")
    (first,) = run(watcher(repository, state))
    # Killed before it could write down what it told: told again, under the same id.
    (again,) = run(watcher(repository, state), seconds=30)
    assert first["id"] == again["id"] == one
    # It is written down when the next look begins.
    events = run(watcher(repository, state), lambda: repository.commit("two"))
    assert [event["subject"] for event in events] == ["one", "two"]
    # Killed in the midst of a push: the rest is told of, from the last one that was written down.
    events = run(watcher(repository, state), lambda: repository.commit("three"))
    assert [event["subject"] for event in events] == ["two", "three"]
    for name in ("four", "five"):
        repository.commit(name)
    events = run(watcher(repository, state), lambda: None, lambda: repository.commit("six"))
    assert [event["subject"] for event in events] == ["three", "four", "five"]
    # Another ref, or another repository, begins anew.
    (other,) = run(watcher(repository, state, ref="HEAD"))
    assert other["subject"] == "six"


def test_a_ref_that_goes_and_comes_again(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sha = repository.commit("one")
    trigger = watcher(repository, ref="release")
    repository.git("branch", "release")

    def deleted(sleeps: list[int]) -> None:
        sleeps.append(1)
        if len(sleeps) == 2:
            repository.git("branch", "--delete", "--force", "release")
        if len(sleeps) == 4:
            assert "there is no release" in caplog.text
            repository.git("branch", "release", sha)  # the same commit again: nothing to tell of
        if len(sleeps) == 6:
            repository.git("checkout", "--quiet", "release")
            repository.commit("two")

    sleeps: list[int] = []

    async def collect() -> list[Any]:
        real = asyncio.sleep

        async def sleep(seconds: float) -> None:
            deleted(sleeps)
            await real(seconds)

        code.asyncio.sleep = sleep  # type: ignore[assignment]
        try:
            stream = trigger.run()
            return [(await asyncio.wait_for(anext(stream), 60)).payload["subject"] for _ in range(2)]
        finally:
            code.asyncio.sleep = real
            await stream.aclose()  # type: ignore[attr-defined]

    assert asyncio.run(collect()) == ["one", "two"]
    assert caplog.text.count("there is no release") == 1, "said once, not at each look"


def test_a_ref_that_is_moved_back_runs_nothing_and_says_what_to_do(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    state = AssetState()
    old = repository.commit("old")
    events = run(watcher(repository, state), lambda: repository.commit("new"))
    repository.git("reset", "--quiet", "--hard", old)
    with pytest.raises(asyncio.TimeoutError):
        run(watcher(repository, state), lambda: None, seconds=2)
    assert [event["subject"] for event in events] == ["old", "new"]


def test_it_outlives_a_server_that_is_down_and_a_connection_that_is_missing(
    repository: Repository, git_server: GitServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sha = repository.commit("one")
    waited: list[float] = []
    url = git_server.url(repository)

    def connection(host: str) -> str:
        return json.dumps({"conn_type": "git", "host": host, "login": LOGIN, "password": PASSWORD})

    async def sleep(seconds: float, wait: Any = asyncio.sleep) -> None:
        waited.append(seconds)
        if len(waited) == 1:  # The secrets back end is there again; the git server is not.
            monkeypatch.setenv("AIRFLOW_CONN_CODE", connection("http://127.0.0.1:9/x.git"))
        if len(waited) == 2:
            monkeypatch.setenv("AIRFLOW_CONN_CODE", connection(url))
        await wait(seconds)

    monkeypatch.setattr(code.asyncio, "sleep", sleep)
    (event,) = run(CodeChangeEventTrigger(git_conn_id="code", **QUICK))
    assert event["id"] == sha
    assert event["repository"] == url
    assert "the secrets back end" in caplog.text
    assert "cannot be reached now" in caplog.text
    assert PASSWORD not in caplog.text + json.dumps(event)


def test_it_outlives_what_nobody_thought_of(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sha = repository.commit("one")
    looks: list[Any] = [RuntimeError("surprise"), OSError(28, "No space left on device")]

    def look(*arguments: Any, look: Any = code.commits.look) -> Any:
        if looks:
            raise looks.pop(0)
        return look(*arguments)

    monkeypatch.setattr(code.commits, "look", look)
    (event,) = run(watcher(repository))
    assert event["id"] == sha
    assert "surprise" in caplog.text
    assert "No space left" in caplog.text


def test_the_sensors_trigger_ends_with_what_a_person_must_mend_and_with_a_server_that_stays_down(
    tmp_path: Any,
) -> None:
    (error,) = run(CodeChangeSensorTrigger(repository=str(tmp_path / "nothing"), **QUICK))
    assert (error["error"]["type"], error["error"]["retryable"]) == ("NotFoundError", False)
    (error,) = run(CodeChangeSensorTrigger(repository="http://127.0.0.1:9/x.git", **QUICK))
    assert (error["error"]["type"], error["error"]["retryable"]) == ("CannotReachError", True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "repository or git_conn_id"),
        ({"repository": "project"}, "must be absolute or a URL"),
        ({"repository": "https://u:hunter22@example.com/x.git"}, "has a password in it"),
        ({"repository": "/x", "ref": "a..b"}, "name of a branch or tag"),
        ({"repository": "ext::sh -c x"}, "none of"),
    ],
)
def test_what_cannot_be_watched_is_refused_where_it_is_written(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        CodeChangeEventTrigger(**arguments)
    assert "hunter22" not in str(caught.value)
