"""Rolling back: where to, once per task, and never over what came meanwhile."""

from __future__ import annotations

import pytest

from airflow_mlops.core.errors import ConflictError, NotFoundError, SpecError, SupersededError
from airflow_mlops.core.registry import rollback as rolling_back
from airflow_mlops.core.registry.moves import catch_up
from airflow_mlops.core.registry.rollback import releases


@pytest.fixture
def released(promote, versions):
    """Versions 1, 2 and 3, promoted one after the other."""
    for version in versions:
        promote(version, key=f"promote/{version['version']}")
    return versions


def test_one_release_back_on_record(rollback, released, registered, history):
    entry = rollback(reason="late by 20% more", by="ana")

    assert registered.alias("champion") == 2
    assert {key: entry[key] for key in ("seq", "action", "version", "previous_version", "by", "reason")} == {
        "seq": 4,
        "action": "rollback",
        "version": 2,
        "previous_version": 3,
        "by": "ana",
        "reason": "late by 20% more",
    }
    assert entry["digest"] == released[1]["digest"]
    assert history()[-1] == (4, "done", "rollback", 2)


def test_a_second_rollback_goes_further_back_and_a_third_has_nowhere_to_go(rollback, released, registered):
    assert rollback("a")["version"] == 2
    assert rollback("b")["version"] == 1
    with pytest.raises(NotFoundError, match="nothing to roll back to"):
        rollback("c")
    assert registered.alias("champion") == 1


def test_what_was_promoted_after_a_rollback_goes_back_to_what_it_replaced(rollback, promote, released):
    rollback("a")
    promote(released[2], key="promote/again")

    assert rollback("b")["version"] == 2


def test_the_same_task_again_does_not_go_back_once_more(rollback, released, registered, history):
    first = rollback()

    assert rollback() == first
    assert registered.alias("champion") == 2
    assert len(history()) == 4


def test_clearing_an_old_rollback_does_not_undo_a_later_promotion(rollback, promote, released, registered):
    rollback()
    promote(released[2], key="promote/again")

    with pytest.raises(SupersededError, match=r"entry 4 .* is superseded by entry 5 .* rollback from a new run"):
        rollback()
    assert registered.alias("champion") == 3


def test_to_a_version_that_it_had(rollback, released, registered):
    assert rollback(to_version="1")["version"] == 1
    with pytest.raises(ConflictError, match="has version 1 already"):
        rollback("again", to_version=1)


def test_to_a_version_that_never_served_is_a_promotion(rollback, promote, versions):
    promote(versions[0])
    with pytest.raises(NotFoundError, match=r"never had version 2, only \[1\].*promote it"):
        rollback(to_version=2)
    with pytest.raises(SpecError, match="to_version must be a version number"):
        rollback(to_version="the good one")
    with pytest.raises(NotFoundError, match="nothing to roll back to"):
        rollback()


def test_a_version_that_was_deleted_is_passed_over(rollback, released, registered):
    registered.delete_version(2)

    assert rollback()["version"] == 1


def test_what_somebody_put_there_by_hand_is_what_is_rolled_back(rollback, promote, versions, registered, history):
    promote(versions[0])
    registered.point("champion", 3)

    assert rollback()["version"] == 1
    assert [(action, version) for _, _, action, version in history()] == [
        ("promote", 1),
        ("external", 3),
        ("rollback", 1),
    ]


def test_a_promotion_that_comes_meanwhile_is_not_undone(rollback, promote, released, registered, monkeypatch):
    def late(*arguments):
        entries = catch_up(*arguments)
        promote(released[0], key="meanwhile")
        return entries

    monkeypatch.setattr(rolling_back, "catch_up", late)

    with pytest.raises(ConflictError, match=r"is version 1 now since entry 4 .* version 3 was to be rolled back"):
        rollback()
    assert registered.alias("champion") == 1


def test_aliases_are_apart(rollback, promote, versions, ledger):
    for number, alias in ((0, "champion"), (1, "shadow"), (2, "champion"), (0, "shadow")):
        promote(versions[number], key=f"{number}{alias}", alias=alias)

    assert rollback(alias="shadow")["version"] == 2
    assert releases(ledger.entries(), "champion") == [1, 3]
    assert releases(ledger.entries(), "shadow") == [2]
