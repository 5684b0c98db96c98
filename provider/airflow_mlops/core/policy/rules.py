"""The policy that users write, read once and checked whole."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.vocabulary import parse_duration

#: What holds where nobody says anything: drift alone warns, a loss of performance retrains, and neither in a hurry.
DEFAULT: dict[str, Any] = {
    "performance": {"windows": [2, 3]},
    "drift": {"windows": [3, 3]},
    "cooldown": "14d",
}
NAMES = (
    *("performance", "drift", "new_rows", "max_age"),
    *("cooldown", "budget", "min_new_rows", "min_new_labels"),
)
_OF = {
    "performance": ("metric", "drop", "min", "max", "baseline", "windows", "action"),
    "drift": ("share", "windows", "action"),
    "budget": ("runs", "hours", "per", "hours_per_run"),
}
NO_TIME = dt.timedelta(0)
LONGEST = dt.timedelta(days=100 * 365)


@dataclass(frozen=True)
class WindowRule:
    """Bad windows make a signal when ``k`` of the last ``n`` are bad.

    :param retrains: whether the signal trains again, or only warns.
    :param metric: of the report; None: the report's own verdict counts.
    :param drop: a window is bad if the metric is worse than its baseline by so much or more.
    :param limit: a window is bad if the metric is worse than this.
    :param baseline: what a drop is measured from, where the reports do not say.
    """

    kind: str
    k: int
    n: int
    retrains: bool
    metric: str | None = None
    drop: float | None = None
    limit: float | None = None
    baseline: float | None = None


@dataclass(frozen=True)
class Budget:
    """The most that retraining may take in any period of a length.

    :param runs: retrainings; None: not limited.
    :param hours: compute hours; None: not limited.
    :param hours_per_run: what a run is charged with until its hours are told.
    """

    per: dt.timedelta
    runs: int | None = None
    hours: float | None = None
    hours_per_run: float = 0.0


@dataclass(frozen=True)
class Policy:
    """When to train again; what is None does not count.

    :param max_age: the forced schedule: a model that is so old is trained again whatever the signals say.
    :param cooldown: no retraining within so long of the last one.
    """

    performance: WindowRule | None = None
    drift: WindowRule | None = None
    new_rows: int | None = None
    max_age: dt.timedelta | None = None
    cooldown: dt.timedelta = NO_TIME
    budget: Budget | None = None
    min_new_rows: int = 0
    min_new_labels: int = 0

    @classmethod
    def of(cls, value: Any) -> Policy:
        """Read the dict that users write; None is :data:`DEFAULT`.

        :raises SpecError: for a name or value that no policy has, and for one that contradicts itself: a forced
            schedule that cooldown or budget would stop.
        """
        if value is None or value == "":
            value = DEFAULT
        given = _table(value, "policy", NAMES)
        policy = cls(
            performance=_window_rule("performance", given.get("performance"), retrains=True),
            drift=_window_rule("drift", given.get("drift"), retrains=False),
            new_rows=_count(given.get("new_rows"), "new_rows", least=1),
            max_age=_duration(given.get("max_age"), "max_age"),
            cooldown=_duration(given.get("cooldown"), "cooldown") or NO_TIME,
            budget=_budget(given.get("budget")),
            min_new_rows=_count(given.get("min_new_rows"), "min_new_rows") or 0,
            min_new_labels=_count(given.get("min_new_labels"), "min_new_labels") or 0,
        )
        policy._check()
        return policy

    def _check(self) -> None:
        if self.max_age is None:
            return
        if self.cooldown > self.max_age:
            raise SpecError("the policy's cooldown is longer than its max_age: no forced retraining could start")
        budget = self.budget
        if budget is None:
            return
        # The forced schedule alone puts this many into the fullest period.
        forced = math.ceil(budget.per / self.max_age)
        needs = forced * budget.hours_per_run
        if (budget.runs is not None and forced > budget.runs) or (budget.hours is not None and needs > budget.hours):
            raise SpecError(
                f"the policy's budget is less than its forced schedule takes: {forced} retrainings in "
                f"{words(budget.per)} at max_age {words(self.max_age)}; raise the budget or max_age"
            )


def words(value: dt.timedelta) -> str:
    """Return a duration as people say it: ``14 days``, ``6 hours``."""
    seconds = value.total_seconds()
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if abs(seconds) >= size or size == 1:
            number = round(seconds / size, 1)
            text = f"{number:g}"
            return f"{text} {name}{'' if text == '1' else 's'}"
    return "0 seconds"


def _table(value: Any, what: str, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecError(f"{what} must be a dict with any of {', '.join(names)}; got {type(value).__name__}")
    for name in value:
        if name not in names:
            raise SpecError(f"{what} has no {name!r}{did_you_mean(name, names)} It may have: {', '.join(names)}")
    return {name: one for name, one in value.items() if one is not None and one != ""}


def _window_rule(kind: str, value: Any, *, retrains: bool) -> WindowRule | None:
    if value is None:
        return None
    given = _table(value, f"policy[{kind!r}]", _OF[kind])
    k, n = _windows(given.get("windows", [1, 1]), kind)
    action = given.get("action", "retrain" if retrains else "warn")
    if action not in ("retrain", "warn"):
        raise SpecError(f"policy[{kind!r}]['action'] is 'retrain' or 'warn', got {action!r}")
    if kind == "drift":
        share = _number(given.get("share"), "drift['share']")
        if share is not None and not 0 < share <= 1:
            raise SpecError(f"policy['drift']['share'] is above 0 and at most 1, got {share:g}")
        metric = None if share is None else "drift_share"
        return WindowRule(kind, k, n, action == "retrain", metric=metric, limit=share)
    metric = given.get("metric")
    drop, low, high = (_number(given.get(name), f"performance[{name!r}]") for name in ("drop", "min", "max"))
    if metric is None and (drop, low, high) != (None, None, None):
        raise SpecError("policy['performance'] with drop, min or max needs the 'metric' that they are of")
    if metric is not None and (drop, low, high) == (None, None, None):
        raise SpecError("policy['performance'] with a metric needs 'drop', 'min' or 'max'; without, the reports decide")
    if sum(one is not None for one in (drop, low, high)) > 1:
        raise SpecError("policy['performance'] takes one of 'drop', 'min' and 'max'")
    if drop is not None and drop <= 0:
        raise SpecError(f"policy['performance']['drop'] is how much worse the metric got: above 0, not {drop:g}")
    limit = low if low is not None else high
    if metric is not None and limit is not None and greater_is_better(metric) != (low is not None):
        raise SpecError(f"policy['performance']: {metric} takes {'min' if greater_is_better(metric) else 'max'}")
    base = _number(given.get("baseline"), "performance['baseline']")
    return WindowRule(kind, k, n, action == "retrain", str(metric) if metric else None, drop, limit, base)


def greater_is_better(metric: str) -> bool:
    """Return a metric's direction.

    :raises SpecError: for a name that is neither scikit-learn's nor an import path.
    """
    from airflow_mlops.core.training.metrics import metric as metric_of

    return metric_of(str(metric)).greater_is_better


def _windows(value: Any, kind: str) -> tuple[int, int]:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        k, n = (_count(one, f"{kind}['windows']", least=1) or 1 for one in value)
        if k <= n:
            return k, n
    raise SpecError(f"policy[{kind!r}]['windows'] is [k, n]: k bad ones of the last n, such as [2, 3]; got {value!r}")


def _budget(value: Any) -> Budget | None:
    if value is None:
        return None
    given = _table(value, "policy['budget']", _OF["budget"])
    per = _duration(given.get("per"), "budget['per']")
    runs = _count(given.get("runs"), "budget['runs']")
    hours = _number(given.get("hours"), "budget['hours']")
    charge = _number(given.get("hours_per_run"), "budget['hours_per_run']")
    if per is None or (runs is None and hours is None):
        raise SpecError("policy['budget'] needs 'per' and 'runs' or 'hours': {'runs': 4, 'per': '90d'}")
    if hours is not None and not charge:
        raise SpecError("policy['budget']['hours'] needs 'hours_per_run': what a run is charged with until it ended")
    if (hours or 0) < 0 or (charge or 0) < 0:
        raise SpecError("policy['budget'] has hours of 0 or more")
    return Budget(per, runs, hours, charge or 0.0)


def _duration(value: Any, what: str) -> dt.timedelta | None:
    if value is None:
        return None
    try:
        found = parse_duration(value)
    except SpecError as error:
        raise SpecError(f"policy: {what}: {error.message}") from None
    if found > LONGEST:
        raise SpecError(f"policy: {what} is {value}: it may be {LONGEST.days // 365} years at most")
    if found <= NO_TIME and what != "cooldown":
        raise SpecError(f"policy: {what} must be longer than nothing")
    return found


def _count(value: Any, what: str, *, least: int = 0) -> int | None:
    number = _number(value, what)
    if number is None:
        return None
    if number != int(number) or number < least:
        raise SpecError(f"policy: {what} must be a whole number of {least} or more, got {value!r}")
    return int(number)


def _number(value: Any, what: str) -> float | None:
    """Return a number, also from its text, as a template renders it."""
    if value is None:
        return None
    try:
        found = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if not math.isfinite(found):
        raise SpecError(f"policy: {what} must be a number, got {value!r}")
    return found
