"""Triggers run as a triggerer would run them."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger


class AssetState:
    """What Airflow 3.3 gives a trigger of an asset."""

    def __init__(self) -> None:
        self.text = "{}"

    async def aget(self, key: str, default: Any = None) -> Any:
        return json.loads(self.text).get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.text = json.dumps({**json.loads(self.text), key: value})


def run(trigger: BaseTrigger, *between: Callable[[], Any], seconds: float = 120) -> list[Any]:
    """Return the events; before each but the first something happens."""

    async def collect() -> list[Any]:
        events: list[Any] = []
        stream = trigger.run()
        try:
            for act in (lambda: None, *between):
                act()
                events.append((await asyncio.wait_for(anext(stream), seconds)).payload)
        except StopAsyncIteration:
            events.append("end")
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        return events

    return asyncio.run(collect())


def check_serialized(one: BaseTrigger, *, asset: bool) -> None:
    """What is serialized makes the same trigger."""
    kind = type(one)
    path, arguments = json.loads(json.dumps(one.serialize()))
    module, _, name = path.rpartition(".")
    assert getattr(__import__(module, fromlist=[name]), name) is kind
    assert set(arguments) == set(inspect.signature(kind).parameters)
    assert list(kind(**arguments).serialize()) == [path, arguments]  # type: ignore[misc]
    assert issubclass(kind, BaseEventTrigger) == asset
