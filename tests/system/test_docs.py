"""What README and docs show is what runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_included_files_and_their_markers_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```\{literalinclude\} (\S+)\n(.*?)^```", text, flags=re.S | re.M):
        included = (page.parent / match[1]).resolve()
        assert included.is_file(), f"{page.name} includes {match[1]}, which does not exist"
        lines = included.read_text(encoding="utf-8").splitlines()
        for option, marker in re.findall(r"^:(start-after|end-before): (.+)$", match[2], flags=re.M):
            marker = marker.strip().strip('"')
            assert sum(marker in line for line in lines) == 1, f"{page.name}: {option} {marker!r} in {match[1]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_and_links_to_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text) + re.findall(r"^```\{image\} (\S+)", text, flags=re.M)
    for target in targets:
        assert (page.parent / target).exists(), f"{page.name} points at {target}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_parse(page: Path) -> None:
    for block in _blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_imports_in_python_blocks_exist(page: Path) -> None:
    for block in _blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("airflow_mlops"):
                module = __import__(node.module or "", fromlist=["_"])
                for name in node.names:
                    assert hasattr(module, name.name), f"{page.name}: {node.module} has no {name.name}"
