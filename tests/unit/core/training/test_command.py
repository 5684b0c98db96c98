"""Training by a command: a script as it is, whatever model it leaves or logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from airflow_mlops.core import models
from airflow_mlops.core.errors import MissingColumnError, SpecError, UnsupportedError
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.training.step import train_model
from airflow_mlops.core.vocabulary import ModelRef

from .conftest import NUMERIC, rows

COMMAND = ["python", "train.py", "{dataset}", "{model_out}"]
#: A script that knows nothing of this provider.
SCRIPT = """
import sys
import pandas as pd
from sklearn.linear_model import LogisticRegression
from shop_lib import columns

frame = pd.read_parquet(sys.argv[1])
print("training on", len(frame))
model = LogisticRegression().fit(frame[columns], frame["y"])
"""
SAVES = {
    "joblib": "import joblib; joblib.dump(model, sys.argv[2])",
    "joblib compressed": "import joblib; joblib.dump(model, sys.argv[2] + '.joblib', compress=3)",
    "pickle": "import pickle; pickle.dump(model, open(sys.argv[2] + '.pkl', 'wb'))",
    "skops": "import skops.io; skops.io.dump(model, sys.argv[2])",
    "skops in a folder": "import os, skops.io; os.mkdir(sys.argv[2]); skops.io.dump(model, sys.argv[2] + '/m.skops')",
    "mlflow": "import mlflow; mlflow.sklearn.save_model(model, sys.argv[2], serialization_format='skops')",
    "an artifact of the run": "import mlflow; mlflow.sklearn.save_model(model, 'm', serialization_format='skops');"
    "mlflow.log_artifacts('m', 'model')",
    "logged": "import mlflow; mlflow.log_metric('mine', 7); mlflow.sklearn.log_model(model, name='mine', "
    "serialization_format='skops', input_example=frame[columns].head(2), pip_requirements=['scikit-learn'])",
}


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "shop_lib.py").write_text('columns = ["a", "größe"]\n')

    def write(end: str, source: str = SCRIPT) -> Path:
        (folder / "train.py").write_text(source + end)
        return folder

    return write


@pytest.fixture
def run(mlflow_context: Any, data: Path, script: Any) -> Callable[..., dict[str, Any]]:
    rows().to_parquet(data, index=False)

    def call(**arguments: Any) -> dict[str, Any]:
        cwd = str(script("").parent / "scripts") if arguments.get("cwd") is None else arguments["cwd"]
        given = {
            "dataset": str(data),
            "command": COMMAND,
            "roles": NUMERIC,
            "split": {"by": "time", "test": 0.25},
            **arguments,
            "cwd": cwd,
        }
        return train_model(mlflow_context, **given)

    return call


@pytest.fixture
def mlflow_client(mlflow_context: Any) -> MlflowClient:
    return MlflowClient(mlflow_context.tracking_uri, mlflow_context.tracking_uri)


def expected_auc() -> float:
    learn, test = rows().iloc[:225], rows().iloc[225:]
    model = LogisticRegression().fit(learn[["a", "größe"]], learn["y"])
    return float(roc_auc_score(test["y"], model.predict_proba(test[["a", "größe"]])[:, 1], sample_weight=test["w"]))


@pytest.mark.parametrize("how", SAVES)
def test_whatever_a_script_leaves_is_one_model_with_our_metrics(
    run, script, mlflow_context, mlflow_client, caplog, how: str
) -> None:
    folder = script(SAVES[how])
    pickled = how in ("joblib", "joblib compressed", "pickle")
    with caplog.at_level(logging.INFO):
        found = run(cwd=str(folder), trust="pickle" if pickled else None)

    assert "| training on 225" in caplog.messages
    assert found["metrics"]["roc_auc"] == pytest.approx(expected_auc())
    assert found["code"]["trainer"] == " ".join(COMMAND)
    (one_run,) = mlflow_client.search_runs([found["experiment_id"]])
    (model,) = mlflow_client.search_logged_models([found["experiment_id"]])
    assert (one_run.info.status, model.model_id, str(model.status)) == ("FINISHED", found["model_id"], "READY")
    assert one_run.data.metrics["roc_auc"] == pytest.approx(expected_auc())
    assert model.tags["mlops.dataset_digest"] == found["training"]["dataset_digest"]
    assert model.tags.get("mlops.trust") == ("pickle" if pickled else None)
    assert {m.key for m in model.metrics} >= {"roc_auc", "train_roc_auc"}
    if how == "logged":
        assert (model.name, one_run.data.metrics["mine"]) == ("mine", 7)
    # A model that was saved without a signature is taken as it is.
    tests = [{"kind": "load"}] if how in ("mlflow", "an artifact of the run") else None
    report = evaluate_model(mlflow_context, model=found, tests=tests)
    assert report["passed"], report["failures"]
    assert report["metrics"]["roc_auc"] == pytest.approx(expected_auc())


@pytest.mark.parametrize(
    ("end", "flavour"),
    [
        ("import xgboost as x; m = x.XGBClassifier(n_estimators=3).fit(X, y); m.save_model(out + '.json')", "xgboost"),
        ("import xgboost as x; m = x.XGBClassifier(n_estimators=3).fit(X, y); m.save_model(out + '.ubj')", "xgboost"),
        (
            "import xgboost as x; m = x.train({'objective': 'binary:logistic'}, x.DMatrix(X, y), 3);"
            "m.save_model(out + '.json')",
            "xgboost",
        ),
        (
            "import lightgbm as g; m = g.train({'objective': 'binary', 'verbose': -1}, g.Dataset(X, y), 3);"
            "m.save_model(out + '.txt')",
            "lightgbm",
        ),
    ],
)
def test_native_files_of_boosters(run, script, mlflow_context, tmp_path, end: str, flavour: str) -> None:
    folder = script(f"X, y, out = frame[columns], frame['y'], sys.argv[2]\n{end}")

    found = run(cwd=str(folder))

    assert found["metrics"]["roc_auc"] > 0.6
    copy = models.download(mlflow_context, ModelRef.from_dict(found), tmp_path / "copy")
    assert flavour in mlflow.models.Model.load(copy).flavors
    assert evaluate_model(mlflow_context, model=found)["metrics"]["roc_auc"] == pytest.approx(
        found["metrics"]["roc_auc"]
    )


def test_the_script_sees_the_training_rows_only_and_all_it_may_ask_for(run, script, tmp_path) -> None:
    seen = tmp_path / "seen.json"
    source = (
        "import json, os, sys, pandas as pd\n"
        "train, test, hyper, seed, out = sys.argv[1:]\n"
        "train, test = pd.read_csv(train.partition('=')[2]), pd.read_csv(test)\n"
        f"json.dump([train['id'].tolist(), test['id'].tolist(), list(train), json.load(open(hyper)), seed, "
        f"os.getcwd()], open({str(seen)!r}, 'w'))\n"
        "from sklearn.linear_model import LogisticRegression as L; import skops.io\n"
        "skops.io.dump(L().fit(train[['a']], train['y']), out)\n"
    )
    folder = script("", source)
    command = ["python", "train.py", "--d={dataset}", "{test_dataset}", "{hyperparameters}", "{seed}", "{model_out}"]

    run(cwd=str(folder), command=command, dataset_format="csv", hyperparameters={"C": 0.5}, seed=11)

    train, test, columns, hyper, seed, cwd = json.loads(seen.read_text())
    assert (train, test) == (list(range(225)), list(range(225, 300)))
    assert columns == list(rows().columns)
    assert (hyper, seed, cwd) == ({"C": 0.5}, "11", str(folder))


def test_features_are_logged_before_the_model_that_a_script_leaves(run, script, project, mlflow_context) -> None:
    folder = script("""
from shop_trainers import features
import skops.io
skops.io.dump(LogisticRegression().fit(features(frame[columns]), frame["y"]), sys.argv[2])
""")
    for name in ("shop_trainers.py", "shop_helpers.py"):
        (folder / name).write_text((project.folder / name).read_text())

    with pytest.raises(MissingColumnError, match=r"takes 1 columns that the dataset does not have: r. .*features="):
        run(cwd=str(folder))
    found = run(cwd=str(folder), features="shop_trainers:features")

    assert evaluate_model(mlflow_context, model=found)["metrics"]["roc_auc"] == pytest.approx(
        found["metrics"]["roc_auc"]
    )


class TestReuse:
    def test_nothing_changed(self, run, script) -> None:
        folder = str(script(SAVES["skops"]))
        first = run(cwd=folder)
        assert run(cwd=folder) == {**first, "reused": True}

    @pytest.mark.parametrize("file", ["train.py", "shop_lib.py"])
    def test_a_changed_script_or_module_trains_again(self, run, script, file: str) -> None:
        folder = script(SAVES["skops"])
        first = run(cwd=str(folder))
        with open(folder / file, "a") as source:
            source.write("\nagain = 1\n")
        again = run(cwd=str(folder))
        assert not again["reused"]
        assert again["model_id"] != first["model_id"]

    def test_a_file_beside_it_that_it_does_not_use_changes_nothing(self, run, script) -> None:
        folder = script(SAVES["skops"])
        run(cwd=str(folder))
        (folder / "other.py").write_text("x = 1")
        assert run(cwd=str(folder))["reused"]


class TestRefused:
    def test_a_pickle_that_nobody_vouches_for(self, run, script) -> None:
        with pytest.raises(UnsupportedError, match=r"model is a pickle, .* trust='pickle'"):
            run(cwd=str(script(SAVES["joblib"])))

    def test_a_pickle_in_a_model_that_it_logged(self, run, script) -> None:
        logs = SAVES["logged"].replace("'skops'", "'cloudpickle'")
        with pytest.raises(UnsupportedError, match=r"model.pkl in the MLflow model is a pickle"):
            run(cwd=str(script(logs)))
        assert run(cwd=str(script(logs)), trust="pickle")["metrics"]["roc_auc"] == pytest.approx(expected_auc())

    def test_a_pickle_of_the_scripts_own_class(self, run, script) -> None:
        own = "class Mine(LogisticRegression): pass\nmodel.__class__ = Mine\n" + SAVES["joblib"]
        with pytest.raises(UnsupportedError, match="in a module that can be imported here, not in the script itself"):
            run(cwd=str(script(own)), trust="pickle")

    def test_no_model(self, run, script) -> None:
        with pytest.raises(SpecError, match=r"python train.py ended well but left no model"):
            run(cwd=str(script("")))

    def test_something_that_is_no_model(self, run, script) -> None:
        with pytest.raises(UnsupportedError, match=r"model \(5 bytes\) is no model that can be read"):
            run(cwd=str(script("open(sys.argv[2], 'w').write('hello')")))
        with pytest.raises(UnsupportedError, match="holds a dict, which has no predict"):
            run(cwd=str(script("import joblib; joblib.dump({'model': model}, sys.argv[2])")), trust="pickle")

    def test_two_models(self, run, script) -> None:
        twice = SAVES["logged"] + "\n" + SAVES["logged"].replace("'mine', 7", "'mine', 8").replace("'mine',", "'b',", 2)
        with pytest.raises(SpecError, match="2 models were logged to the run"):
            run(cwd=str(script(twice)))

    def test_a_failure_names_the_exit_code_and_the_last_lines(self, run, script, mlflow_client) -> None:
        with pytest.raises(SpecError, match=r"exit code 1. Its last lines: .*\| KeyError: 'nope'") as caught:
            run(cwd=str(script("frame['nope']")))
        assert caught.value.fields["exit_code"] == 1
        (failed,) = mlflow_client.search_runs([e.experiment_id for e in mlflow_client.search_experiments()])
        assert failed.info.status == "FAILED"

    def test_after_a_failure_the_next_try_leaves_one_run(self, run, script, mlflow_client) -> None:
        marker = "import os\nif not os.path.exists('ok'): sys.exit('no')\n"
        folder = script(SAVES["logged"] + "\n" + marker)
        with pytest.raises(SpecError, match="no"):
            run(cwd=str(folder))
        (folder / "ok").touch()
        found = run(cwd=str(folder))
        (one,) = mlflow_client.search_runs([found["experiment_id"]])
        (model,) = mlflow_client.search_logged_models([found["experiment_id"]])
        assert (one.info.run_id, model.model_id) == (found["run_id"], found["model_id"])
        assert len(mlflow_client.get_metric_history(one.info.run_id, "mine")) == 1

    def test_another_experiment_is_explained(self, run, script) -> None:
        sets = "import mlflow; mlflow.set_experiment('churn'); " + SAVES["logged"]
        with pytest.raises(SpecError, match="give the same as experiment="):
            run(cwd=str(script(sets)))
        assert run(cwd=str(script(sets)), experiment="churn")["metrics"]["roc_auc"] == pytest.approx(expected_auc())

    @pytest.mark.parametrize(
        ("command", "message"),
        [
            ("python train.py {dataset} {model_out}", r'write command=\["python", "train.py", "{dataset}"'),
            (["python", "train.py"], "does not take {dataset}"),
            (["python", "train.py", "{datset}"], "did you mean 'dataset'"),
            ({"a": 1}, "a command is a list"),
        ],
    )
    def test_commands_that_cannot_be(self, run, command: Any, message: str) -> None:
        with pytest.raises(SpecError, match=message):
            run(command=command)

    def test_one_of_three(self, run) -> None:
        with pytest.raises(SpecError, match="one of trainer, command and notebook"):
            run(trainer="shop_trainers:logistic")


def test_another_interpreter_has_an_environment_that_is_not_known(run, script, tmp_path) -> None:
    folder = script(SAVES["skops"])
    (folder / "train.sh").write_text('#!/bin/sh\nexec python train.py "$1" "$2"\n')
    (folder / "train.sh").chmod(0o755)

    found = run(cwd=str(folder), command=["sh", "train.sh", "{dataset}", "{model_out}"])

    assert found["environment"]["python"] is None
    assert found["environment"]["program"].endswith("/sh")
    assert found["metrics"]["roc_auc"] == pytest.approx(expected_auc())


def test_frames_are_equal_to_the_data(run, script, data, tmp_path) -> None:
    """What the script reads is the training rows as a function would see them."""
    kept = tmp_path / "kept.parquet"
    run(cwd=str(script(f"frame.to_parquet({str(kept)!r}); " + SAVES["skops"])))
    pd.testing.assert_frame_equal(pd.read_parquet(kept), pd.read_parquet(data).iloc[:225])
