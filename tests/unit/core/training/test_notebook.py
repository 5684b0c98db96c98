"""Training by a notebook: its parameters, its model, and what is kept of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import nbformat
import pytest
from mlflow import MlflowClient

from airflow_mlops.core.errors import MissingSourceError, SpecError
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.training.step import train_model

from .conftest import NUMERIC

PARAMETERS = 'dataset = "/somewhere/of/mine.parquet"\nmodel_out = "model"\nC = 1.0'
CELLS = [
    "import pandas as pd\nfrom sklearn.linear_model import LogisticRegression\nfrom shop_lib import columns",
    "frame = pd.read_parquet(dataset)\nprint('training on', len(frame), 'with C', C)",
    "model = LogisticRegression(C=C).fit(frame[columns], frame['y'])",
]
SAVE = "import skops.io\nskops.io.dump(model, model_out)"


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "shop_lib.py").write_text('columns = ["a", "größe"]\n')

    def write(*cells: str, tagged: bool = True) -> Path:
        made = nbformat.v4.new_notebook(
            metadata={"kernelspec": {"name": "env", "display_name": "Mine", "language": "python"}}
        )
        made.cells = [
            nbformat.v4.new_markdown_cell("# Churn"),
            nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"] if tagged else []}),
            *(nbformat.v4.new_code_cell(cell) for cell in cells),
        ]
        nbformat.write(made, folder / "train.ipynb")
        return folder / "train.ipynb"

    return write


@pytest.fixture
def run(mlflow_context: Any, data: Path) -> Callable[..., dict[str, Any]]:
    def call(path: Path, **arguments: Any) -> dict[str, Any]:
        given = {"dataset": str(data), "roles": NUMERIC, "split": {"by": "time", "test": 0.25}, **arguments}
        return train_model(mlflow_context, notebook=str(path), **given)

    return call


@pytest.fixture
def kept(mlflow_context: Any, tmp_path: Path) -> Callable[[], Any]:
    """The notebook that the one run has kept."""

    def read() -> Any:
        client = MlflowClient(mlflow_context.tracking_uri, mlflow_context.tracking_uri)
        (one,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
        path = mlflow.artifacts.download_artifacts(
            run_id=one.info.run_id, artifact_path="notebook/train.ipynb", tracking_uri=mlflow_context.tracking_uri
        )
        return one.info.status, json.loads(Path(path).read_text())

    return read


def test_a_notebook_trains_with_its_parameters_and_is_kept(run, notebook, mlflow_context, kept, caplog) -> None:
    path = notebook(*CELLS, SAVE)
    before = path.read_bytes()
    with caplog.at_level(logging.INFO):
        found = run(path, hyperparameters={"C": "0.01"}, name="churn")

    assert "unknown parameter" not in caplog.text
    assert "training on 225 with C 0.01" in caplog.text
    assert found["metrics"]["roc_auc"] > 0.6
    assert found["code"]["trainer"] == "notebook train.ipynb"
    assert evaluate_model(mlflow_context, model=found)["passed"]
    assert path.read_bytes() == before
    status, executed = kept()
    assert status == "FINISHED"
    assert any("training on 225" in str(cell.get("outputs")) for cell in executed["cells"])

    assert run(path, hyperparameters={"C": "0.01"}, name="churn")["reused"]
    assert not run(path, hyperparameters={"C": 0.02}, name="churn")["reused"]
    with pytest.raises(SpecError, match="'C' must be a number, got the text 'much'"):
        run(path, hyperparameters={"C": "much"})


def test_a_model_that_it_logs_is_taken(run, notebook) -> None:
    logs = (
        "import mlflow\nmlflow.sklearn.log_model(model, name='mine', serialization_format='skops', "
        "input_example=frame[columns].head(2), pip_requirements=['scikit-learn'])"
    )
    assert run(notebook(*CELLS, logs))["metrics"]["roc_auc"] > 0.6


def test_a_failing_cell_is_named_and_the_notebook_kept(run, notebook, kept, monkeypatch) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "tok-3141592653")
    path = notebook(*CELLS, "import os\nprint(os.environ['MY_API_TOKEN'])\nmodel.predict_prob(frame)", SAVE)

    with pytest.raises(SpecError, match=r"failed in code cell 5 \(it begins 'import os'\): AttributeError: .*predict_"):
        run(path)

    status, executed = kept()
    assert status == "FAILED"
    assert "***" in json.dumps(executed["cells"])
    assert "tok-3141592653" not in json.dumps(executed)


def test_a_notebook_without_a_parameters_cell_is_told(run, notebook, caplog) -> None:
    path = notebook(*CELLS, SAVE, tagged=False)
    with pytest.raises(SpecError, match="FileNotFoundError"):
        run(path)
    assert "no cell with the tag 'parameters'" in caplog.text


def test_no_notebook(run, tmp_path) -> None:
    with pytest.raises(MissingSourceError, match=r"no notebook at .*nope\.ipynb"):
        run(tmp_path / "nope.ipynb")


def test_names_of_parameters_are_no_hyperparameters(run, notebook) -> None:
    with pytest.raises(SpecError, match="'dataset' is no hyperparameter"):
        run(notebook(*CELLS), hyperparameters={"dataset": 1})


def test_a_page_of_it_is_kept(run, notebook, mlflow_context) -> None:
    found = run(notebook(*CELLS, SAVE))
    client = MlflowClient(mlflow_context.tracking_uri, mlflow_context.tracking_uri)
    names = {file.path for file in client.list_artifacts(found["run_id"], "notebook")}
    assert names == {"notebook/train.ipynb", "notebook/train.html"}
