"""What Airflow reads of the provider is true."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from typing import Any

import jsonschema
import pytest

import airflow_mlops
from airflow_mlops.get_provider_info import get_provider_info

INFO = get_provider_info()


def load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_it_holds_to_airflows_schema() -> None:
    from importlib.resources import files

    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(INFO, schema)
    # Airflow 3.1 passes over the commands.
    assert set(INFO) <= {"cli", *schema["properties"]}, "a field that Airflow does not know is a typo"


def test_it_imports_nothing_of_ours() -> None:
    code = (
        "import sys\nfrom airflow_mlops.get_provider_info import get_provider_info\nget_provider_info()\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('airflow', 'airflow_mlops')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['airflow_mlops', 'airflow_mlops.get_provider_info']"


def test_the_entry_points_lead_here() -> None:
    points = importlib.metadata.entry_points()
    (info,) = [one for one in points.select(group="apache_airflow_provider") if "mlops" in one.value]
    assert info.load() is get_provider_info
    assert info.dist is not None
    assert info.dist.name == INFO["package-name"] == "airflow-provider-mlops"
    assert info.dist.version == airflow_mlops.__version__
    (plugin,) = points.select(group="airflow.plugins", name="mlops")
    assert plugin.load().name == "mlops"


def _modules(package: str) -> set[str]:
    found = importlib.import_module(f"airflow_mlops.{package}")
    return {f"airflow_mlops.{package}.{one.name}" for one in pkgutil.iter_modules(found.__path__)}


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        ("operators", "airflow.sdk.BaseOperator"),
        ("sensors", "airflow.sdk.BaseSensorOperator"),
        ("triggers", "airflow.triggers.base.BaseTrigger"),
        ("hooks", "airflow.sdk.BaseHook"),
    ],
)
def test_every_module_with_classes_of_a_kind_is_named_and_exists(kind: str, base: str) -> None:
    known = {one["integration-name"] for one in INFO["integrations"]}
    named: set[str] = set()
    for entry in INFO[kind]:
        assert entry["integration-name"] in known
        named |= set(entry["python-modules"])
    with_public_ones = set()
    for name in _modules(kind):
        module = importlib.import_module(name)
        parent = load(base)
        if any(
            # Not isclass, which Python 3.10 answers for list[str] too.
            issubclass(type(one), type) and issubclass(one, parent) and one.__module__ == name
            for one in vars(module).values()
        ):
            with_public_ones.add(name)
    assert named == with_public_ones - {"airflow_mlops.operators.base", "airflow_mlops.sensors.base"}


def test_every_link_is_registered_and_every_registered_one_exists() -> None:
    from airflow.sdk import BaseOperatorLink

    from airflow_mlops.links import model

    links = {
        f"{model.__name__}.{name}"
        for name, one in vars(model).items()
        if inspect.isclass(one) and issubclass(one, model.MlopsLink) and one is not model.MlopsLink
    }
    assert links == set(INFO["extra-links"])
    assert all(issubclass(load(one), BaseOperatorLink) for one in INFO["extra-links"])


def test_decorators_and_notifiers_and_hooks_and_commands_exist() -> None:
    from airflow.sdk import BaseNotifier

    assert {one["name"] for one in INFO["task-decorators"]} == {"train_model", "evaluate_model"}
    for decorator in INFO["task-decorators"]:
        assert callable(load(decorator["class-name"]))
    for notifier in INFO["notifications"]:
        assert issubclass(load(notifier), BaseNotifier)
    for connection in INFO["connection-types"]:
        hook = load(connection["hook-class-name"])
        assert hook.conn_type == connection["connection-type"]
        assert hook.hook_name == connection["hook-name"]
    for commands in INFO["cli"]:
        assert [group.name for group in load(commands)()] == ["mlops"]


def test_the_decorators_are_attributes_of_task() -> None:
    from airflow.sdk import task

    assert callable(task.train_model)
    assert callable(task.evaluate_model)


def test_the_uis_forms_have_every_field() -> None:
    """What the form is made of on Airflow 3.1, where hooks make it, and on later ones, where the metadata does."""
    code = """
import json
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
print("OUT", json.dumps([one.model_dump(mode="json") for one in HookMetaService.hook_meta_data()]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("OUT ")]
    forms = {one["connection_type"]: one for one in json.loads(line.removeprefix("OUT "))}
    for connection in INFO["connection-types"]:
        form = forms[connection["connection-type"]]
        assert set(form["extra_fields"] or {}) == set(connection["conn-fields"])
        assert form["hook_name"] == connection["hook-name"]
        placeholders = connection["ui-field-behaviour"]["placeholders"]
        assert form["standard_fields"]["host"]["placeholder"] == placeholders["host"]
        for name, field in connection["conn-fields"].items():
            shown = form["extra_fields"][name]["schema"]
            assert shown["title"] == field["label"]
            assert shown["type"] == field["schema"]["type"]
            assert shown.get("format") == field["schema"].get("format")


def test_options_that_are_read_are_declared_and_those_declared_are_read() -> None:
    import re
    from pathlib import Path

    read: set[str] = set()
    for file in Path(airflow_mlops.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        read |= set(re.findall(r"conf\.get\w*\(\s*(?:backend\.)?SECTION,\s*\"(\w+)\"", text))
    assert read == set(INFO["config"]["mlops"]["options"])


def test_airflow_loads_all_of_it_without_a_warning(tmp_path: Any) -> None:
    code = """
import json
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
from airflow import plugins_manager
plugins_manager.ensure_plugins_loaded()
manager.initialize_providers_extra_links()
manager.initialize_providers_notifications()
manager.initialize_providers_taskflow_decorator()
print("OUT", json.dumps({
    "provider": manager.providers["airflow-provider-mlops"].version,
    "hook": manager.hooks["mlflow"].hook_name,
    "links": [one for one in manager.extra_links_class_names if "mlops" in one],
    "notifiers": [one for one in manager.notification if "mlops" in one],
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LAZY_DISCOVER_PROVIDERS": "False"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.lower().splitlines() if "mlops" in line]
    # Airflow 3.1 says of every hook with a form that it asks for FAB's widgets later.
    assert [line for line in said if "flask_appbuilder" not in line] == [], done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("OUT ")]
    found = json.loads(line.removeprefix("OUT "))
    assert found["provider"] == airflow_mlops.__version__
    assert found["hook"] == "MLflow"
    assert set(found["links"]) == set(INFO["extra-links"])
    assert found["notifiers"] == INFO["notifications"]
    warned = [line for line in done.stdout.splitlines() if "warning" in line.lower() and "mlops" in line.lower()]
    assert warned == []
