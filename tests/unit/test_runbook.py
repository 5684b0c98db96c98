"""The runbook has an entry for each alert, gate, decision and error that the code can name, and for nothing else."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import airflow_mlops.core
import airflow_mlops.exceptions
import airflow_mlops.runtimes
from airflow_mlops.core.alerts.rules import TITLES
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.core.evaluation.kinds import KINDS
from airflow_mlops.operators.retraining import ACTIONS

DOCS = Path(__file__).resolve().parents[2] / "docs"
RUNBOOK = DOCS / "operations" / "runbook.md"


def entries(heading: str) -> list[str]:
    """Return what the first cells of a section's tables name."""
    text = RUNBOOK.read_text()
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]


def below(kind: type[BaseException]) -> Iterator[str]:
    for one in kind.__subclasses__():
        if one.__module__.startswith("airflow_mlops."):
            yield one.__name__
        yield from below(one)


def test_each_alert_has_an_entry_under_its_title() -> None:
    assert sorted(entries("Alerts")) == sorted(TITLES)
    text = RUNBOOK.read_text()
    for topic, title in TITLES.items():
        assert f"| `{topic}`: {title} |" in text


def test_each_kind_of_model_test_has_an_entry() -> None:
    assert sorted(entries("A gate said no")) == sorted(KINDS)


def test_each_decision_has_an_entry() -> None:
    assert sorted(entries("The policy decided otherwise than expected")) == sorted(ACTIONS)


def test_each_error_has_an_entry() -> None:
    for package in (airflow_mlops.core, airflow_mlops.runtimes):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    shown = {name for name in airflow_mlops.exceptions.__all__ if name.startswith("Mlops")}
    assert sorted(entries("Errors")) == sorted({*below(MlopsError), *shown})


def test_messages_lead_to_entries_that_are_there(tmp_path: Path) -> None:
    from airflow_mlops.core.alerts.rules import RUNBOOK as PAGE
    from airflow_mlops.core.errors import GateFailedError, SpecError
    from airflow_mlops.exceptions import MlopsUnavailable, translate
    from airflow_mlops.notifications.gate import compose

    assert (DOCS / PAGE).with_suffix(".md") == RUNBOOK
    (tmp_path / "runbook.md").write_text(RUNBOOK.read_text())
    command = f"sphinx -q -c {DOCS} -D master_doc=runbook -D html_theme=basic {tmp_path} {tmp_path / 'html'}".split()
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "runbook.html").read_text()
    anchors = re.findall(r'\bid="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    named = {name for heading in ("Alerts", "A gate said no", "Errors") for name in entries(heading)}
    assert named <= set(anchors)
    for error in (translate(SpecError("no")), translate(GateFailedError("no")), MlopsUnavailable("no")):
        (entry,) = re.findall(rf"^Runbook: {PAGE}#(.+)$", compose({"exception": error}), re.MULTILINE)
        assert entry in anchors


def test_each_command_exists() -> None:
    from airflow_mlops.cli.definition import get_mlops_cli_commands

    (group,) = get_mlops_cli_commands()
    known = {command.name for command in group.subcommands}
    named = set(re.findall(r"airflow mlops ([a-z]+)", RUNBOOK.read_text()))
    assert named
    assert named <= known
