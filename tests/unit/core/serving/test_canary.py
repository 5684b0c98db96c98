"""Canaries on a real gateway: which goes through, which goes back, and what a restart in between does."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from servers.serving import Behaviour, Killed

#: So short that a test can wait for it; ``min_rows`` is 0 because these servers capture nothing.
CANARY = {
    "steps": [25, 50],
    "interval": 0.3,
    "min_requests": 20,
    "max_error_rate": 0.01,
    "max_latency_ratio": 50.0,
    "min_rows": 0,
    "tolerance": 1e-6,
    "timeout": 60.0,
}


def canary(world: Any, digest: str, **more: Any) -> Any:
    return world.deploy(digest, strategy="canary", canary={**CANARY, **more})


def test_its_share_grows_and_then_it_serves(world: Any) -> None:
    world.deploy("a")
    with world.load() as load:
        found = canary(world, "b")
        late = len(load.predictions)
        while len(load.predictions) < late + 20:
            time.sleep(0.01)
    assert found.state == "live"
    assert [one["weight"] for one in found.progress["history"]] == [25, 50]
    assert all(one["requests"] >= 20 and one["errors"] == 0 for one in found.progress["history"])
    assert load.failed == 0
    assert set(load.predictions[-15:]) == {2}
    assert world.fleet.running("flights") == [2]


def test_one_that_fails_requests_goes_back(world: Any) -> None:
    world.deploy("a")
    world.fleet.behaviour = Behaviour(fails=True)
    with world.load():
        found = canary(world, "b")
    assert found.state == "rolled_back"
    assert "requests failed, at most 1.00% may (p " in found.outcome["reason"]
    assert [one["passed"] for one in found.progress["history"]] == [False]
    assert world.fleet.running("flights") == [1]
    assert world.ask() == (200, 1)


def test_one_that_is_slower_goes_back(world: Any) -> None:
    world.deploy("a")
    world.fleet.behaviour = Behaviour(seconds=0.7)
    with world.load(clients=6):
        found = canary(world, "b", max_latency_ratio=2.0, min_requests=5)
    assert found.state == "rolled_back"
    assert "times the p95 of the server that it is to replace; at most 5% may (p " in found.outcome["reason"]


def test_with_too_few_requests_nobody_can_tell(world: Any) -> None:
    world.deploy("a")
    found = canary(world, "b", timeout=1.0)
    assert found.state == "rolled_back"
    assert "cannot tell: after 1 s it is still at 25%, with 0 requests" in found.outcome["reason"]


def test_the_first_one_has_nothing_to_be_compared_with(world: Any) -> None:
    assert canary(world, "a").state == "live"


def test_a_driver_that_dies_is_followed_by_another(world: Any, kill_at: Any) -> None:
    world.deploy("a")
    kill_at("deploy.switching")
    seq = world.want("b", strategy="canary", canary=CANARY)
    with world.load() as load:
        for _ in range(2):  # as it begins, and as it ends
            with pytest.raises(Killed):
                world.finish()
        kill_at(None)
        world.finish()
    assert world.state.read(seq).state == "live"
    assert (load.failed, world.fleet.starts) == (0, 2)


def test_a_gateway_that_restarts_keeps_its_shares(world: Any) -> None:
    world.deploy("a")
    seq = world.want("b", strategy="canary", canary={**CANARY, "steps": [50], "interval": 5})
    driver = world.until("canary")
    driver.advance()
    world.process.close()
    world.process.ensure()
    with world.load() as load:
        while not {1, 2} <= set(load.predictions):
            time.sleep(0.01)
        driving = threading.Thread(target=world.finish)
        driving.start()
        driving.join()
    assert world.state.read(seq).state == "live"
    assert load.failed == 0
