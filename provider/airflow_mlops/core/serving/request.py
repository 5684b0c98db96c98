"""What a deployment asks for, read and checked: strategy, checks, canary, capture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.serving.capture import Capture
from airflow_mlops.core.vocabulary import parse_duration

STRATEGIES = ("replace", "canary")
#: Kinds of checks before any traffic, and what each may hold with its default.
CHECKS: dict[str, dict[str, Any]] = {
    "example": {},
    "offline": {"tolerance": 1e-6},
    "latency": {"p95_ms": 500.0, "requests": 50},
}
#: What ``canary`` may hold.
CANARY: dict[str, Any] = {
    "steps": [5, 25, 50],
    "interval": "60s",
    "min_requests": 20,
    "max_error_rate": 0.01,
    "max_latency_ratio": 2.0,
    "max_disagreement": 0.001,
    "min_rows": 20,
    "tolerance": 1e-6,
    "margin": 0.05,
    "alpha": 0.01,
    "beta": 0.05,
    "timeout": "1h",
}
LEAST_MARGIN = 1e-6
#: Seconds that a server may take from its start until it answers ``/ping``.
START_SECONDS = 300.0


@dataclass(frozen=True)
class Request:
    """What is asked for, whole and checked.

    :param checks: each with all its fields.
    :param canary: with all its fields, durations in seconds; empty for ``replace``.
    """

    strategy: str = "replace"
    checks: list[dict[str, Any]] = field(default_factory=list)
    canary: dict[str, Any] = field(default_factory=dict)
    capture: dict[str, Any] = field(default_factory=dict)
    start_seconds: float = START_SECONDS

    @classmethod
    def of(
        cls,
        *,
        strategy: Any = "replace",
        checks: Any = None,
        canary: Any = None,
        capture: Any = None,
        start: Any = None,
    ) -> Request:
        """Read what a user wrote.

        :raises SpecError: naming what cannot be.
        """
        if strategy not in STRATEGIES:
            raise SpecError(f"strategy must be 'replace' or 'canary', got {strategy!r}")
        if canary and strategy != "canary":
            raise SpecError("canary={...} needs strategy='canary'")
        taken = Capture.of(capture)
        if strategy == "canary" and (taken.sample <= 0 or taken.columns is not None):
            raise SpecError(
                "a canary is judged on captured rows, so capture must not be off and must have all columns; leave it "
                "out, or use strategy='replace'"
            )
        return cls(
            strategy=strategy,
            checks=_checks(checks),
            canary=_canary(canary) if strategy == "canary" else {},
            capture=dict(vars(taken)),
            start_seconds=START_SECONDS if start in (None, "") else _seconds(start, "start_timeout"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into an intent."""
        return dict(vars(self))

    def digest(self, model_digest: str, place: Mapping[str, Any]) -> str:
        """Return what tells one request from another."""
        return digests.of_json({**self.to_dict(), "model": model_digest, "place": dict(place)})


def _checks(checks: Any) -> list[dict[str, Any]]:
    if checks is None:
        return [{"kind": kind, **defaults} for kind, defaults in CHECKS.items()]
    if not isinstance(checks, (list, tuple)):
        raise SpecError(f"checks must be a list such as [{{'kind': 'latency', 'p95_ms': 100}}], got {checks!r}")
    found = []
    for one in checks:
        if not isinstance(one, Mapping) or one.get("kind") not in CHECKS:
            kind = one.get("kind") if isinstance(one, Mapping) else one
            raise SpecError(f"there is no check {kind!r}{did_you_mean(str(kind), CHECKS) or '.'} {', '.join(CHECKS)}")
        known = CHECKS[one["kind"]]
        for key in one:
            if key not in (*known, "kind"):
                raise SpecError(f"the check {one['kind']!r} has no {key!r}{did_you_mean(key, known)}")
        whole = {"kind": one["kind"], **known, **one}
        for key in known:
            _positive(whole[key], f"{key} of the check {one['kind']!r}")
        found.append(whole)
    return found


def _canary(canary: Any) -> dict[str, Any]:
    if canary is not None and not isinstance(canary, Mapping):
        raise SpecError(f"canary must be a dict such as {{'steps': [5, 50], 'interval': '5m'}}, got {canary!r}")
    for key in canary or {}:
        if key not in CANARY:
            raise SpecError(f"canary has no {key!r}{did_you_mean(key, CANARY) or '.'} It has {', '.join(CANARY)}")
    found = {**CANARY, **(canary or {})}
    steps = found["steps"]
    whole = isinstance(steps, (list, tuple)) and all(isinstance(one, int) and 0 < one < 100 for one in steps)
    if not whole or not steps or list(steps) != sorted(set(steps)):
        raise SpecError(f"canary's steps must be growing percentages between 1 and 99, got {steps!r}")
    for key in ("interval", "timeout"):
        found[key] = _seconds(found[key], f"canary's {key}")
    for key in ("min_requests", "max_latency_ratio", "min_rows", "tolerance"):
        _positive(found[key], f"canary's {key}", zero=True)
    for key in ("max_error_rate", "max_disagreement"):
        _share(found[key], f"canary's {key}", zero=True)
    for key in ("margin", "alpha", "beta"):
        _share(found[key], f"canary's {key}")
    if found["margin"] < LEAST_MARGIN:
        raise SpecError(f"canary's margin must be {LEAST_MARGIN:g} or more: no number of requests shows less")
    return {**found, "steps": list(steps)}


def _seconds(value: Any, name: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(value)
    try:
        return parse_duration(value).total_seconds()
    except SpecError as error:
        raise SpecError(f"{name}: {error.message}") from None


def _positive(value: Any, name: str, *, zero: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or (value == 0 and not zero):
        raise SpecError(f"{name} must be a number {'of at least' if zero else 'above'} 0, got {value!r}")


def _share(value: Any, name: str, *, zero: bool = False) -> None:
    _positive(value, name, zero=zero)
    if value > 1 or (value == 1 and not zero):
        raise SpecError(f"{name} is a share, 0.01 for 1 in 100, got {value!r}")
