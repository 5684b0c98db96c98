"""A DAG file that imports all of the package pays for none of the libraries behind it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The module that ``make bench`` runs."""
    spec = importlib.util.spec_from_file_location("bench_imports", ROOT / "benchmarks" / "imports.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        spec.loader.exec_module(module)
    return module


def test_no_heavy_library_comes_with_any_public_module(benchmark: Any) -> None:
    found = benchmark.sample(benchmark.public_modules(), dict(os.environ))
    assert found["heavy"] == []
    assert found["megabytes"] < benchmark.MEGABYTES


def test_a_heavy_library_would_be_noticed(benchmark: Any, tmp_path: Path) -> None:
    (tmp_path / "careless.py").write_text("import pyarrow\n")
    found = benchmark.sample(["careless"], {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert "pyarrow" in found["heavy"]


def test_every_module_counts_as_public_but_what_only_a_command_or_server_runs(benchmark: Any) -> None:
    modules = benchmark.public_modules()
    assert {"airflow_mlops.operators.training", "airflow_mlops.core.store", "airflow_mlops.plugin"} <= set(modules)
    assert len(benchmark.NOT_PUBLIC) == 3
    assert not set(benchmark.NOT_PUBLIC) & set(modules)


def test_each_public_module_imports_on_its_own(benchmark: Any) -> None:
    """None works only because another was imported before it."""
    code = """
import importlib, os, sys
import airflow.sdk

for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(name, type(error).__name__, error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *benchmark.public_modules()], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""


def test_the_core_never_imports_airflow() -> None:
    code = """
import importlib, pkgutil, sys


class NoAirflow:
    @staticmethod
    def find_spec(name, *_):
        if name.partition(".")[0] == "airflow":
            raise ImportError("the core must not import Airflow")


sys.meta_path.insert(0, NoAirflow)
import airflow_mlops.core as core

names = [one.name for one in pkgutil.walk_packages(core.__path__, "airflow_mlops.core.")]
for name in names:
    importlib.import_module(name)
print(len(names), any(name.partition(".")[0] == "airflow" for name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    number, imported = done.stdout.split()
    assert int(number) > 40
    assert imported == "False"


def test_no_file_of_the_core_mentions_an_import_of_airflow() -> None:
    """Also none inside a function, which importing the module would not run."""
    import ast

    for file in sorted((ROOT / "provider" / "airflow_mlops" / "core").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] != "airflow", f"{file.name}:{node.lineno}"  # type: ignore[attr-defined]
                ours = name.split(".")
                assert ours[0] != "airflow_mlops" or ours[1:2] in ([], ["core"]), f"{file.name} reaches out: {name}"
