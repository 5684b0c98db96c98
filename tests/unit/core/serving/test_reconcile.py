"""Deployments on a real gateway: what serves, who fails, and what a driver that dies leaves."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from airflow_mlops.core.errors import CannotReachError, ConflictError
from airflow_mlops.core.faults import CRASH_POINTS
from airflow_mlops.core.serving.reconcile import Reconciler
from servers.serving import Behaviour, Killed


class TestReplace:
    def test_no_request_fails_while_a_server_takes_over(self, world: Any) -> None:
        assert world.deploy("a").state == "live"
        with world.load() as load:
            for digest in ("b", "c"):
                assert world.deploy(digest).state == "live"
        assert load.failed == 0
        assert set(load.predictions) == {1, 2, 3}
        assert load.predictions[-1] == 3
        assert world.fleet.running("flights") == [3], "what was replaced is gone"

    def test_a_request_that_is_under_way_is_answered_by_the_one_that_began_it(self, world: Any) -> None:
        world.fleet.behaviour = Behaviour(seconds=1.5)
        world.deploy("a")
        world.fleet.behaviour = Behaviour()
        answers: list[Any] = []
        slow = threading.Thread(target=lambda: answers.append(world.ask()))
        slow.start()
        while world.gateway.stats("flights")["blue"].sessions == 0:
            time.sleep(0.01)
        world.want("b")
        world.until("switching").advance()
        assert world.ask() == (200, 2)
        assert set(world.fleet.running("flights")) == {1, 2}
        world.finish()
        slow.join()
        assert answers == [(200, 1)]

    def test_one_that_never_answers_is_taken_back(self, world: Any) -> None:
        world.deploy("a")
        world.fleet.behaviour = Behaviour(deaf=True)
        with world.load() as load:
            failed = world.deploy("b", start_seconds=0.5)
        assert failed.state == "rolled_back"
        assert "did not answer /ping within 0.5 seconds" in failed.outcome["reason"]
        assert (load.failed, set(load.predictions)) == (0, {1})
        assert world.fleet.running("flights") == [1]

    def test_one_that_ends_while_it_starts_is_taken_back(self, world: Any) -> None:
        world.deploy("a")
        world.fleet.behaviour = Behaviour(deaf=True)
        seq = world.want("b")
        world.until("starting")
        world.fleet.servers[("flights", seq)].ended = True
        world.finish()
        assert "it did not start: it was ended by the test" in world.state.read(seq).outcome["reason"]
        assert world.ask() == (200, 1)

    def test_clients_reach_what_models_serve_and_nothing_else(self, world: Any) -> None:
        import http.client

        world.deploy("a")
        connection = http.client.HTTPConnection("127.0.0.1", world.port)
        found = {}
        for path in ("/flights/ping", "/flights/model", "/flights/metrics", "/nobody/ping", "/", "/gateway/health"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            found[path] = answer.status
        assert found == {
            "/flights/ping": 200,
            "/flights/model": 200,
            "/flights/metrics": 404,
            "/nobody/ping": 404,
            "/": 404,
            "/gateway/health": 200,
        }


class TestWithdrawal:
    @pytest.mark.parametrize("phase", ["requested", "starting", "checking", "switching"])
    def test_what_served_before_goes_on(self, world: Any, phase: str) -> None:
        world.deploy("a")
        seq = world.want("b")
        world.until(phase)
        with world.load() as load:
            assert world.state.withdraw(seq, "it was withdrawn: its task was cancelled")
            world.finish()
        assert (world.state.read(seq).state, world.state.read(seq).withdrawn is not None) == ("rolled_back", True)
        assert (load.failed, load.predictions[-1], world.fleet.running("flights")) == (0, 1, [1])
        assert not world.state.withdraw(seq, "once more"), "too late"

    def test_a_canary_gets_no_more_requests(self, world: Any) -> None:
        world.deploy("a")
        canary = {
            **{"steps": [50], "interval": 600.0, "min_requests": 9, "min_rows": 9, "timeout": 600.0},
            **{"max_error_rate": 1.0, "max_latency_ratio": 1e3, "tolerance": 1e-6},
        }
        seq = world.want("b", strategy="canary", canary=canary)
        with world.load() as load:
            world.until("canary").advance()
            while seq not in load.predictions:
                time.sleep(0.01)
            world.state.withdraw(seq, "cancelled")
            world.finish()
            load.predictions.clear()
            time.sleep(0.2)
        assert (load.failed, set(load.predictions)) == (0, {1})
        assert world.gateway.slots()["flights"]["green"].weight == 0

    def test_one_that_serves_already_stays(self, world: Any) -> None:
        world.deploy("a")
        assert not world.state.withdraw(1, "cancelled")
        assert world.ask() == (200, 1)


def test_requests_of_one_that_is_dead_are_not_waited_for(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway may count them for a while: until a timeout, if the machine is gone."""
    monkeypatch.setattr(Reconciler, "_drained", lambda *_: False)
    world.deploy("a")
    world.fleet.servers[("flights", 1)].ended = True
    world.want("b")
    world.finish()
    assert (world.state.read(2).state, world.fleet.running("flights")) == ("live", [2])


class TestCrash:
    @pytest.mark.parametrize("point", CRASH_POINTS["deploy_model"][1:])
    def test_killed_anywhere_and_gone_on_with_it_is_one_clean_run(self, world: Any, kill_at: Any, point: str) -> None:
        world.deploy("a")
        kill_at(point)
        seq = world.want("b", checks=[])
        with world.load() as load:
            if point == "deploy.checked":  # written only where there are checks
                kill_at("deploy.switching")
            with pytest.raises(Killed):
                world.finish()
            kill_at(None)
            world.finish()
        assert world.state.read(seq).state == "live"
        assert world.fleet.running("flights") == [seq]
        assert (world.fleet.starts, load.failed) == (2, 0)
        assert world.ask() == (200, seq)

    @pytest.mark.parametrize("point", ["deploy.rolling_back", "deploy.finished"])
    def test_a_roll_back_that_was_begun_is_ended(self, world: Any, kill_at: Any, point: str) -> None:
        world.deploy("a")
        world.fleet.behaviour = Behaviour(deaf=True)
        seq = world.want("b", start_seconds=0.2)
        kill_at(point)
        with pytest.raises(Killed):
            world.finish()
        kill_at(None)
        # It is well by now, which does not matter any more.
        world.fleet.servers[("flights", seq)].behaviour.deaf = False
        world.finish()
        assert world.state.read(seq).state == "rolled_back"
        assert world.fleet.running("flights") == [1]
        assert world.ask() == (200, 1)

    def test_a_gateway_that_restarts_comes_up_with_what_is_wanted(self, world: Any) -> None:
        world.deploy("a")
        world.deploy("b")
        world.process.close()
        with pytest.raises(CannotReachError, match="does not answer"):
            world.driver().advance()
        world.process.ensure()
        assert world.ask() == (200, 2), "before anybody tells it anything"

    def test_one_driver_at_a_time(self, world: Any) -> None:
        world.deploy("a")
        with world.gateway.driving("flights"), pytest.raises(ConflictError, match="another process is deploying"):
            world.driver().advance()
