"""Callables by import string, and what of their code counts."""

from __future__ import annotations

import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core import imports
from airflow_mlops.core.errors import SpecError

TRAINER = "def train(X, y, depth=3):\n    return depth\n\ndef other():\n    pass\n\nDEPTH = 3\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package ``proj`` with a trainer, on the path."""
    folder = tmp_path / "proj"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "deep" / "__init__.py").touch()
    (folder / "trainer.py").write_text(TRAINER)
    (folder / "deep" / "steps.py").write_text("class Steps:\n    @staticmethod\n    def run():\n        return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("proj", "lone", "broken")]:
        del sys.modules[name]


def test_a_callable_comes_back_and_a_string_is_imported(project: Path) -> None:
    assert imports.load(len, "trainer") is len
    assert imports.load("proj.trainer:train", "trainer")(None, None) == 3
    assert imports.load("proj.deep.steps:Steps.run", "trainer")() == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("proj.trainer", "'package.module:function'"),
        (":train", "'package.module:function'"),
        (7, "got 7"),
        ("nowhere.trainer:train", "no module 'nowhere'.*put its package beside the DAG"),
        ("proj.missing:train", "no module 'proj.missing'"),
        ("proj.trainer:trian", "has no 'trian'; did you mean 'train'"),
        ("proj.trainer:DEPTH", "is a int, not a callable"),
    ],
)
def test_what_cannot_be_imported_says_why(project: Path, path: Any, text: str) -> None:
    with pytest.raises(SpecError, match=text):
        imports.load(path, "trainer")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("import a_library_that_is_not_there", "no module 'a_library_that_is_not_there'"),
        ("def broken(:", "fails with SyntaxError"),
        ("1 / 0", "fails with ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_breaks_on_import_says_how(project: Path, source: str, text: str) -> None:
    (project.parent / "broken.py").write_text(source)
    with pytest.raises(SpecError, match=text):
        imports.load("broken:train", "trainer")


def digest(path: str) -> str:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("proj", "lone")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return imports.code_digest(imports.load(path, "trainer"))


def test_any_source_of_the_package_counts_and_other_files_do_not(project: Path) -> None:
    before = digest("proj.trainer:train")
    (project / "notes.txt").write_text("x")
    (project / "__pycache__").mkdir(exist_ok=True)
    assert digest("proj.trainer:train") == before
    (project / "deep" / "steps.py").write_text("class Steps: ...\n")
    assert digest("proj.trainer:train") != before


def test_two_functions_of_one_package_have_two_digests(project: Path) -> None:
    assert digest("proj.trainer:train") != digest("proj.trainer:other")


def test_a_lone_module_counts_as_its_file(project: Path) -> None:
    file = project.parent / "lone.py"
    file.write_text("def train(): return 1\n")
    (project.parent / "neighbour.py").write_text("")
    before = digest("lone:train")
    (project.parent / "neighbour.py").write_text("x = 1")
    assert digest("lone:train") == before
    file.write_text("def train(): return 22\n")
    assert digest("lone:train") != before


def test_what_a_partial_or_a_closure_has_bound_counts() -> None:
    def make(depth: Any) -> Any:
        return lambda: depth

    def base(depth: int) -> int:
        return depth

    three, four = functools.partial(base, depth=3), functools.partial(base, depth=4)
    assert imports.code_digest(three) == imports.code_digest(functools.partial(base, depth=3))
    assert len({imports.code_digest(f) for f in (three, four, base)}) == 3
    assert imports.code_digest(make(3)) == imports.code_digest(make(3)) != imports.code_digest(make(4))
    assert imports.code_digest(make(object())) == imports.code_digest(make(object())), "no address in memory counts"


def test_a_library_counts_by_name() -> None:
    import sklearn.linear_model

    assert imports._described(sklearn.linear_model.LogisticRegression)["source"] is None
    assert imports._described(json.dumps)["source"] is None
    assert imports._described(len)["source"] is None


def test_the_place_of_a_dag_file_does_not_count() -> None:
    def train() -> None: ...

    digests = set()
    for folder in ("0123456789abcdef0123456789abcdef01234567", "f" * 40):
        train.__module__ = f"unusual_prefix_{folder}_level_1"
        digests.add(imports._described(train)["name"])
    assert len(digests) == 1


def test_a_function_without_a_file_has_one_digest_in_every_process() -> None:
    code = (
        "from airflow_mlops.core import imports\n"
        "space = {}\n"
        'exec(\'def train(x): return [y for y in (lambda: x)() if y in {"a", "b", "c"}]\', space)\n'
        "print(imports.code_digest(space['train']))"
    )
    made = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(made) == 1
