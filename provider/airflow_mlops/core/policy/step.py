"""The step ``decide_retraining``: read what came, decide, put it on record once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests
from airflow_mlops.core.errors import ConflictError, SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.policy import rules
from airflow_mlops.core.policy.decide import Decision, decide
from airflow_mlops.core.policy.memory import MAX_TASKS, Memory
from airflow_mlops.core.policy.record import Decisions
from airflow_mlops.core.policy.rules import Policy
from airflow_mlops.core.policy.signals import Signal, of_subject, signals_of
from airflow_mlops.core.vocabulary import SCHEMA, optional_instant, parse_instant, utc_now

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Times that the number may be taken by another task before this one gives up.
ATTEMPTS = 20


def decide_retraining(
    context: StepContext,
    *,
    name: str,
    reports: Any = None,
    policy: dict[str, Any] | None = None,
    subject: Any = None,
    clock: str | None = None,
    trained_at: str | None = None,
    force: Any = False,
) -> dict[str, Any]:
    """Decide whether a model is trained again.

    :param name: what the memory is kept under: the model's name.
    :param reports: reports, event extras, or lists of these; what says nothing to a policy is passed over.
    :param subject: only what speaks of it counts; a pattern, or a list of them.
    :param clock: the present, ISO 8601; default: that of this machine.
    :param trained_at: when the model that serves was trained, where that was outside this policy.
    :param force: train again whatever the policy says.
    :return: the decision, with ``seq`` and ``uri`` of its record.
    :raises ConflictError: if other tasks kept deciding about the same model.
    """
    if not str(name or "").strip():
        raise SpecError("model_name is needed: what is remembered is kept under it")
    rule = Policy.of(policy)
    now = optional_instant(clock, "clock") or parse_instant(utc_now())
    trained = optional_instant(trained_at, "trained_at")
    forced = _flag(force)
    told, passed_over = signals_of(reports, now)
    signals, others = of_subject(told, subject)
    passed_over += [f"a report on {one.subject}, which is not {subject}" for one in others]
    for what in passed_over:
        context.log.warning("passed over: %s", what)
    decisions = Decisions(context.store, str(name))
    inputs = digests.of_json(
        [
            *(policy, [one.id for one in signals], [clock, trained_at] if clock or trained_at else None),
            *(["force"] if forced else []),
        ]
    )
    for _ in range(ATTEMPTS):
        numbers = decisions.numbers()
        base, own = _base(decisions, numbers, context.key)
        if own is not None and own["inputs"] == inputs:
            context.log.info("decided before, as number %s; that stands", own["seq"])
            return _result(decisions, own)
        seq = len(numbers) + 1
        memory = decisions.memory(base)
        decision, after = decide(rule, memory, signals, now, seq=seq, trained_at=trained, force=forced)
        record = {
            "schema": SCHEMA,
            "name": str(name),
            "seq": seq,
            "base": base,
            "key": context.key,
            "run": context.run,
            "at": utc_now(),
            "inputs": inputs,
            "policy": policy or rules.DEFAULT,
            "subject": subject,
            "now": now.isoformat(),
            "trained_at": trained.isoformat() if trained else None,
            "force": forced,
            "signals": [one.to_dict() for one in signals],
            "decision": {**decision.to_dict(), "passed_over": len(passed_over)},
            "memory": _remembering(after, context.key, seq).to_dict(),
        }
        crash_point("decide.decided")
        if decisions.create(seq, record):
            crash_point("decide.recorded")
            return _result(decisions, record)
        # Another task has this number, or this one has, if the answer to its write was lost: look again.
    raise ConflictError(
        f"other tasks decided about {name!r} {ATTEMPTS} times meanwhile: let one DAG decide, with max_active_runs=1"
    )


def _flag(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in ("true", "false", "none", ""):
        raise SpecError(f"force is true or false, got {value!r}")
    return text == "true"


def _base(decisions: Decisions, numbers: list[int], key: str) -> tuple[int, dict[str, Any] | None]:
    """Return the decision whose memory this one begins with, and the one that this task instance made before.

    A task that was cleared with other inputs takes its own decision back if nobody has decided since.
    """
    if not numbers:
        return 0, None
    last = decisions.read(numbers[-1])
    seq = Memory.from_dict(last["memory"]).tasks.get(_short(key)) if key else None
    if seq is None:
        return numbers[-1], None
    own = last if seq == last["seq"] else decisions.read(seq)
    return (own["base"] if own is last else numbers[-1]), own


def _short(key: str) -> str:
    return digests.hex_of(digests.of_json(key))[:16]


def _remembering(memory: Memory, key: str, seq: int) -> Memory:
    if not key:
        return memory
    tasks = {name: one for name, one in memory.tasks.items() if name != _short(key)}
    newest = sorted({**tasks, _short(key): seq}.items(), key=lambda item: item[1])[-MAX_TASKS:]
    return replace(memory, tasks=dict(newest))


def _result(decisions: Decisions, record: dict[str, Any]) -> dict[str, Any]:
    """Return the decision as it goes to XCom."""
    decision = record["decision"]
    return {
        **decision,
        "name": record["name"],
        "seq": record["seq"],
        "uri": decisions.store.uri_of(decisions.key(record["seq"])),
    }


def replayed(decisions: Decisions, seq: int) -> tuple[Decision, dict[str, Any]]:
    """Return what a decision's recorded inputs give now, and its record."""
    record = decisions.read(seq)
    decision, _ = decided(record, decisions.memory(record["base"]), record["policy"])
    return decision, record


def decided(record: dict[str, Any], memory: Memory, policy: Any) -> tuple[Decision, Memory]:
    """Decide on the recorded signals and clock, with any memory and policy."""
    return decide(
        Policy.of(policy),
        memory,
        [Signal.from_dict(one) for one in record["signals"]],
        parse_instant(record["now"]),
        seq=record["seq"],
        trained_at=optional_instant(record["trained_at"], "trained_at"),
        force=bool(record.get("force")),
    )
