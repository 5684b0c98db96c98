"""``python -m airflow_mlops.core`` where there is no Airflow: exit codes, reports, and the core from a zip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import airflow_mlops

PACKAGE = Path(airflow_mlops.__file__).parent

#: Put at the front of the path: makes any import of Airflow an error, before and after the interpreter's start.
NO_AIRFLOW = """
import sys


class NoAirflow:
    @staticmethod
    def find_spec(name, *_):
        if name.partition(".")[0] == "airflow":
            raise ImportError("the core must not import Airflow")


sys.meta_path.insert(0, NoAirflow)
"""

STEP = """
import atexit, sys, threading, time
from airflow_mlops.core import steps
from airflow_mlops.core.reports import publish
from airflow_mlops.core.vocabulary import Report


atexit.register(print, "exit functions have run", file=sys.stderr)


def gate(context, *, number=float("nan"), crash=False):
    threading.Thread(target=lambda: (time.sleep(0.2), print("the thread has ended", file=sys.stderr))).start()
    if crash:
        raise ZeroDivisionError("at http://user:hunter2@server/")
    report = Report(report="probe", passed=False, severity="error", summary="<no> & ünï", metrics={"n": number})
    return publish(context, report, details={}, template="base.html", identity=1, title="T")


steps.STEPS["gate"] = "probe_step:gate"
"""


@pytest.fixture(params=["folder", "zip"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """PYTHONPATH with the core alone, as a folder and as the zip that a runtime brings along."""
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "sitecustomize.py").write_text(NO_AIRFLOW + "\nimport probe_step\n")
    (lib / "probe_step.py").write_text(STEP)
    archive = tmp_path / "core.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for file in [PACKAGE / "__init__.py", *sorted((PACKAGE / "core").rglob("*"))]:
            if file.is_file() and file.suffix != ".pyc":
                made.write(file, Path("airflow_mlops") / file.relative_to(PACKAGE))
    if request.param == "zip":
        return [str(lib), str(archive)]
    folder = tmp_path / "core"
    with zipfile.ZipFile(archive) as made:
        made.extractall(folder)
    return [str(lib), str(folder)]


def run(path: list[str], tmp_path: Path, spec: Any, **environment: str) -> tuple[int, Any, str]:
    """Return exit code, report and standard error."""
    (tmp_path / "spec.json").write_text(spec if isinstance(spec, str) else json.dumps(spec))
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "airflow_mlops.core", "--spec", tmp_path / "spec.json", "--report", report],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    return done.returncode, json.loads(report.read_text()) if report.exists() else None, done.stderr


def test_a_gate_that_says_no_has_run_and_its_page_is_written(path: list[str], tmp_path: Path) -> None:
    spec = {"step": "gate", "store": str(tmp_path / "store")}
    code, report, said = run(path, tmp_path, spec)
    assert code == 0, said
    assert (report["passed"], report["metrics"]) == (False, {"n": None})
    page = Path(report["report_uri"].removeprefix("file://"))
    assert "&lt;no&gt; &amp; ünï" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("{no json", "cannot be read as JSON"),
        ("[1]", "must hold a JSON object"),
        ({"step": "gaet", "store": "/x"}, "did you mean 'gate'"),
        ({"step": "gate", "args": {"numbr": 1}, "store": "/x"}, "did you mean 'number'"),
        ({"step": "gate", "store": "/x", "tracking_uri": "http://u:hunter2@h"}, "carries credentials"),
    ],
)
def test_a_known_failure_is_code_1_and_a_report_of_the_error(
    path: list[str], tmp_path: Path, spec: Any, text: str
) -> None:
    code, report, said = run(path, tmp_path, spec)
    assert code == 1
    assert report["error"]["type"] == "SpecError"
    assert report["error"]["retryable"] is False
    assert text in report["error"]["message"]
    assert text in said
    assert "Traceback" not in said
    assert "hunter2" not in said + json.dumps(report)


def test_a_crash_is_code_70_and_the_old_report_is_gone(path: list[str], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"passed": true}')
    code, report, said = run(path, tmp_path, {"step": "gate", "args": {"crash": True}, "store": str(tmp_path / "s")})
    assert code == 70
    assert report["error"]["type"] == "ZeroDivisionError"
    assert "hunter2" not in json.dumps(report)
    assert "Traceback" in said


@pytest.mark.parametrize("crash", [False, True])
def test_it_waits_for_threads_and_exit_functions(path: list[str], tmp_path: Path, crash: bool) -> None:
    _, _, said = run(path, tmp_path, {"step": "gate", "args": {"crash": crash}, "store": str(tmp_path / "store")})
    assert said.endswith("the thread has ended\nexit functions have run\n")


def test_a_report_that_cannot_be_written_is_said_before_anything_runs(path: list[str], tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"step": "gate", "store": str(tmp_path / "store")}))
    done = subprocess.run(
        [sys.executable, "-m", "airflow_mlops.core", "--spec", spec, "--report", tmp_path / "nowhere" / "r.json"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    assert not (tmp_path / "store").exists()


def test_every_module_of_the_core_imports_without_airflow(path: list[str], tmp_path: Path) -> None:
    modules = [
        ".".join(("airflow_mlops", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for file in sorted((PACKAGE / "core").rglob("*.py"))
        if file.name != "__main__.py"
    ]
    assert len(modules) > 30
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\nprint('airflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "False\n", done.stderr
