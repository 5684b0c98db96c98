"""The decision itself: policy, memory, signals and a clock give a decision and the memory after it.

Pure: the same inputs give the same decision, which is what a replay relies on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from airflow_mlops.core.policy.memory import MAX_RUNS, Memory, Run, by_window, take_in
from airflow_mlops.core.policy.rules import Budget, Policy, WindowRule, greater_is_better, words
from airflow_mlops.core.policy.signals import WINDOWED, Signal
from airflow_mlops.core.vocabulary import SCHEMA

Action = Literal["retrain", "warn", "wait"]
KIND = "retraining_decision"
#: Windows that a decision names.
MAX_NAMED = 10


@dataclass(frozen=True)
class Cause:
    """A rule that reached its limit.

    :param retrains: whether it trains again, or only warns.
    """

    rule: str
    retrains: bool
    sentence: str
    windows: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Decision:
    """What is done, and why.

    :param reason: one sentence.
    :param causes: the rules that reached their limit, the one that counts first.
    :param ahead: reports on windows that begin after the clock: they are left for a later decision.
    :param blocked: what stood against a retraining: ``cooldown``, ``budget``, ``min_new_rows``, ``min_new_labels``.
    :param clock: the instant that it was made at; never before that of an earlier decision.
    """

    action: Action
    reason: str
    clock: dt.datetime
    causes: tuple[Cause, ...] = ()
    blocked: tuple[str, ...] = ()
    counted: int = 0
    duplicates: int = 0
    ahead: int = 0
    state: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        first = self.causes[0] if self.causes else None
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "action": self.action,
            "retrain": self.action == "retrain",
            "reason": self.reason,
            "rule": first.rule if first else None,
            "rules": [one.rule for one in self.causes],
            "windows": list(first.windows[-MAX_NAMED:]) if first else [],
            "blocked": list(self.blocked),
            "clock": self.clock.isoformat(),
            "signals": {
                **{"counted": self.counted, "duplicates": self.duplicates},
                **({"ahead": self.ahead} if self.ahead else {}),
            },
            "state": self.state or {},
        }


def decide(
    policy: Policy,
    memory: Memory,
    signals: Iterable[Signal],
    now: dt.datetime,
    *,
    seq: int = 1,
    trained_at: dt.datetime | None = None,
    force: bool = False,
) -> tuple[Decision, Memory]:
    """Say whether to train again.

    :param now: the clock; one that was set back counts as the latest that a decision had.
    :param seq: the number of this decision, by which the retraining's cost is told later.
    :param trained_at: when the model that serves was trained, where that was outside this policy.
    :param force: somebody wants it: nothing stands against it, and cooldown and budget count it.
    """
    clock = max(now, memory.clock) if memory.clock else now
    keep = max((rule.n for rule in (policy.performance, policy.drift) if rule), default=0)
    told, ahead = _told_by(signals, clock)
    known, counted, duplicates = take_in(memory, told, keep)
    known = replace(known, clock=clock, started=known.started or clock)
    causes = _causes(policy, known, clock, trained_at)
    if force:
        causes = [Cause("force", True, "it was asked for"), *causes]
    wanted = [one for one in causes if one.retrains]
    blocks: dict[str, str] = {}
    if wanted and not force:
        blocks = _blocks(policy, known, clock, forced=any(one.rule == "max_age" for one in wanted))
    action: Action = "retrain" if wanted and not blocks else "warn" if causes else "wait"
    reason = _reason(policy, known, clock, causes, blocks, trained_at) + _of_times(clock, now, ahead)
    state = _state(policy, known, clock, trained_at)
    decision = Decision(
        action, reason, clock, tuple(wanted or causes), tuple(blocks), counted, duplicates, ahead, state
    )
    if action == "retrain":
        known = replace(known, runs=_kept(policy, (*known.runs, Run(clock, seq)), clock), rows=0, labels=0)
    return decision, known


def _told_by(signals: Iterable[Signal], clock: dt.datetime) -> tuple[list[Signal], int]:
    """Return the signals that a clock can know of, and how many speak of a window that begins after it.

    Those come to a run that catches up on the past, and from a monitor whose clock is wrong. Counted now they would
    stand for the newest windows until their time has come.
    """
    found = list(signals)
    known = [one for one in found if not (one.kind in WINDOWED and clock < one.start < one.end)]
    return known, len(found) - len(known)


def _of_times(clock: dt.datetime, now: dt.datetime, ahead: int) -> str:
    """Return what there is to say of a clock that was set back, and of windows that are ahead of it."""
    said = f" The clock was set back from {_day(clock)} to {_day(now)}; the later one counts." if now < clock else ""
    if ahead:
        are = "1 report is on a window that begins" if ahead == 1 else f"{ahead} reports are on windows that begin"
        said += f" {are} after {_day(clock)}, and left for later."
    return said


def _kept(policy: Policy, runs: tuple[Run, ...], clock: dt.datetime) -> tuple[Run, ...]:
    """Return what a budget may ask for: also one that a later policy has."""
    older = runs[:-MAX_RUNS]
    return (*(run for run in older if policy.budget and run.at > clock - policy.budget.per), *runs[-MAX_RUNS:])


def _causes(policy: Policy, memory: Memory, clock: dt.datetime, trained_at: dt.datetime | None) -> list[Cause]:
    """Return the rules that reached their limit; those that train again first."""
    found = [_windows(rule, memory) for rule in (policy.performance, policy.drift) if rule]
    if policy.new_rows is not None and memory.rows >= policy.new_rows:
        text = f"{memory.rows} new rows have come since the last training ({policy.new_rows} are enough)"
        found.append(Cause("new_rows", True, text))
    age = _age(memory, clock, trained_at)
    if policy.max_age is not None and age >= policy.max_age:
        text = f"the model is {words(age)} old and is trained again after {words(policy.max_age)} in any case"
        found.append(Cause("max_age", True, text))
    return sorted((one for one in found if one), key=lambda one: not one.retrains)


def _age(memory: Memory, clock: dt.datetime, trained_at: dt.datetime | None) -> dt.timedelta:
    """Return the time since the last training that is known of."""
    known = [one for one in (memory.last, trained_at) if one is not None and one <= clock]
    return clock - max(known, default=memory.started or clock)


def counting(rule: WindowRule, memory: Memory) -> list[Signal]:
    """Return the windows that count, each by its worst report.

    Those count that began after the last retraining: they speak of what it made.
    """
    last = memory.last
    after = (one for one in memory.windows.get(rule.kind, ()) if last is None or one.start >= last)
    return [max(some, key=lambda one: (_badness(rule, one), one.told)) for some in by_window(after)]


def _badness(rule: WindowRule, one: Signal) -> int:
    return (1 if one.facts.get("estimated") else 2) if is_bad(rule, one) else 0


def _windows(rule: WindowRule, memory: Memory) -> Cause | None:
    """Return the cause that ``k`` bad windows of the last ``n`` are."""
    latest = counting(rule, memory)[-rule.n :]
    bad = [one for one in latest if is_bad(rule, one)]
    if len(bad) < rule.k:
        return None
    # An estimate of the performance cannot see that the world has changed, so it trains nothing by itself.
    measured = [one for one in bad if not one.facts.get("estimated")]
    windows = tuple({"start": one.start.isoformat(), "end": one.end.isoformat()} for one in bad)
    return Cause(rule.kind, rule.retrains and len(measured) >= rule.k, _told(rule, bad, len(latest)), windows)


def is_bad(rule: WindowRule, one: Signal) -> bool:
    """Return whether a window counts against the model.

    Where a drop has no baseline, in the report or in the policy, and where the metric was not measured, the report's
    own verdict holds.
    """
    value = _value(one, rule.metric)
    limit = _limit(rule, one)
    if value is None or limit is None:
        return not one.facts["passed"]
    if rule.kind == "drift":
        return value >= limit
    if rule.drop is not None:
        return value <= limit if greater_is_better(str(rule.metric)) else value >= limit
    return value < limit if greater_is_better(str(rule.metric)) else value > limit


def _limit(rule: WindowRule, one: Signal) -> float | None:
    if rule.drop is None:
        return rule.limit
    base = rule.baseline if rule.baseline is not None else _baseline(one, str(rule.metric))
    if base is None:
        return None
    return base - rule.drop if greater_is_better(str(rule.metric)) else base + rule.drop


def _value(one: Signal, metric: str | None) -> float | None:
    """Return a metric of a report, which may carry its interval: ``{"value", "low", "high"}``."""
    value = one.facts["metrics"].get(metric) if metric else None
    return _number(value.get("value") if isinstance(value, dict) else value)


def _baseline(one: Signal, metric: str) -> float | None:
    metrics = one.facts["metrics"]
    own = metrics.get(metric)
    places = (one.facts.get("baseline"), metrics.get("baseline"), {metric: metrics.get(f"baseline_{metric}")})
    found = [_number(own.get("baseline"))] if isinstance(own, dict) else []
    found += [_number(place.get(metric)) for place in places if isinstance(place, dict)]
    return next((one for one in found if one is not None), None)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _told(rule: WindowRule, bad: list[Signal], latest: int) -> str:
    last = bad[-1]
    value, limit = _value(last, rule.metric), _limit(rule, last)
    what = {"performance": "performance was too low", "drift": "the data drifted"}[rule.kind]
    measured = ""
    if value is not None and limit is not None:
        measured = f", {rule.metric} {value:.4g} against a limit of {limit:.4g}"
    return f"{what} in {len(bad)} of the last {latest} windows ({_period(last)}{measured})"


def _blocks(policy: Policy, memory: Memory, clock: dt.datetime, *, forced: bool) -> dict[str, str]:
    """Return what stands against a retraining now, and what that says."""
    found = {}
    if memory.last is not None and clock - memory.last < policy.cooldown:
        found["cooldown"] = f"the cooldown after the last retraining ends on {_day(memory.last + policy.cooldown)}"
    if policy.budget and (why := over_budget(policy.budget, memory.runs, clock, policy.max_age, forced=forced)):
        found["budget"] = why
    if not forced and memory.rows < policy.min_new_rows:
        found["min_new_rows"] = f"only {memory.rows} new rows have come, of {policy.min_new_rows} that it takes"
    if not forced and memory.labels < policy.min_new_labels:
        found["min_new_labels"] = f"only {memory.labels} new labels have come, of {policy.min_new_labels} that it takes"
    return found


def over_budget(
    budget: Budget, runs: Iterable[Run], clock: dt.datetime, max_age: dt.timedelta | None, *, forced: bool
) -> str | None:
    """Return why one more retraining now is more than the budget gives; None if it is not.

    A retraining that is not forced must also leave enough for the forced schedule that would follow it.
    """
    charges = [(run.at, budget.hours_per_run if run.hours is None else run.hours) for run in runs]
    charges.append((clock, budget.hours_per_run))
    at, planned = clock, 0
    while True:
        within = [hours for when, hours in charges if when > at - budget.per]
        saved = " and the rest is kept for the forced schedule" if planned else ""
        if budget.runs is not None and len(within) > budget.runs:
            used = sum(when > clock - budget.per for when, _ in charges[: len(charges) - planned - 1])
            return f"{used} of {budget.runs} retrainings in {words(budget.per)} are used{saved}"
        if budget.hours is not None and sum(within) > budget.hours:
            spent = sum(hours for when, hours in charges[: len(charges) - planned - 1] if when > clock - budget.per)
            return f"{spent:g} of {budget.hours:g} hours in {words(budget.per)} are used{saved}"
        if max_age is None or forced or at + max_age - clock >= budget.per:
            return None
        at, planned = at + max_age, planned + 1
        charges.append((at, budget.hours_per_run))


def _reason(
    policy: Policy,
    memory: Memory,
    clock: dt.datetime,
    causes: list[Cause],
    blocks: dict[str, str],
    trained_at: dt.datetime | None,
) -> str:
    """Return the sentence that explains a decision."""
    wanted = [one for one in causes if one.retrains]
    if wanted and not blocks:
        return f"Retrain, because {' and '.join(one.sentence for one in wanted)}."
    if wanted:
        why = " and ".join(blocks.values())
        return f"No retraining: {' and '.join(one.sentence for one in wanted)}, but {why}."
    if causes:
        return f"Warning, no retraining: {' and '.join(one.sentence for one in causes)}, which by itself only warns."
    return f"No retraining: no rule reached its limit ({'; '.join(_standing(policy, memory, clock, trained_at))})."


def _standing(policy: Policy, memory: Memory, clock: dt.datetime, trained_at: dt.datetime | None) -> list[str]:
    found = []
    for rule in (policy.performance, policy.drift):
        if rule:
            latest = counting(rule, memory)[-rule.n :]
            bad = sum(is_bad(rule, one) for one in latest)
            found.append(f"{rule.kind}: {bad} bad of the last {len(latest)} windows, {rule.k} of {rule.n} needed")
    if policy.new_rows is not None:
        found.append(f"new rows: {memory.rows} of {policy.new_rows}")
    if policy.max_age is not None:
        found.append(f"age: {words(_age(memory, clock, trained_at))} of {words(policy.max_age)}")
    return found or ["the policy has none"]


def _state(policy: Policy, memory: Memory, clock: dt.datetime, trained_at: dt.datetime | None) -> dict[str, Any]:
    """Return where each rule stands, for people and pages."""
    state: dict[str, Any] = {
        "new_rows": memory.rows,
        "new_labels": memory.labels,
        "age_days": round(_age(memory, clock, trained_at).total_seconds() / 86400, 2),
        "last_retraining": memory.last.isoformat() if memory.last else None,
    }
    for rule in (policy.performance, policy.drift):
        if rule:
            counted = counting(rule, memory)
            latest = counted[-rule.n :]
            known = len(by_window(memory.windows.get(rule.kind, ()))) - len(counted)
            state[rule.kind] = {
                "bad": sum(is_bad(rule, one) for one in latest),
                "of": len(latest),
                "needed": [rule.k, rule.n],
                "before_last_retraining": known,
            }
    if policy.budget:
        within = [run for run in memory.runs if run.at > clock - policy.budget.per]
        state["budget"] = {"runs": len(within), "per_days": policy.budget.per.total_seconds() / 86400}
    return state


def _day(value: dt.datetime) -> str:
    return value.strftime("%Y-%m-%d") if value.time() == dt.time(0) else value.strftime("%Y-%m-%d %H:%M")


def _period(one: Signal) -> str:
    return _day(one.end) if one.start == one.end else f"{_day(one.start)} to {_day(one.end)}"
