"""What a deployment asks for: what is filled in, and what is refused with the nearest name."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.serving.client import Wanted
from airflow_mlops.core.serving.request import Request
from airflow_mlops.core.serving.state import check_server


def test_what_is_left_out_has_its_default() -> None:
    found = Request.of(strategy="canary", canary={"steps": [10], "interval": "5m"}, start="2m")
    assert [one["kind"] for one in found.checks] == ["example", "offline", "latency"]
    assert (found.canary["interval"], found.canary["timeout"], found.canary["min_requests"]) == (300.0, 3600.0, 20)
    assert (found.capture["sample"], found.start_seconds) == (1.0, 120.0)
    assert Request.of().digest("sha256:a", {}) != found.digest("sha256:a", {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategy": "bluegreen"}, "strategy must be 'replace' or 'canary'"),
        ({"canary": {"steps": [5]}}, "needs strategy='canary'"),
        ({"strategy": "canary", "canary": {"step": [5]}}, "canary has no 'step'; did you mean 'steps'"),
        ({"strategy": "canary", "canary": {"steps": [50, 5]}}, "growing percentages between 1 and 99"),
        ({"strategy": "canary", "canary": {"steps": [100]}}, "growing percentages between 1 and 99"),
        ({"strategy": "canary", "canary": {"interval": "soon"}}, "canary's interval: 'soon' is not a duration"),
        ({"strategy": "canary", "canary": {"min_rows": -1}}, "canary's min_rows must be a number of at least 0"),
        ({"strategy": "canary", "canary": {"margin": 5}}, "canary's margin is a share, 0.01 for 1 in 100, got 5"),
        ({"strategy": "canary", "canary": {"margin": 1e-18}}, "canary's margin must be 1e-06 or more"),
        ({"strategy": "canary", "canary": {"max_error_rate": float("nan")}}, "max_error_rate must be a number"),
        ({"strategy": "canary", "canary": {"min_requests": float("inf")}}, "min_requests must be a number"),
        ({"strategy": "canary", "canary": {"alpha": 0}}, "canary's alpha must be a number above 0"),
        ({"strategy": "canary", "capture": False}, "a canary is judged on captured rows"),
        ({"strategy": "canary", "capture": {"columns": ["a"]}}, "a canary is judged on captured rows"),
        ({"checks": [{"kind": "latancy"}]}, "there is no check 'latancy'; did you mean 'latency'"),
        ({"checks": [{"kind": "latency", "p95": 3}]}, "the check 'latency' has no 'p95'; did you mean 'p95_ms'"),
        ({"checks": [{"kind": "latency", "p95_ms": 0}]}, "p95_ms of the check 'latency' must be a number above 0"),
        ({"checks": "latency"}, "checks must be a list"),
        ({"capture": 1.5}, "sample must be a share from 0 to 1"),
        ({"capture": {"smaple": 0.1}}, "capture has no 'smaple'; did you mean 'sample'"),
        ({"start": "-3"}, "start_timeout: '-3' is not a duration"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Request.of(**given)


@pytest.mark.parametrize("name", ["", "Flights", "a/b", "a b", "-a", "x" * 49, "a\nbind :80", None, "gateway"])
def test_a_servers_name_can_stand_in_an_address(name: Any) -> None:
    with pytest.raises(SpecError, match="server must be a name of small letters"):
        check_server(name)


@pytest.mark.parametrize(
    ("model", "facts"),
    [
        ({"digest": f"sha256:{'a' * 64}", "name": "m", "version": 1}, {"digest": f"sha256:{'a' * 64}"}),
        ({"kind": "deployment", "model": {"name": "m", "version": 2}}, {"model": "m", "version": "2"}),
        ("models:/m/3", {"model": "m", "version": "3"}),
        (4, {"version": "4"}),
    ],
)
def test_what_is_waited_for(model: Any, facts: dict[str, str]) -> None:
    assert Wanted.of(model).facts == facts


def test_an_alias_is_nothing_to_wait_for() -> None:
    with pytest.raises(SpecError, match="a ref with a digest or with name and version"):
        Wanted.of("m@champion")
