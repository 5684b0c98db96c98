"""The decisions on record: each has a number of its own, and says it in its title."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "adr"


def test_each_decision_has_its_own_number() -> None:
    files = sorted(FOLDER.glob("0*.md"))
    assert files
    numbers = Counter(int(file.name[:4]) for file in files)
    assert [number for number, count in numbers.items() if count > 1] == []
    for file in files:
        assert file.read_text().startswith(f"# {int(file.name[:4])}. "), file.name
