"""The wheel: what is in it, and what it does in an environment that has only Airflow."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import airflow_mlops

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "provider" / "airflow_mlops"

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"airflow_provider_mlops-{airflow_mlops.__version__}.dist-info/"
    assert {name.partition("/")[0] + "/" for name in names} == {"airflow_mlops/", info}
    ours = {
        f"airflow_mlops/{file.relative_to(PACKAGE).as_posix()}"
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {name for name in names if name.startswith("airflow_mlops/")} == ours
    assert {"airflow_mlops/py.typed", "airflow_mlops/core/templates/base.html"} <= ours
    assert f"{info}licenses/LICENSE" in names


def test_its_entry_points_and_requirements(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        points = configparser.ConfigParser()
        points.read_string(archive.read(f"{info}/entry_points.txt").decode())
        metadata = archive.read(f"{info}/METADATA").decode()
    assert {section: dict(points[section]) for section in points.sections()} == {
        "apache_airflow_provider": {"provider_info": "airflow_mlops.get_provider_info:get_provider_info"},
        "airflow.plugins": {"mlops": "airflow_mlops.plugin:MlopsPlugin"},
    }
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert {re.split(r"[>=<\s]", line.removeprefix("Requires-Dist: "))[0] for line in required} == {
        "apache-airflow",
        "apache-airflow-providers-common-compat",
        "apache-airflow-providers-standard",
    }, "whoever installs it gets nothing but Airflow's own packages"
    extras = {line.removeprefix("Provides-Extra: ") for line in metadata.splitlines() if "Provides-Extra" in line}
    assert {"great-expectations", "mlflow", "evidently", "docker", "amazon", "examples", "all", "dev"} <= extras
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.10" in metadata


@pytest.fixture(scope="module")
def only_airflow(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of a fresh environment in which the wheel and what it requires is installed."""
    folder = tmp_path_factory.mktemp("only-airflow")
    uv = str(Path(sys.executable).parent / "uv")
    python = folder / "venv" / "bin" / "python"
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"],
        [uv, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt", wheel],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=folder)
        assert done.returncode == 0, done.stderr
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW", "PYTHON", "VIRTUAL_ENV"))
    }
    environment = {**inherited, "AIRFLOW_HOME": str(folder / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python.parent / program), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            cwd=folder,
        )

    return run


def test_no_tool_is_installed_and_every_public_module_imports(
    only_airflow: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    code = """
import importlib, importlib.util, json, pkgutil
import airflow_mlops

tools = [n for n in ("mlflow", "great_expectations", "pandas", "pyarrow", "sklearn") if importlib.util.find_spec(n)]
names = [one.name for one in pkgutil.walk_packages(airflow_mlops.__path__, "airflow_mlops.")]
for name in names:
    importlib.import_module(name)
print(json.dumps([airflow_mlops.__file__, tools, len(names)]))
"""
    done = only_airflow("python", "-W", "error::DeprecationWarning:airflow_mlops", "-c", code)
    assert done.returncode == 0, done.stderr
    file, tools, modules = json.loads(done.stdout.splitlines()[-1])
    assert "site-packages" in file
    assert tools == []
    assert modules > 60


def test_airflow_shows_the_provider_its_connection_type_and_its_commands(
    only_airflow: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    listed = only_airflow("airflow", "providers", "list", "--output", "json").stdout
    (ours,) = [one for one in json.loads(listed) if one["package_name"] == "airflow-provider-mlops"]
    assert ours["version"] == airflow_mlops.__version__
    got = only_airflow("airflow", "providers", "get", "airflow-provider-mlops", "--full", "--output", "json").stdout
    assert "airflow_mlops.operators.training" in got
    assert "airflow_mlops.links.model.ReportLink" in got
    hooks = only_airflow("airflow", "providers", "hooks", "--output", "json").stdout
    (hook,) = [one for one in json.loads(hooks) if one["connection_type"] == "mlflow"]
    assert hook["class"] == "airflow_mlops.hooks.mlflow.MLflowHook"
    assert "airflow-provider-mlops" in hook.values()
    widgets = only_airflow("airflow", "providers", "widgets").stdout
    assert "extra__mlflow__token" in widgets
    assert "promote" in only_airflow("airflow", "mlops", "--help").stdout
    plugins = only_airflow("airflow", "plugins", "--output", "json").stdout
    assert "/mlops" in plugins


def test_a_tool_that_is_missing_is_named_with_its_pip_command(
    only_airflow: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    spec, report = tmp_path / "spec.json", tmp_path / "report.json"
    (tmp_path / "d.csv").write_text("a\n1\n")
    for step, args, extra in (
        ("snapshot_data", {"source": str(tmp_path / "d.csv")}, "pyarrow"),
        ("register_model", {"model": "models:/m-1", "model_name": "m"}, "mlflow"),
    ):
        value = {"step": step, "args": args, "store": str(tmp_path / "s"), "tracking_uri": f"sqlite:///{tmp_path}/m.db"}
        spec.write_text(json.dumps(value))
        done = only_airflow("python", "-m", "airflow_mlops.core", "--spec", str(spec), "--report", str(report))
        assert done.returncode == 1, done.stderr
        assert f"pip install 'airflow-provider-mlops[{extra}]'" in json.loads(report.read_text())["error"]["message"]
        assert "Traceback" not in done.stderr


def test_the_provider_brought_no_other_version_of_airflows_own_requirements(
    only_airflow: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    code = "import importlib.metadata as m; print('\\n'.join(sorted(d.name for d in m.distributions())))"
    installed = set(only_airflow("python", "-c", code).stdout.split())
    assert "airflow-provider-mlops" in installed
    assert not installed & {"mlflow", "great-expectations", "pandas", "pyarrow", "scikit-learn", "docker", "boto3"}
