"""The anchor, read from the ledger; and fifty retrainings that are each a bit worse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.evaluation.champion import decided
from airflow_mlops.core.evaluation.significance import Difference, jackknife
from airflow_mlops.core.registry.anchor import anchor_versions, anchors
from airflow_mlops.core.registry.ledger import Entry

Ledger = list[Entry]
MARGIN, STEP, DAYS, ROWS = 0.01, 0.004, 40, 200


def entry(
    entries: Ledger,
    version: int | None,
    action: str = "promote",
    better_than: dict[int, str] | None = None,
    state: str = "done",
    alias: str = "champion",
) -> None:
    """Add an entry, with comparisons ``{version: verdict}`` as its evidence."""
    compared = [
        {"against": f"churn@{alias}", "version": one, "metric": "roc_auc", "verdict": verdict}
        for one, verdict in (better_than or {}).items()
    ]
    intent = {
        "model": "churn",
        "action": action,
        "alias": alias,
        "version": version,
        "previous_version": entries[-1].version if entries else None,
        "evidence": [{"kind": "model_test", "passed": True, "compared": compared, "anchored": ["roc_auc"]}],
    }
    entries.append(Entry(len(entries) + 1, intent, {"state": state, "at": "2026-01-01"}))


@pytest.fixture
def entries() -> Ledger:
    """Version 1 promoted, version 2 no worse than it, version 3 shown to be better than both."""
    found: Ledger = []
    entry(found, 1)
    entry(found, 2, better_than={1: "cannot tell"})
    entry(found, 3, better_than={2: "better", 1: "better"})
    return found


def test_the_first_version_until_another_was_shown_to_be_better(entries):
    assert anchors([], "champion") == ()
    assert [one.version for one in anchors(entries[:1], "champion")] == [1]
    assert [one.version for one in anchors(entries[:2], "champion")] == [1]
    assert [(one.version, one.seq) for one in anchors(entries, "champion", "roc_auc")] == [(1, 1), (3, 3)]
    assert anchors(entries, "champion")[-1].why == "shown to be better than version 1 in entry 3"
    # By another metric, for another alias, and in an entry that did not take place nothing was shown.
    assert [one.version for one in anchors(entries, "champion", "log_loss")] == [1]
    assert anchors(entries, "staging") == ()
    entry(entries, 4, better_than={3: "better"}, state="void")
    assert anchors(entries, "champion")[-1].version == 3
    assert anchor_versions(entries) == {3}


def test_better_than_the_champion_alone_is_not_enough(entries):
    entry(entries, 4, better_than={3: "cannot tell"})
    entry(entries, 5, better_than={4: "better", 3: "cannot tell"})

    assert anchors(entries, "champion")[-1].version == 3


def test_a_rollback_takes_the_anchor_back(entries):
    entry(entries, 1, "rollback")
    assert anchors(entries, "champion")[-1].version == 1
    entry(entries, 4, better_than={1: "cannot tell"})
    assert anchors(entries, "champion")[-1].version == 1
    # To what was rolled back before: what was shown of it holds again.
    entry(entries, 3, "rollback")
    assert anchors(entries, "champion")[-1].version == 3


def test_a_move_by_hand_shows_nothing(entries):
    entry(entries, 9, "external")
    entry(entries, None, "external")
    entry(entries, 10, better_than={9: "better"})
    assert anchors(entries, "champion")[-1].version == 3
    found: Ledger = []
    entry(found, 7, "external")
    assert anchors(found, "champion")[-1].version == 7


def compare(quality: dict[int, float], mine: int, other: int, seed: int) -> Difference:
    """Return what the gate's own inference says of two models' accuracy on forty days of rows, good days and bad."""
    rng = np.random.default_rng(seed)
    days = np.repeat(np.arange(DAYS), ROWS)
    luck = rng.normal(scale=0.02, size=DAYS)[days]
    same = rng.uniform(size=len(days))
    right = [(same < quality[one] + luck).astype(float) for one in (mine, other)]

    def ahead(rows: Any) -> float:
        return float(right[0][rows].mean() - right[1][rows].mean())

    found = jackknife(ahead, days, unit="days", alpha=0.05)
    assert found is not None
    return found


def retrain(times: int, *, anchored: bool, quality_of: Callable[[int], float]) -> tuple[Ledger, dict[int, float]]:
    """Retrain so many times; promote what the gates let through. ``quality_of`` a challenger: by its number."""
    entries: Ledger = []
    quality = {1: quality_of(1)}
    entry(entries, 1)
    for number in range(2, times + 2):
        champion = entries[-1].version or 0
        quality[number] = quality[champion] + quality_of(number)
        others = {champion, anchors(entries, "champion")[-1].version} if anchored else {champion}
        found = {one: compare(quality, number, one, seed=number) for one in others}
        if all(decided(one, "not_worse", MARGIN) for one in found.values()):
            entry(entries, number, better_than={one: sure.verdict for one, sure in found.items()})
    return entries, {one.version or 0: quality[one.version or 0] for one in entries}


def test_fifty_retrainings_that_are_each_a_bit_worse_are_stopped_by_the_anchor_alone():
    def worse(number: int) -> float:
        return 0.8 if number == 1 else -STEP

    eroded, quality = retrain(50, anchored=False, quality_of=worse)
    assert len(eroded) == 51, "each is within the margin of the one before it"
    assert quality[51] == pytest.approx(0.8 - 50 * STEP)

    held, quality = retrain(50, anchored=True, quality_of=worse)
    assert min(quality.values()) >= 0.8 - MARGIN
    assert len(held) <= 3


@settings(max_examples=30, derandomize=True)
@given(st.lists(st.sampled_from([-0.006, -STEP, 0.003, 0.012]), min_size=10, max_size=40))
def test_whatever_the_steps_what_serves_is_within_the_margin_of_the_best_that_was_shown(steps):
    """Down a step and half a step up, again and again: the champion's own gate lets it through, the anchor does not."""
    entries, quality = retrain(
        len(steps), anchored=True, quality_of=lambda number: 0.8 if number == 1 else steps[number - 2]
    )
    for position in range(1, len(entries) + 1):
        anchor = anchors(entries[:position], "champion")[-1].version
        # The gate may be wrong by chance, about a difference that is as good as the margin.
        assert quality[entries[position - 1].version or 0] >= quality[anchor] - MARGIN - 0.002
    stands = [round(quality[one.version], 6) for one in anchors(entries, "champion")]
    assert stands == sorted(stands), "an anchor only gives way to a better one"
