"""The sensor's trigger ends with one event; the asset's never ends, and says the same id for the same files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core import s3
from airflow_mlops.triggers import data
from airflow_mlops.triggers.data import NewDataEventTrigger, NewDataSensorTrigger
from servers.s3 import KEY, SECRET, Proxy, S3Server
from triggering import AssetState, check_serialized, run

QUICK: dict[str, Any] = {"settle": "0.2s", "poll_interval": 0.05}


def aws(url: str) -> str:
    extra = {"endpoint_url": url, "region_name": "eu-north-1"}
    return json.dumps({"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra})


def names(payload: dict[str, Any]) -> list[str]:
    return [Path(path).name for path in payload["new"]["paths"]]


@pytest.mark.parametrize("kind", [NewDataSensorTrigger, NewDataEventTrigger])
def test_what_is_serialized_makes_the_same_trigger(kind: Any) -> None:
    one = kind(source=["/a/*.csv"], settle="5m", min_files=2, poll_interval=7.0, aws_conn_id="lake")
    check_serialized(one, asset=kind is NewDataEventTrigger)


def test_the_sensors_trigger_ends_with_what_came(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("v\n1\n")
    event, end = run(NewDataSensorTrigger(source=str(tmp_path), **QUICK), lambda: None)
    assert names(event["arrival"]) == ["a.csv"]
    assert end == "end"


def test_the_sensors_trigger_waits_for_a_file_to_settle(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    async def wait() -> Any:
        stream = NewDataSensorTrigger(source=str(tmp_path), settle="0.4s", poll_interval=0.01).run()
        event = asyncio.ensure_future(anext(stream))
        for number in range(20):
            path.write_text("v\n" + "1\n" * number)
            await asyncio.sleep(0.1)
            assert not event.done()
        return (await asyncio.wait_for(event, 20)).payload

    event = asyncio.run(wait())
    assert event["arrival"]["bytes"] == path.stat().st_size


def test_what_a_person_must_mend_ends_the_sensors_trigger_at_once() -> None:
    (error,) = run(NewDataSensorTrigger(source="gs://bucket/x", **QUICK))
    assert (error["error"]["type"], error["error"]["retryable"]) == ("UnsupportedError", False)


def test_the_assets_trigger_tells_each_time_and_only_of_what_is_new(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("v\n1\n")
    trigger = NewDataEventTrigger(source=str(tmp_path), **QUICK)
    first, second, third = run(
        trigger,
        lambda: (tmp_path / "b.csv").write_text("v\n2\n"),
        lambda: (tmp_path / "a.csv").write_text("v\n1\n2\n"),
    )
    assert [names(one) for one in (first, second, third)] == [["a.csv"], ["b.csv"], ["a.csv"]]
    assert len({one["id"] for one in (first, second, third)}) == 3


def test_a_restart_goes_on_from_the_watermark(tmp_path: Path) -> None:
    state = AssetState()

    def restarted() -> NewDataEventTrigger:
        trigger = NewDataEventTrigger(source=str(tmp_path), **QUICK)
        trigger.asset_state_store = state  # type: ignore[assignment]
        return trigger

    (tmp_path / "a.csv").write_text("v\n1\n")
    (first,) = run(restarted())
    # Killed before it could write down what it told: told again, under the same id.
    (again,) = run(restarted())
    assert again["id"] == first["id"]
    # It is written down when the next look begins.
    one, two = run(restarted(), lambda: (tmp_path / "b.csv").write_text("v\n2\n"))
    assert (names(one), names(two)) == (["a.csv"], ["b.csv"])
    with pytest.raises(asyncio.TimeoutError):
        run(_advanced(restarted()), seconds=1)


def _advanced(trigger: NewDataEventTrigger) -> NewDataEventTrigger:
    state: Any = trigger.asset_state_store
    found = data.arrivals.arrival(
        trigger.source, data.arrivals.files_of((str(trigger.source),)), data.arrivals.Watermark()
    )
    mark = data.arrivals.Watermark.of(found).to_dict()
    asyncio.run(state.aset(data.WATERMARK, {trigger._place(): mark}))
    return trigger


def test_the_assets_trigger_outlives_a_server_that_is_down_and_a_connection_that_is_missing(
    s3_server: S3Server, s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    waited: list[float] = []

    async def sleep(seconds: float, wait: Any = asyncio.sleep) -> None:
        waited.append(seconds)
        if len(waited) == 1:  # The secrets back end is there again.
            monkeypatch.setenv("AIRFLOW_CONN_LAKE", aws(s3_proxy.url))
        await wait(seconds)

    monkeypatch.setattr(data.asyncio, "sleep", sleep)
    bucket = s3_server.bucket()
    s3_server.put(f"s3://{bucket}/in/a.csv", b"v\n1\n")
    fault = s3_proxy.fail("GET", bucket, "slow_down", times=2)
    (event,) = run(NewDataEventTrigger(source=f"s3://{bucket}/in/", aws_conn_id="lake", **QUICK))
    assert names(event) == ["a.csv"]
    assert fault.hit == 2
    assert "the secrets back end" in caplog.text
    assert "slow down" in caplog.text
    assert SECRET not in caplog.text + json.dumps(event)


def test_the_sensors_trigger_gives_up_on_a_server_that_stays_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", aws("http://127.0.0.1:9"))
    (error,) = run(NewDataSensorTrigger(source="s3://bucket/in/", aws_conn_id="lake", **QUICK), seconds=60)
    assert error["error"]["type"] == "CannotReachError"
    assert error["error"]["retryable"]


def test_a_relative_path_is_no_place_for_a_triggerer() -> None:
    with pytest.raises(ValueError, match="must be absolute"):
        NewDataEventTrigger(source="data/*.csv")
    with pytest.raises(ValueError, match="not a duration"):
        NewDataEventTrigger(source="/data", settle="soon")


def test_the_assets_trigger_outlives_what_nobody_thought_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.csv").write_text("v\n1\n")
    looks: list[Any] = [RuntimeError("surprise"), OSError(5, "Input/output error")]

    def look(patterns: Any, look: Any = data.arrivals.look, **more: Any) -> Any:
        if looks:
            raise looks.pop(0)
        return look(patterns, **more)

    monkeypatch.setattr(data.arrivals, "look", look)
    (event,) = run(NewDataEventTrigger(source=str(tmp_path), **QUICK))
    assert names(event) == ["a.csv"]
    assert "surprise" in caplog.text
    assert "cannot be looked at now: Input/output error" in caplog.text
