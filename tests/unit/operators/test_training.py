"""TrainModelOperator and @task.train_model: arguments, serialisation, and a task's result."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import DAG, task
from sklearn.linear_model import LogisticRegression

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.tracking import sqlite_uri
from airflow_mlops.decorators.training import TrainModelDecoratedOperator, train_model_task
from airflow_mlops.exceptions import MlopsFailed, MlopsUnavailable
from airflow_mlops.operators.training import TrainModelOperator
from versions import DagSerialization


def train(X, y, *, C=1.0):
    return LogisticRegression(C=C).fit(X, y)


def fails(X, y):
    raise RuntimeError("no luck")


@pytest.fixture
def folder(tmp_path: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    shutil.copy(migrated_database, tmp_path / "home" / "mlflow.db")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2)), columns=["a", "b"])
    frame.assign(y=(frame["a"] > 0).astype(int)).to_parquet(tmp_path / "rows.parquet", index=False)
    return tmp_path


@pytest.fixture
def context(folder: Path) -> Any:
    ti = SimpleNamespace(dag_id="etl", run_id="r1", task_id="train", map_index=-1, try_number=1)
    return {"ti": ti, "dag": SimpleNamespace(fileloc=str(folder / "dag.py"), dag_id="etl")}


def operator(**kwargs: Any) -> TrainModelOperator:
    return TrainModelOperator(task_id="train", **{"dataset": "rows.parquet", "trainer": train, "target": "y", **kwargs})


def serialised(dag: DAG) -> dict[str, Any]:
    found: dict[str, Any] = DagSerialization.serialize_dag(dag)
    json.dumps(found)
    return found["tasks"][0]["__var"]


class TestOperator:
    def test_the_result_is_a_model_ref(self, context: Any, folder: Path) -> None:
        found = operator(hyperparameters={"C": "0.5"}).execute(context)
        assert found["kind"] == "model"
        assert found["metrics"]["roc_auc"] > 0.9
        assert found["code"]["trainer"] == f"{__name__}:train"
        assert json.loads(json.dumps(found)) == found
        assert operator(hyperparameters={"C": 0.5}).execute(context) == {**found, "reused": True}

    def test_bad_input_is_not_retried(self, context: Any) -> None:
        with pytest.raises(MlopsFailed, match=r"SpecError: the trainer .*fails failed with RuntimeError: no luck"):
            operator(trainer=fails).execute(context)
        with pytest.raises(MlopsFailed, match="MissingColumnError: the target column 'z'"):
            operator(target="z").execute(context)

    def test_a_missing_file_is_named(self, context: Any, folder: Path) -> None:
        with pytest.raises(MlopsFailed, match=r"MissingSourceError.*rows\.csv"):
            operator(dataset="rows.csv").execute(context)

    def test_the_experiment_is_the_dags_by_default(self, context: Any, folder: Path) -> None:
        from mlflow import MlflowClient

        found = operator().execute(context)
        uri = sqlite_uri(folder / "home" / "mlflow.db")
        assert MlflowClient(uri, uri).get_experiment(found["experiment_id"]).name == "etl"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [({"trainer": 3}, "trainer must be"), ({"roles": {"tyme": "at"}}, "did you mean 'time'")],
    )
    def test_static_mistakes(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            operator(**arguments)

    def test_functions_are_shown_by_name_and_called_only_by_the_step(self) -> None:
        with DAG("d", schedule=None) as dag:
            made = operator(features=fails)
        assert made.trainer == f"{__name__}:train"
        assert serialised(dag)["trainer"] == f"{__name__}:train"
        assert serialised(dag)["features"] == f"{__name__}:fails"
        made.render_template_fields({"ti": None})
        assert made.functions == {"trainer": train, "features": fails}


class TestDecorator:
    def decorated(self, **arguments: Any) -> Any:
        return train_model_task(train, target="y", **arguments)

    def test_the_call_gives_hyperparameters_and_the_dataset(self, context: Any) -> None:
        with DAG("d", schedule=None):
            made = self.decorated()("rows.parquet", C=0.25).operator
        assert isinstance(made, TrainModelDecoratedOperator)
        found = made.execute(context)
        assert found["metrics"]["roc_auc"] > 0.9
        assert made.arguments(context)["hyperparameters"] == {"C": 0.25}

    def test_an_upstream_task_is_a_dependency(self) -> None:
        with DAG("d", schedule=None) as dag:

            @task
            def rows() -> str:
                return "rows.parquet"

            @task
            def strength() -> float:
                return 0.5

            self.decorated()(dataset=rows(), C=strength())
        assert dag.get_task("train").upstream_task_ids == {"rows", "strength"}

    @pytest.mark.parametrize("where", ["decorator", "partial", "expand"])
    def test_it_can_be_mapped(self, where: str) -> None:
        with DAG("d", schedule=None) as dag:

            @task
            def rows() -> str:
                return "rows.parquet"

            if where == "decorator":
                self.decorated(dataset=rows()).expand(C=[0.1, 1.0])
            elif where == "partial":
                self.decorated().partial(dataset=rows()).expand(C=[0.1, 1.0])
            else:
                self.decorated().partial(C=0.5).expand(dataset=[rows(), "other.parquet"])
        json.dumps(DagSerialization.serialize_dag(dag))
        assert dag.get_task("train").is_mapped
        assert dag.get_task("train").upstream_task_ids == {"rows"}

    @pytest.mark.parametrize(
        ("arguments", "call", "message"),
        [
            ({}, {}, "needs the dataset"),
            ({"dataset": "rows.parquet"}, {"D": 1}, "unexpected keyword argument 'D'"),
        ],
    )
    def test_mistakes_in_the_call_show_when_the_dag_is_parsed(self, arguments: Any, call: Any, message: str) -> None:
        with DAG("d", schedule=None), pytest.raises(TypeError, match=message):
            self.decorated(**arguments)(**call)

    def test_it_is_found_under_task(self) -> None:
        assert callable(task.train_model)


class TestCommand:
    @pytest.fixture
    def script(self, folder: Path) -> Path:
        (folder / "jobs").mkdir()
        (folder / "jobs" / "train.py").write_text(
            "import sys, pandas as pd, skops.io\n"
            "from sklearn.linear_model import LogisticRegression as L\n"
            "d = pd.read_parquet(sys.argv[1]); skops.io.dump(L().fit(d[['a', 'b']], d['y']), sys.argv[2])\n"
        )
        return folder

    def test_a_relative_script_is_found_beside_the_dag(self, context: Any, script: Path) -> None:
        command = ["python", "jobs/train.py", "{dataset}", "{model_out}"]
        made = operator(trainer=None, command=command)
        assert made.arguments(context)["cwd"] == str(script)
        found = made.execute(context)
        assert found["metrics"]["roc_auc"] > 0.9
        assert found["code"]["trainer"] == " ".join(command)

    def test_the_bundle_comes_first(self, context: Any, script: Path, tmp_path: Path) -> None:
        bundle = tmp_path / "bundle"
        (bundle / "jobs").mkdir(parents=True)
        (bundle / "jobs" / "train.py").write_text("")
        context["ti"].bundle_instance = SimpleNamespace(path=bundle)
        for command in (["python", "jobs/train.py", "{dataset}"], ["python", "-m", "jobs.train", "{dataset}"]):
            assert operator(trainer=None, command=command).arguments(context)["cwd"] == str(bundle)
        command = ["python", "jobs/train.py", "{dataset}"]
        assert operator(trainer=None, command=command, cwd="jobs").arguments(context)["cwd"] == str(bundle / "jobs")

    def test_words_are_templated(self, context: Any) -> None:
        made = operator(trainer=None, command=["python", "{{ ds }}.py", "{dataset}", "{model_out}"])
        made.render_template_fields({"ds": "2026-01-01", **context}, made.get_template_env())
        assert made.command == ["python", "2026-01-01.py", "{dataset}", "{model_out}"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"command": "python train.py {dataset}"}, r'write command=\["python", "train.py", "{dataset}"\]'),
            ({"command": ["python", "train.py"]}, "does not take {dataset}"),
            ({"command": ["x", "{dataset}"], "notebook": "a.ipynb"}, "one of trainer, command and notebook"),
            ({}, "one of trainer, command and notebook"),
            ({"notebook": "a.ipynb", "trust": "all"}, "trust must be 'pickle'"),
        ],
    )
    def test_static_mistakes(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            operator(trainer=None, **arguments)

    def test_on_kill_stops_it_and_the_task_may_be_tried_again(self, context: Any, script: Path) -> None:
        (script / "jobs" / "train.py").write_text(
            "import os, time\nopen('pid.tmp', 'w').write(str(os.getpid()))\n"
            "os.rename('pid.tmp', 'pid')\ntime.sleep(300)\n"
        )
        made = operator(trainer=None, command=["python", "jobs/train.py", "{dataset}"])

        def kill() -> None:
            while not (script / "pid").exists():
                time.sleep(0.02)
            made.on_kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(MlopsUnavailable, match="StoppedError: the command python was stopped"):
            made.execute(context)
        killer.join()
        pid = int((script / "pid").read_text())
        assert not Path(f"/proc/{pid}").exists()


def test_where_the_code_comes_from_is_what_a_checkout_and_a_build_say() -> None:
    from airflow_mlops.operators.training import _origin

    code = {"kind": "code", "sha": "a" * 40, "repository": "https://example.com/x.git"}
    image = {"kind": "image", "sha": "a" * 40, "digest": "sha256:1"}
    assert _origin(None) is None
    assert _origin(code) == {"git_sha": "a" * 40, "repository": "https://example.com/x.git"}
    assert _origin([code, image]) == {**(_origin(code) or {}), "image": "sha256:1"}
    with pytest.raises(SpecError, match="ref of a CheckoutCodeOperator"):
        _origin({"kind": "dataset"})
