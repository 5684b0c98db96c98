"""Moving an alias: compare, set, record; and repair of what a crash or a late process left.

MLflow cannot move an alias on a condition, so the ledger decides who may (see ``docs/adr/0002-ledger.md``). A move
is: settle the last number; compare the alias with the ledger and with what the caller expects; create the next
intent; claim the move; move the alias; create the outcome. Each step but the alias is a conditional create.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from airflow_mlops.core import digests
from airflow_mlops.core.errors import ConflictError, SupersededError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.registry.anchor import needed_versions
from airflow_mlops.core.registry.ledger import Entry, Ledger, last_done
from airflow_mlops.core.registry.versions import RegisteredModel

#: Times that a move begins again when others get the number first.
ATTEMPTS = 100
#: Seconds between two looks at an intent that somebody holds.
POLL_SECONDS = (0.02, 0.5)

#: As an expected version: none was stated, so what stands when the move begins is what must stand when it happens.
UNSET: Final = "unset"
Expected = int | None | Literal["unset"]


@dataclass(frozen=True, kw_only=True)
class Move:
    """What somebody wants done to an alias.

    :param version: the version to point at; None removes the alias.
    :param digest: digest of that version's files.
    :param expected: the version that the alias must have now; None: the alias must not exist.
    :param key: the task instance that asks; empty for an act of its own.
    :param clock: when it takes place in the time of the data, ISO 8601; None: what the wall clock says.
    :param archived: of an archival, which has no alias: ``{"versions", "files", "keep_rollback"}``.
    """

    action: Literal["promote", "rollback", "archive"]
    alias: str
    version: int | None
    digest: str | None = None
    expected: Expected = UNSET
    key: str = ""
    by: str | None = None
    reason: str | None = None
    evidence: list[dict[str, Any]] = field(default_factory=list)
    evidence_waived: bool = False
    run: dict[str, Any] | None = None
    clock: str | None = None
    archived: dict[str, Any] | None = None

    @property
    def spec_digest(self) -> str:
        """Digest of what is asked for; not of who asks and why."""
        evidence = [(e.get("kind"), e.get("digest")) for e in self.evidence]
        asked = [self.action, self.alias, self.version, self.digest, self.expected, evidence]
        return digests.of_json([*asked, self.archived] if self.archived else asked)


def carry_out(ledger: Ledger, model: RegisteredModel, move: Move, log: logging.Logger) -> Entry:
    """Do a move and return its entry; a task instance that has done it gets its old entry back.

    :raises ConflictError: if the alias has another version than expected, or somebody else got in first.
    :raises SupersededError: if this task instance acted before, and a later entry stands.
    """
    stood = model.alias(move.alias)
    for _ in range(ATTEMPTS):
        entries, repaired = settle(ledger, model, move, log)
        mine = entries[-1] if entries and entries[-1].outcome is None else None
        if mine is not None:
            log.info("going on with %s, which an earlier try of this task began", mine)
            if _void_if_moved_outside(ledger, model, mine, mine.previous, mine.version):
                continue
            return _go_through(ledger, model, mine, log)
        now = model.alias(move.alias)
        if repaired:
            stood = now
        if _moved_outside(ledger, entries, move.alias, now, log):
            continue
        again = _done_before(entries, move, log)
        if again is not None:
            return again
        _compare(ledger, entries, move, stood, now)
        seq = len(entries) + 1
        if not ledger.begin(seq, _intent(move, now)):
            continue
        crash_point("promote.intent_written")
        entry = ledger.read(seq)
        if entry.outcome is None and _void_if_moved_outside(ledger, model, entry, now):
            continue
        return _go_through(ledger, model, entry, log)
    raise ConflictError(f"others kept changing {ledger.model!r}; nothing was moved. Try again", model=ledger.model)


def catch_up(ledger: Ledger, model: RegisteredModel, alias: str, key: str, log: logging.Logger) -> list[Entry]:
    """Return the entries once they say where the alias is now, whoever moved it there.

    What others left open is settled, a move in MLflow put on record; the open entry of the task instance ``key`` is
    returned open, as the last.
    """
    for _ in range(ATTEMPTS):
        entries = ledger.entries()
        if entries and entries[-1].outcome is None and entries[-1].is_by(key):
            return entries
        entries, _repaired = settle(ledger, model, None, log)
        if not _moved_outside(ledger, entries, alias, model.alias(alias), log):
            return entries
    raise ConflictError(f"others kept changing {ledger.model!r}; nothing was moved. Try again", model=ledger.model)


def _intent(move: Move, now: int | None) -> dict[str, Any]:
    return {
        "action": move.action,
        "alias": move.alias,
        "version": move.version,
        "previous_version": now,
        "expected": move.expected,
        "digest": move.digest,
        "key": move.key,
        "spec_digest": move.spec_digest,
        "by": move.by,
        "reason": move.reason,
        "evidence": move.evidence,
        "evidence_waived": move.evidence_waived,
        "run": move.run,
        "clock": move.clock,
        **({"archived": move.archived} if move.archived else {}),
    }


def _void_if_moved_outside(
    ledger: Ledger, model: RegisteredModel, entry: Entry, *known: int | None, by: str | None = None
) -> bool:
    """Void an open entry if the alias is at none of the versions that the ledger can explain."""
    now = model.alias(entry.alias)
    if now in known:
        return False
    ledger.fence(entry.seq)
    reason = f"the alias was moved to {_name(now)} in MLflow while this entry was open"
    ledger.finish(entry.seq, "void", reason, by)
    return True


def settle(ledger: Ledger, model: RegisteredModel, move: Move | None, log: logging.Logger) -> tuple[list[Entry], bool]:
    """Return the entries, each with its outcome, and whether one that was left behind had to be finished.

    An open entry whose lease runs is waited for; one whose lease is over is finished or voided. The open entry of
    ``move``'s own task instance and spec is returned open, as the last.
    """
    repaired = False
    since: dict[int, float] = {}
    pause = POLL_SECONDS[0]
    while True:
        entries = ledger.entries()
        tail = entries[-1] if entries else None
        if tail is None or tail.outcome is not None:
            return entries, repaired
        own = move is not None and tail.is_by(move.key)
        if own and move is not None and tail.intent["spec_digest"] == move.spec_digest:
            return entries, repaired
        # The lease is the writer's wall clock; if that is ahead of ours we wait for one lease at most.
        first_look = tail.seq not in since
        waited = time.monotonic() - since.setdefault(tail.seq, time.monotonic())
        left = min(tail.intent["lease_until"] - time.time(), tail.intent["lease_seconds"] - waited)
        if own or left <= 0:
            log.warning("%s was left without an outcome; settling it", tail)
            _settle_left_behind(ledger, model, tail, move.by if move else None, log)
            repaired = True
            continue
        if first_look:
            log.info("waiting for %s, %.0f s at most", tail, left)
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, POLL_SECONDS[1])


def _settle_left_behind(
    ledger: Ledger, model: RegisteredModel, entry: Entry, by: str | None, log: logging.Logger
) -> None:
    """Decide an entry whose writer is gone, or so slow that it must be taken for gone."""
    settler = by or "the next operation"
    if ledger.fence(entry.seq):
        ledger.finish(entry.seq, "void", "whoever began it stopped before moving the alias", settler)
        return
    if not _void_if_moved_outside(ledger, model, entry, entry.previous, entry.version, by=settler):
        # Its writer may still be about to move the alias: doing the same makes that harmless.
        _apply(ledger, model, entry, log, settler)


def _go_through(ledger: Ledger, model: RegisteredModel, entry: Entry, log: logging.Logger) -> Entry:
    """Do what our own intent says, and return it done.

    :raises ConflictError: if our number was voided, because we were slower than our lease.
    :raises SupersededError: if it was done for us and a later entry stands.
    """
    if ledger.claim(entry.seq) and _apply(ledger, model, entry, log):
        return ledger.read(entry.seq)
    settled = _outcome(ledger, entry)
    entries = ledger.entries()
    tail = last_done(entries, entry.alias)
    if settled.done and (tail is None or tail.seq == entry.seq):
        return settled
    if settled.done:
        raise SupersededError(
            f"{settled} took place, but was slow to end and is superseded by {tail}, which stands", by=str(tail)
        )
    assert settled.outcome is not None
    stands = f"{tail} stands" if tail else "the alias stands as it was"
    raise ConflictError(
        f"{settled} was voided: {settled.outcome['reason']}; {stands}. Clear the task to try again",
        seq=entry.seq,
    )


def _outcome(ledger: Ledger, entry: Entry) -> Entry:
    """Return the entry with its outcome, voiding it if whoever fenced it went away before."""
    settled = ledger.read(entry.seq)
    if settled.outcome is None:
        ledger.finish(entry.seq, "void", "whoever began it was slower than its lease")
        settled = ledger.read(entry.seq)
    return settled


def _apply(
    ledger: Ledger, model: RegisteredModel, entry: Entry, log: logging.Logger, settler: str | None = None
) -> bool:
    """Move the alias as an entry says and record it as done; False if that came too late, and was put right."""
    if ledger.read(entry.seq).outcome is not None:
        return False
    crash_point("promote.move_claimed")
    if entry.intent.get("archived"):
        _archive(ledger, model, entry, log)
    else:
        model.point(entry.alias, entry.version)
    crash_point("promote.alias_moved")
    if ledger.finish(entry.seq, "done", settled_by=settler):
        crash_point("promote.outcome_written")
        return True
    _put_right(ledger, model, entry, log)
    return False


def _archive(ledger: Ledger, model: RegisteredModel, entry: Entry, log: logging.Logger) -> None:
    """Archive the versions of an entry; doing it again changes nothing.

    While the entry is open nobody else can promote, but somebody may have between the plan and its intent.
    """
    archived = entry.intent["archived"]
    needed = set(model.aliases().values()) | needed_versions(ledger.entries(), archived["keep_rollback"])
    for number in archived["versions"]:
        if number in needed:
            log.warning("version %d of %r came into use meanwhile and stays", number, ledger.model)
        else:
            model.archive(number, entry.seq, archived["files"].get(str(number)))
            crash_point("archive.version_done")


def _put_right(ledger: Ledger, model: RegisteredModel, entry: Entry, log: logging.Logger) -> None:
    """Undo a move that came after others had settled our number: the alias goes to what the ledger says.

    Only what we ourselves put there is replaced. It is done again until nothing changed in between.
    """
    ours = {entry.version}
    for _ in range(ATTEMPTS):
        entries, _repaired = settle(ledger, model, None, log)
        tail = last_done(entries, entry.alias)
        right = tail.version if tail else entry.previous
        now = model.alias(entry.alias)
        if now == right or now not in ours:
            return
        log.warning("%s moved the alias late; putting it back to %s", entry, _name(right))
        model.point(entry.alias, right)
        ours.add(right)


def _moved_outside(ledger: Ledger, entries: list[Entry], alias: str, now: int | None, log: logging.Logger) -> bool:
    """Record that the alias is not where the ledger left it, if so; return whether the ledger has grown."""
    tail = last_done(entries, alias)
    before = tail.version if tail else None
    if now == before:
        return False
    seq = len(entries) + 1
    intent: dict[str, Any] = {
        "action": "external",
        "alias": alias,
        "version": now,
        "previous_version": before,
        "expected": UNSET,
        "digest": None,
        "key": "",
        "spec_digest": "",
        "by": None,
        "reason": "moved in MLflow, not through the ledger" if tail else "found at the ledger's first use",
        "evidence": [],
        "run": None,
    }
    if ledger.begin(seq, intent) and ledger.finish(seq, "done"):
        log.warning("%r of %r is at %s, not at %s: somebody moved it in MLflow. Recorded as entry %d, not undone",
                    alias, ledger.model, _name(now), _name(before), seq)  # fmt: skip
    return True


def _done_before(entries: list[Entry], move: Move, log: logging.Logger) -> Entry | None:
    """Return the entry of this task instance if it stands; refuse to act again over a later one.

    A task instance whose spec has changed since, and which says what it expects to replace, may act again.
    """
    own = [entry for entry in entries if entry.is_by(move.key) and entry.alias == move.alias]
    if not own:
        return None
    tail = last_done(entries, move.alias)
    same = [e for e in own if e.intent["spec_digest"] == move.spec_digest and e.done]
    if same and tail is not None and same[-1].seq == tail.seq:
        log.info("%s was made by this task and stands; nothing is done again", same[-1])
        return same[-1]
    later = tail is not None and tail.seq > own[-1].seq
    if same or (later and move.expected == UNSET):
        first = same[-1] if same else own[-1]
        raise SupersededError(
            f"{first} is superseded by {tail}: doing it again would undo that. If that is what you want, "
            f"{move.action} from a new run or by 'airflow mlops {move.action}'",
            seq=first.seq,
        )
    return None


def _compare(ledger: Ledger, entries: list[Entry], move: Move, stood: int | None, now: int | None) -> None:
    expected = stood if move.expected == UNSET else move.expected
    if now == expected:
        return
    tail = last_done(entries, move.alias)
    since = f" since {tail}" if tail else ""
    why = (
        "stood there when this began" if move.expected == UNSET else "it was expected to have, or was measured against"
    )
    if move.action == "rollback":
        raise ConflictError(
            f"{move.alias!r} of {ledger.model!r} is {_name(now)} now{since}, and {_name(expected)} was to be rolled "
            "back: somebody was first. Roll back again if the present version is to go as well",
            model=ledger.model,
            expected=expected,
            found=now,
        )
    if now == move.version:
        raise ConflictError(
            f"{move.alias!r} of {ledger.model!r} is {_name(now)} already{since}: there is nothing to do",
            model=ledger.model,
            expected=expected,
            found=now,
        )
    raise ConflictError(
        f"{move.alias!r} of {ledger.model!r} is {_name(now)} now{since}, and {_name(expected)} is what "
        f"{why}. Test the model against the present one, and promote again",
        model=ledger.model,
        expected=expected,
        found=now,
    )


def _name(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"
