from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops.core.training.provenance import (
    code_of,
    environment_of,
    git_of,
    importable,
    requirements,
    sources_of,
    versions_of,
)

FACTOR = 2


def helper(x):
    return x * FACTOR


def loose(X, y):
    return helper(X)


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """A user's project: a package whose trainer imports a sibling inside a function, and a lone module."""
    files = {
        "shop/__init__.py": "",
        "shop/train.py": "from . import clean\nimport pandas\n"
        "def train(X, y):\n    import prices\n    return clean.go(X)\n",
        "shop/clean.py": "def go(X):\n    return X\n",
        "prices.py": "import sklearn.linear_model\nLIST = [1]\n",
        "unrelated.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] in ("shop", "prices")]:
        del sys.modules[name]


def train_of(project: Path):
    import importlib

    for name in [n for n in sys.modules if n.partition(".")[0] in ("shop", "prices")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return importlib.import_module("shop.train").train


class TestSources:
    def test_libraries_that_pip_put_into_a_folder_of_its_own(self, project, monkeypatch) -> None:
        """``pip install --target``: what stands beside the metadata of distributions is theirs, not the user's."""
        libraries = project / "vendor"
        (libraries / "vendored").mkdir(parents=True)
        (libraries / "vendored" / "__init__.py").write_text("import prices\n")
        (libraries / "vendored-1.0.dist-info").mkdir()
        (libraries / "vendored-1.0.dist-info" / "RECORD").write_text("vendored/__init__.py,,\n")
        monkeypatch.syspath_prepend(libraries)
        (project / "shop" / "clean.py").write_text("import vendored\ndef go(X):\n    return X\n")
        found = sources_of([train_of(project).__module__])
        assert "vendored" in found.third_party
        assert set(found.own) == {"shop", "prices"}

    def test_imports_are_followed_without_running_them(self, project):
        found = sources_of(["shop.train"])
        assert {name: path.name for name, path in found.own.items()} == {"shop": "shop", "prices": "prices.py"}
        assert found.third_party == {"pandas", "sklearn"}
        assert "prices" not in sys.modules

    def test_what_cannot_be_found_is_passed_over(self):
        assert sources_of(["no_such_module_at_all", "__main__", "json"]).own == {}

    def test_a_namespace_package(self, project):
        (project / "space").mkdir()
        (project / "space" / "mod.py").write_text("x = 1\n")
        assert sources_of(["space.mod"]).own == {"space": project / "space"}


class TestCodeDigest:
    def test_every_reached_file_counts_and_no_other(self, project):
        before, _ = code_of(train_of(project))
        (project / "unrelated.py").write_text("x = 2\n")
        assert code_of(train_of(project))[0] == before
        (project / "prices.py").write_text("LIST = [2]\n")
        after, _ = code_of(train_of(project))
        assert after != before
        (project / "shop" / "clean.py").write_text("def go(X):\n    return X * 2\n")
        assert code_of(train_of(project))[0] not in (before, after)

    def test_bound_arguments_count(self, project):
        train = train_of(project)
        assert code_of(functools.partial(train, y=1))[0] != code_of(functools.partial(train, y=2))[0]

    def test_a_function_of_a_dag_file_counts_with_what_it_uses(self, monkeypatch):
        for function in (loose, helper):
            monkeypatch.setattr(function, "__module__", "unusual_prefix_0123_dag")
        assert not importable(loose)
        before, _ = code_of(loose)
        assert code_of(loose)[0] == before
        monkeypatch.setitem(globals(), "FACTOR", 3)
        assert code_of(loose)[0] != before

    def test_closures_count(self):
        def made(n):
            return lambda X, y: n

        assert code_of(made(1))[0] != code_of(made(2))[0]


def test_importable(project):
    assert importable(train_of(project))
    assert not importable(lambda X, y: None)


def test_git(project):
    nothing = {"git_sha": None, "dirty": None}
    assert git_of(project / "shop") == nothing
    assert git_of(None) == nothing

    def git(*arguments):
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(project), *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    assert git_of(project / "shop") == {"git_sha": git("rev-parse", "HEAD"), "dirty": False}
    (project / "unrelated.py").write_text("y = 1\n")
    assert git_of(project / "shop")["dirty"] is False
    (project / "shop" / "new.py").write_text("y = 1\n")
    assert git_of(project / "shop")["dirty"] is True


def test_versions_are_pinned():
    import sklearn

    pins = requirements(versions_of(["sklearn", "yaml", "no_such_library"]))
    assert f"scikit-learn=={sklearn.__version__}" in pins
    assert [p.partition("==")[0] for p in pins] == ["PyYAML", "scikit-learn"]


def test_the_environment_has_a_digest_of_its_versions():
    one, other = environment_of([]), environment_of(["yaml"])
    assert one["digest"] != other["digest"]
    assert one["packages"].keys() >= {"scikit-learn", "mlflow", "skops", "pandas", "numpy"}
