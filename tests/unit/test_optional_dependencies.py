"""Where a tool's extra is not installed, its operator says which one to install; nothing else is disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: Makes libraries look as if they were not installed, before anything of ours is imported.
WITHOUT = """
import sys

ABSENT = {absent!r}


class Absent:
    @staticmethod
    def find_spec(name, *_):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent)
"""

STEP = """
import json
from airflow_mlops.core.errors import MlopsError
from airflow_mlops.core.steps import run_step

try:
    run_step(json.loads(sys.argv[1]))
except MlopsError as error:
    print(json.dumps(error.to_dict()))
"""

EVERYTHING = (
    *("boto3", "docker", "evidently", "great_expectations", "matplotlib", "mlflow", "numpy", "pandas", "pyarrow"),
    *("scipy", "sklearn", "skops"),
)


def run(absent: tuple[str, ...], code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(absent=set(absent)) + code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("data") / "d.csv"
    file.write_text("a,b\n" + "".join(f"{n},{n % 2}\n" for n in range(40)))
    return str(file)


#: Steps that do with Python alone.
NEEDS_NONE = {"alert", "decide_retraining", "monitor_service"}

CASES: list[tuple[str, tuple[str, ...], dict[str, Any], str]] = [
    ("snapshot_data", ("pyarrow",), {"source": "{csv}"}, "pyarrow"),
    (
        "validate_data",
        ("great_expectations",),
        {"dataset": "{csv}", "expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "a"}}]},
        "great-expectations",
    ),
    ("detect_drift", ("pyarrow",), {"current": "{csv}", "reference": "{csv}"}, "pyarrow"),
    ("train_model", ("mlflow",), {"dataset": "{csv}", "trainer": "json:dump", "target": "b"}, "mlflow"),
    (
        "evaluate_model",
        ("mlflow",),
        {"model": "models:/m/1", "dataset": "{csv}", "tests": [{"kind": "metric", "metric": "accuracy", "min": 0}]},
        "mlflow",
    ),
    ("reproduce_model", ("mlflow",), {"model": "models:/m/1"}, "mlflow"),
    (
        "evaluate_model",
        ("fairlearn",),
        {
            "model": "models:/m/1",
            "dataset": "{csv}",
            "tests": [{"kind": "fairness", "by": ["a"], "criterion": "demographic_parity", "max_difference": 0.1}],
        },
        "fairness",
    ),
    ("register_model", ("mlflow",), {"model": "models:/m-1", "model_name": "m"}, "mlflow"),
    ("promote_model", ("mlflow",), {"model": "models:/m/1", "alias": "champion"}, "mlflow"),
    (
        "deploy_model",
        ("mlflow",),
        {"model": "models:/m/1", "server": "m", "place": {"backend": "docker", "gateway": "/g", "image": "i"}},
        "mlflow",
    ),
    (
        "monitor_performance",
        ("pandas",),
        {"predictions": {"uri": "{csv}", "columns": {"key": "a", "prediction": "b", "label": "b"}}},
        "mlflow",
    ),
    ("adopt_model", ("mlflow",), {"model": "models:/m/1"}, "mlflow"),
    ("batch_predict", ("mlflow",), {"model": "models:/m/1", "dataset": "{csv}"}, "mlflow"),
    ("rollback_model", ("mlflow",), {"model_name": "m"}, "mlflow"),
    ("archive_models", ("mlflow",), {"model_name": "m"}, "mlflow"),
    ("request_approval", ("mlflow",), {"model": "models:/m/1"}, "mlflow"),
    ("record_approval", ("mlflow",), {"model": "models:/m/1", "decision": "approved"}, "mlflow"),
]


@pytest.mark.parametrize(("step", "absent", "args", "extra"), CASES, ids=[case[0] for case in CASES])
def test_a_step_names_the_extra_it_needs(
    step: str, absent: tuple[str, ...], args: dict[str, Any], extra: str, csv: str, tmp_path: Path
) -> None:
    args = json.loads(json.dumps(args).replace("{csv}", csv))
    spec = {"step": step, "args": args, "store": str(tmp_path), "tracking_uri": f"sqlite:///{tmp_path}/m.db"}
    error = json.loads(run(absent, STEP, json.dumps(spec)).splitlines()[-1])
    assert error["type"] == "MissingExtraError", error
    assert f"pip install 'airflow-provider-mlops[{extra}]'" in error["message"]
    assert error["fields"]["extra"] == extra
    assert error["retryable"] is False


def test_a_decision_needs_no_extra(tmp_path: Path) -> None:
    args = {"name": "m", "policy": {"performance": {"metric": "roc_auc", "drop": 0.1}}, "reports": []}
    spec = {"step": "decide_retraining", "args": args, "store": str(tmp_path)}
    code = (
        "import json\nfrom airflow_mlops.core.steps import run_step\nprint(run_step(json.loads(sys.argv[1]))['action'])"
    )
    assert run(EVERYTHING, code, json.dumps(spec)).splitlines()[-1] == "wait"


def test_counters_need_no_extra(tmp_path: Path) -> None:
    counted = {"name": "a", "role": "server", "requests": 1, "errors": 0, "buckets": None, "started": 1.0}
    spec = {"step": "monitor_service", "args": {"server": "s", "counted": [counted]}, "store": str(tmp_path)}
    code = (
        "import json\nfrom airflow_mlops.core.steps import run_step\nprint(run_step(json.loads(sys.argv[1]))['kind'])"
    )
    assert run(EVERYTHING, code, json.dumps(spec)).splitlines()[-1] == "service"


def test_every_step_has_a_case() -> None:
    from airflow_mlops.core.steps import STEPS

    assert {case[0] for case in CASES} | NEEDS_NONE == set(STEPS)


def test_alerts_need_no_library(tmp_path: Path) -> None:
    args = {"reports": [{"kind": "drift", "passed": False, "severity": "error", "summary": "s"}], "subject": "m"}
    spec = {"step": "alert", "args": {**args, "sensitivity": "high"}, "store": str(tmp_path)}
    assert run(EVERYTHING, STEP + "else:\n    print('fine')\n", json.dumps(spec)).splitlines()[-1] == "fine"


def test_every_module_imports_where_there_is_only_airflow(tmp_path: Path) -> None:
    code = """
import importlib, pkgutil
import airflow_mlops

names = [one.name for one in pkgutil.walk_packages(airflow_mlops.__path__, "airflow_mlops.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    assert int(run(EVERYTHING, code, AIRFLOW_HOME=str(tmp_path)).splitlines()[-1]) > 60


def test_a_dag_of_all_operators_parses_and_serialises_where_there_is_only_airflow(tmp_path: Path) -> None:
    code = """
from airflow.sdk import DAG
try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # Airflow 3.1
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization
from airflow_mlops.operators.data import SnapshotDataOperator, ValidateDataOperator
from airflow_mlops.operators.evaluation import EvaluateModelOperator
from airflow_mlops.operators.monitoring import AlertOperator
from airflow_mlops.operators.registry import (
    ApproveModelOperator, ArchiveModelsOperator, PromoteModelOperator, RegisterModelOperator, RollbackModelOperator
)
from airflow_mlops.operators.serving import DeployModelOperator
from airflow_mlops.operators.training import TrainModelOperator

with DAG("d", schedule=None) as dag:
    data = SnapshotDataOperator(task_id="snapshot", source="x.csv")
    valid = ValidateDataOperator(task_id="validate", dataset=data.output, expectations="e.yaml")
    model = TrainModelOperator(task_id="train", dataset=valid.output, trainer="a:b")
    report = EvaluateModelOperator(task_id="test", model=model.output, tests=[{"kind": "signature"}])
    version = RegisterModelOperator(task_id="register", model=model.output, model_name="m", evidence=[report.output])
    approval = ApproveModelOperator(task_id="approve", model=version.output, evidence=[report.output])
    PromoteModelOperator(task_id="promote", model=version.output, alias="champion", evidence=[approval.output])
    RollbackModelOperator(task_id="back", model_name="m")
    ArchiveModelsOperator(task_id="archive", model_name="m")
    deployed = DeployModelOperator(task_id="deploy", model=version.output, server="m")
    AlertOperator(task_id="alert", reports=[report.output, deployed.output], subject="m")
print(len(DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_dict))
"""
    assert run(EVERYTHING, code, AIRFLOW_HOME=str(tmp_path)).split()[-1] == "11"


def test_a_hook_says_it_too(tmp_path: Path) -> None:
    code = """
from airflow_mlops.core.errors import MissingExtraError
from airflow_mlops.hooks.mlflow import MLflowHook

try:
    MLflowHook().get_conn()
except MissingExtraError as error:
    print(error)
"""
    said = run(("mlflow",), code, AIRFLOW_HOME=str(tmp_path))
    assert "pip install 'airflow-provider-mlops[mlflow]'" in said
