"""What the package says it runs on is what its code is checked against."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def found(pattern: str) -> str:
    (one,) = re.findall(pattern, PROJECT, flags=re.M)
    return str(one)


def test_style_and_types_are_checked_for_the_oldest_python() -> None:
    """mypy and ruff know what a Python lacks, such as ``asyncio.timeout`` or ``except*``, on whichever they run."""
    oldest = found(r'^requires-python = ">=3\.(\d+)"')
    assert found(r'^target-version = "py3(\d+)"') == oldest
    assert found(r'^python_version = "3\.(\d+)"') == oldest
    assert min(map(int, re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', PROJECT))) == int(oldest)


def test_the_docs_say_what_the_metadata_says() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    python, airflow = found(r'^requires-python = ">=([\d.]+)"'), found(r'"apache-airflow>=([\d.]+)"')
    assert f"Python {python} to" in text
    assert f"Airflow {airflow} to" in text
