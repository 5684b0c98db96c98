"""What the ledger makes of crashes and of processes that wake up late."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_mlops.core import faults
from airflow_mlops.core.errors import ConflictError, MlopsError, SupersededError
from airflow_mlops.core.registry import moves
from airflow_mlops.core.registry.ledger import Ledger


class Died(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do something when the process comes to a crash point for the first time."""

    def arrange(name: str, action: Callable[[], None]) -> None:
        waiting = [action]

        def point(here: str) -> None:
            if here == name and waiting:
                waiting.pop()()

        monkeypatch.setattr(moves, "crash_point", point)

    return arrange


@pytest.fixture
def crashed(at: Any, promote: Any) -> Callable[..., None]:
    """Promote, and die at a crash point."""

    def crash(name: str, *args: Any, **kwargs: Any) -> None:
        def die() -> None:
            raise Died

        at(name, die)
        with pytest.raises(Died):
            promote(*args, **kwargs)

    return crash


POINTS = faults.CRASH_POINTS["promote_model"]


@pytest.mark.parametrize("point", POINTS)
def test_crash_and_retry_is_one_clean_run(point, crashed, promote, versions, registered, history):
    promote(versions[0], key="first")
    crashed(point, versions[1], key="second")

    entry = promote(versions[1], key="second")

    assert (entry["seq"], entry["version"], entry["previous_version"]) == (2, 2, 1)
    assert history() == [(1, "done", "promote", 1), (2, "done", "promote", 2)]
    assert registered.alias("champion") == 2


@pytest.mark.parametrize("point", POINTS)
def test_crash_then_another_promotion_then_the_retry(point, crashed, promote, versions, registered, history):
    promote(versions[0], key="first")
    crashed(point, versions[1], key="second")
    state = "void" if point == "promote.intent_written" else "done"

    entry = promote(versions[2], key="third")
    assert (entry["seq"], entry["previous_version"]) == (3, 1 if state == "void" else 2)
    with pytest.raises(SupersededError, match=r"entry 2 .* superseded by entry 3"):
        promote(versions[1], key="second")

    assert history()[1:] == [(2, state, "promote", 2), (3, "done", "promote", 3)]
    assert registered.alias("champion") == 3


@pytest.mark.parametrize("point", ["promote.intent_written", "promote.move_claimed"])
def test_a_move_by_hand_after_a_crash_is_respected(point, crashed, promote, versions, registered, history):
    promote(versions[0], key="first")
    crashed(point, versions[1], key="second")
    registered.point("champion", 3)

    with pytest.raises(ConflictError):
        promote(versions[1], key="second", expected_champion=1)

    assert history()[1:] == [(2, "void", "promote", 2), (3, "done", "external", 3)]
    assert registered.alias("champion") == 3


def late(promote: Any, versions: Any, action: Callable[[], None], at: Any, point: str) -> MlopsError | dict[str, Any]:
    """Promote version 2, stop at a point until the lease is over and ``action`` is done, and go on."""

    def sleep_through() -> None:
        time.sleep(0.6)
        action()

    at(point, sleep_through)
    try:
        return promote(versions[1], key="slow", expected_champion=1)
    except MlopsError as error:
        return error


def test_a_promoter_that_wakes_up_before_moving_never_touches_the_alias(at, promote, versions, registered, history):
    promote(versions[0], key="first")
    seen = []
    point, real = registered.point, type(registered).point
    type(registered).point = lambda self, alias, version: (seen.append(version), real(self, alias, version))[1]
    try:
        found = late(promote, versions, lambda: promote(versions[2], key="quick"), at, "promote.intent_written")
    finally:
        type(registered).point = real
    assert point is not None

    assert isinstance(found, ConflictError)
    assert "entry 2" in str(found)
    assert "voided" in str(found)
    assert "entry 3" in str(found)
    assert seen == [3]
    assert registered.alias("champion") == 3
    assert history()[1:] == [(2, "void", "promote", 2), (3, "done", "promote", 3)]


def test_a_promoter_that_wakes_up_just_before_moving_puts_the_alias_right(at, promote, versions, registered, history):
    promote(versions[0], key="first")

    found = late(promote, versions, lambda: promote(versions[2], key="quick"), at, "promote.move_claimed")

    # It was taken for dead, its promotion was done for it, and then another one followed.
    assert isinstance(found, SupersededError)
    assert "superseded by entry 3" in str(found)
    assert registered.alias("champion") == 3
    assert history()[1:] == [(2, "done", "promote", 2), (3, "done", "promote", 3)]


def test_a_promoter_that_wakes_up_after_moving_leaves_what_came_later(at, promote, versions, registered, history):
    promote(versions[0], key="first")

    found = late(promote, versions, lambda: promote(versions[2], key="quick"), at, "promote.alias_moved")

    assert isinstance(found, SupersededError)
    assert registered.alias("champion") == 3
    assert history()[1:] == [(2, "done", "promote", 2), (3, "done", "promote", 3)]


@pytest.mark.parametrize("point", ["promote.move_claimed", "promote.alias_moved"])
def test_a_promoter_whose_work_was_finished_for_it_has_its_entry(point, at, promote, versions, registered, history):
    promote(versions[0], key="first")

    def another_one_fails() -> None:
        with pytest.raises(ConflictError, match="version 2 now"):
            promote(versions[2], key="quick", expected_champion=1)

    found = late(promote, versions, another_one_fails, at, point)

    assert isinstance(found, dict)
    assert (found["seq"], found["version"]) == (2, 2)
    assert registered.alias("champion") == 2
    assert history()[1:] == [(2, "done", "promote", 2)]


def test_a_zombie_and_its_own_retry_make_one_entry(at, promote, versions, registered, history):
    promote(versions[0], key="first")

    found = late(
        promote, versions, lambda: promote(versions[1], key="slow", expected_champion=1), at, "promote.move_claimed"
    )

    assert isinstance(found, dict)
    assert history()[1:] == [(2, "done", "promote", 2)]
    assert registered.alias("champion") == 2


def test_another_promotion_waits_for_a_living_one(at, promote, versions, registered, history, monkeypatch):
    monkeypatch.setenv("AIRFLOW_MLOPS_LEASE_SECONDS", "30")
    promote(versions[0], key="first")
    errors: list[MlopsError] = []

    def other() -> None:
        try:
            promote(versions[2], key="waits")
        except MlopsError as error:
            errors.append(error)

    thread = threading.Thread(target=other)
    at("promote.intent_written", lambda: (thread.start(), time.sleep(0.5))[1])
    entry = promote(versions[1], key="living")
    thread.join(20)

    assert entry["seq"] == 2
    # Said nothing of what it expects: then what stood when it began.
    assert [type(error) for error in errors] == [ConflictError]
    assert "version 2 now since entry 2" in str(errors[0])
    assert history()[1:] == [(2, "done", "promote", 2)]


def test_a_writers_clock_that_is_ahead_does_not_hold_others_up(crashed, promote, versions, monkeypatch, history):
    promote(versions[0], key="first")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    crashed("promote.intent_written", versions[1], key="second")
    monkeypatch.setattr(time, "time", real)

    begun = time.monotonic()
    promote(versions[2], key="third")

    assert time.monotonic() - begun < 1800, "it waited for the lease by the writer's clock"
    assert history()[1:] == [(2, "void", "promote", 2), (3, "done", "promote", 3)]


def test_a_task_cleared_with_another_spec_settles_its_dead_try_at_once(
    crashed, promote, versions, monkeypatch, history
):
    monkeypatch.setenv("AIRFLOW_MLOPS_LEASE_SECONDS", "400")
    promote(versions[0], key="first")
    crashed("promote.intent_written", versions[1], key="second")

    begun = time.monotonic()
    assert promote(versions[2], key="second")["seq"] == 3

    assert time.monotonic() - begun < 300, "it waited for its own lease"
    assert history()[1:] == [(2, "void", "promote", 2), (3, "done", "promote", 3)]


def test_a_rollback_is_one_more_entry(promote, versions, registered, ledger, history):
    promote(versions[0], key="a")
    promote(versions[1], key="b")

    move = moves.Move(action="rollback", alias="champion", version=1, expected=2, key="back", by="ana")
    entry = moves.carry_out(ledger, registered, move, logging.getLogger()).to_ledger_entry().to_dict()

    assert (entry["action"], entry["version"], entry["previous_version"], entry["seq"]) == ("rollback", 1, 2, 3)
    assert registered.alias("champion") == 1
    with pytest.raises(SupersededError, match="superseded by entry 3"):
        promote(versions[1], key="b")
    assert len(history()) == 3


def test_an_archival_removes_the_alias(promote, versions, registered, ledger):
    promote(versions[0], key="a")
    move = moves.Move(action="archive", alias="champion", version=None, expected=1)

    entry = moves.carry_out(ledger, registered, move, logging.getLogger())

    assert registered.alias("champion") is None
    assert Ledger(ledger.store, "churn").entries()[-1].version is None
    assert entry.done
