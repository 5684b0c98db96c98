"""The pattern of the docs: one file of models, one DAG a model."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk import DAG

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("dag_per_model.py", "models.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    return tmp_path


def dags(folder: Path) -> dict[str, DAG]:
    found = runpy.run_path(str(folder / "dag_per_model.py"))
    return {dag.dag_id: dag for dag in found.values() if isinstance(dag, DAG)}


def add(folder: Path, **entries: Any) -> None:
    file = folder / "models.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **entries}))


def test_an_entry_is_a_dag(folder: Path) -> None:
    made = dags(folder)
    assert sorted(made) == ["watch_churn", "watch_returns"]
    monitor = made["watch_returns"].get_task("performance")
    assert (monitor.subject, monitor.metrics, monitor.owner) == ("returns", ["f1"], "shop")
    assert made["watch_returns"].get_task("alert").upstream_task_ids == {"performance"}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"owner": "a"}, "predictions"),
        ({"owner": "a", "predictions": {"uri": "x", "columns": {"keys": "id"}}}, "did you mean 'key'"),
        ({"owner": "a", "predictions": "log", "labels_delay": "3d"}, "labels_delay"),
        (None, "NoneType"),
    ],
)
def test_a_wrong_entry_breaks_its_own_dag_alone(folder: Path, entry: Any, said: str) -> None:
    add(folder, wrong=entry)
    made = dags(folder)
    assert sorted(made) == ["watch_churn", "watch_returns", "watch_wrong"]
    assert said in str(made["watch_wrong"].doc_md)
    assert "performance" in made["watch_churn"].task_ids
    from airflow.providers.common.compat.sdk import AirflowFailException

    with pytest.raises(AirflowFailException, match=r".") as raised:
        made["watch_wrong"].get_task("entry_in_models_yaml").python_callable()
    assert said in str(raised.value)


def test_a_worker_makes_the_dag_of_its_task_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "watch_returns")
    add(folder, wrong={"owner": "a"})
    assert list(dags(folder)) == ["watch_returns"]


def test_a_hundred_models_import_nothing_heavy(folder: Path) -> None:
    import subprocess

    entry = yaml.safe_load((folder / "models.yaml").read_text())["churn"]
    add(folder, **{f"m{number}": entry for number in range(100)})
    code = (
        "import runpy, sys\n"
        "from airflow.sdk import DAG\n"
        f"made = runpy.run_path({str(folder / 'dag_per_model.py')!r})\n"
        "assert sum(isinstance(one, DAG) for one in made.values()) == 102\n"
        "print(sorted({'pandas', 'pyarrow', 'mlflow', 'sklearn', 'evidently', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr[-2000:]
