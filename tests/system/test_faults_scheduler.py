"""Parts of Airflow are killed while the loop runs, and the loop ends as if nobody had disturbed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.kills import KINDS
from faults.levels import ReferenceLoop
from faults.loop import SmallLoop
from faults.matrix import Round, rounds, table

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "docs" / "operations" / "faults-result.inc"
#: The subset of every test run: each part dies once, where it tells most.
SUBSET = {
    "labels": "triggerer",
    "predict": "worker",
    "decide": "scheduler",
    "train": "task",
    "promote": "machine",
}
ALL = {kind: {"": kind} for kind in KINDS}

pytestmark = pytest.mark.scheduler


def check(one: Round) -> None:
    assert one.passed, f"{one.kind}: {one.missed=} {one.wrong=} {one.differs=}"


def record(title: str, found: list[Round]) -> None:
    """Put a table into the docs, in the place of the one of that title, after each round: a run may be cut short."""
    missing = [kind for kind in ALL if kind not in {one.kind for one in found}]
    before = RESULT.read_text().split("### ")[1:] if RESULT.exists() else []
    kept = {part.partition("\n")[0]: part for part in [*before, table(title, found, missing)[4:] + "\n"]}
    RESULT.write_text("".join(f"### {part}" for part in kept.values()).rstrip() + "\n")


@pytest.mark.timeout(1800)
def test_each_part_killed_once_changes_nothing(tmp_path: Path) -> None:
    (found,) = rounds(SmallLoop, {"each part once": SUBSET}, tmp_path)
    check(found)


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("loop", "title"),
    [(SmallLoop, "A loop that begins with a file"), (ReferenceLoop, "Level 3, whose events start level 4")],
    ids=["small", "reference"],
)
def test_every_part_killed_at_every_stage_changes_nothing(loop: type, title: str, tmp_path: Path) -> None:
    found: list[Round] = []
    for one in rounds(loop, ALL, tmp_path):
        found.append(one)
        record(title, found)
    for one in found:
        check(one)
