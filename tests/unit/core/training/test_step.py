from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from airflow_mlops.core import models
from airflow_mlops.core.data.dataset import read_frame, resolve, write_table
from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, MlopsError, SpecError, UnsupportedError
from airflow_mlops.core.training.rowkeys import hash_rows, load_row_keys, seen
from airflow_mlops.core.vocabulary import ModelRef
from airflow_mlops.core.xcom import fit_xcom

from .conftest import NUMERIC, rows


@pytest.fixture
def mlflow_client(mlflow_context) -> MlflowClient:
    return MlflowClient(mlflow_context.tracking_uri, mlflow_context.tracking_uri)


def runs_of(client: MlflowClient) -> list:
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


def loaded(context, result, folder):
    ref = ModelRef.from_dict(result)
    return mlflow.pyfunc.load_model(str(models.download(context, ref, folder)))


class TestResult:
    def test_metrics_are_those_of_scikit_learn_on_the_rows_held_out(self, train):
        found = train(split={"by": "time", "test": 0.25})
        frame = rows()
        test, learn = frame.iloc[225:], frame.iloc[:225]
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(learn[["a", "größe"]], learn["y"])
        for name, part in (("roc_auc", test), ("train_roc_auc", learn)):
            score = model.predict_proba(part[["a", "größe"]])[:, 1]
            expected = roc_auc_score(part["y"], score, sample_weight=part["w"])
            assert found["metrics"][name] == pytest.approx(expected), name

    def test_the_record_says_what_was_done(self, train, mlflow_context, data):
        found = train(split={"by": "time", "test": 0.25}, seed=3)
        assert found["uri"] == f"models:/{found['model_id']}"
        assert found["target"] == "y"
        assert found["reused"] is False
        training = found["training"]
        assert (training["rows"], training["test_rows"], training["seed"]) == (225, 75, 3)
        assert training["split"]["cutoff"] == "2013-01-10T09:00:00+00:00"
        assert training["window"]["start"] == "2013-01-01T00:00:00+00:00"
        assert training["dataset_digest"] == resolve(mlflow_context.store, str(data)).digest
        assert found["environment"]["packages"]["scikit-learn"]
        assert found["code"]["trainer"] == "shop_trainers:logistic"
        assert len(json.dumps(fit_xcom(found))) < 16_000

    def test_code_of_another_commit_than_was_said_is_refused(self, train, mlflow_client, project):
        git = ["git", "-C", str(project.folder), "-c", "user.name=t", "-c", "user.email=t@example.com"]
        for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "one"]):
            subprocess.run([*git, *command], check=True)
        sha = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        with pytest.raises(SpecError, match="not at 0000"):
            train(code={"git_sha": "0" * 40})
        found = train(code={"git_sha": sha, "repository": "https://example.com/x.git", "image": "sha256:1"})
        assert (found["code"]["git_sha"], found["code"]["image"]) == (sha, "sha256:1")
        tags = mlflow_client.get_run(found["run_id"]).data.tags
        assert (tags["mlops.git_sha"], tags["mlops.image"]) == (sha, "sha256:1")
        assert tags["mlops.repository"] == "https://example.com/x.git"

    def test_the_test_rows_are_a_dataset_and_none_of_them_trained(self, train, mlflow_context):
        found = train()
        held = read_frame(mlflow_context.store, resolve(mlflow_context.store, found["test_dataset"]))
        assert list(held.columns) == list(rows().columns)
        known = load_row_keys(mlflow_context.store, found["training"]["row_keys_uri"])
        assert not seen(hash_rows(held, NUMERIC), known).any()
        assert seen(hash_rows(rows(), NUMERIC), known).sum() == found["training"]["rows"] == 240

    def test_columns_with_a_role_stay_out(self, train, mlflow_context, tmp_path):
        model = loaded(mlflow_context, train(), tmp_path / "m")
        assert model.metadata.get_input_schema().input_names() == ["a", "größe"]

    def test_no_value_of_a_row_is_in_the_model(self, train, mlflow_context, tmp_path):
        found = train(
            roles={"key": "id", "time": "at", "target": "y", "private": ["email", "w", "who", "shop"]},
        )
        model = loaded(mlflow_context, found, tmp_path / "m")
        example = model.input_example
        assert len(example) == 1
        assert not (rows()[["a", "größe"]] == example.iloc[0].to_numpy()).all(axis=1).any()
        assert np.isfinite(model.predict(example)).all()

    def test_regression(self, train):
        found = train(trainer="shop_trainers:linear", target="größe", roles={**NUMERIC, "target": "größe"})
        assert set(found["metrics"]) >= {"r2", "root_mean_squared_error", "train_r2"}

    def test_chosen_metrics(self, train):
        found = train(metrics=["accuracy", "brier_score_loss"])
        assert set(found["metrics"]) == {
            "accuracy",
            "brier_score_loss",
            "train_accuracy",
            "train_brier_score_loss",
        }

    def test_a_test_side_of_one_class_has_metrics_without_nan(self, train, caplog):
        frame = rows()
        frame.loc[240:, "y"] = 1
        found = train(frame)
        assert found["metrics"]["roc_auc"] is None
        assert found["metrics"]["accuracy"] is not None
        told = [line for line in caplog.messages if "on the test rows cannot be computed: all rows are of one" in line]
        assert len(told) == 1, "what several metrics have in common is said once"
        assert told[0].startswith("roc_auc")

    def test_a_test_dataset_of_its_own(self, train, mlflow_context):
        import pyarrow as pa

        other = write_table(mlflow_context.store, pa.Table.from_pandas(rows(50, seed=9)), name="other")
        found = train(test_dataset=other.to_dict())
        assert (found["training"]["rows"], found["training"]["test_rows"]) == (300, 50)
        assert found["test_dataset"]["digest"] == other.digest
        with pytest.raises(SpecError, match="either a split or a test_dataset"):
            train(test_dataset=other.to_dict(), split={"by": "random"})

    def test_progress_is_logged(self, train, caplog):
        with caplog.at_level(logging.INFO):
            train()
        for line in (
            "Read 300 rows",
            "240 rows train, 60 test",
            "Fitting shop_trainers:logistic",
            "Fitted Pipeline in",
            "Metrics on 60 test rows",
            "Logged model models:/m-",
        ):
            assert line in caplog.text


class TestMlflow:
    def test_run_and_model_carry_everything(self, train, mlflow_client):
        found = train(hyperparameters={"C": 0.5}, tags={"team": "pricing"}, name="orders", experiment="shop", seed=4)
        run = mlflow_client.get_run(found["run_id"])
        assert run.info.status == "FINISHED"
        assert run.info.run_name == "orders"
        assert mlflow_client.get_experiment(found["experiment_id"]).name == "shop"
        assert run.data.params == {"C": "0.5"}
        assert run.data.metrics["roc_auc"] == found["metrics"]["roc_auc"]
        assert run.data.metrics["test_rows"] == 60
        (used,) = run.inputs.dataset_inputs
        assert found["training"]["dataset_digest"] in used.dataset.source
        model = mlflow_client.get_logged_model(found["model_id"])
        assert model.source_run_id == found["run_id"]
        assert {m.key: m.value for m in model.metrics}["roc_auc"] == found["metrics"]["roc_auc"]
        for tags in (run.data.tags, model.tags):
            assert tags["mlops.digest"] == found["digest"]
            assert tags["mlops.dataset_digest"] == found["training"]["dataset_digest"]
            assert tags["mlops.seed"] == "4"
            assert tags["mlops.code_digest"] == found["code"]["digest"]
            assert tags["team"] == "pricing"

    def test_values_beyond_mlflows_limits(self, train, mlflow_client):
        found = train(
            trainer=lambda X, y, **k: LogisticRegression().fit(X, y),
            hyperparameters={"long": "x" * 10_000, **{f"p{i}": i for i in range(150)}},
            tags={"note": "n" * 10_000},
        )
        params = mlflow_client.get_run(found["run_id"]).data.params
        assert len(params["long"]) == 6000
        assert len(params) == 151

    def test_it_loads_in_mlflow_and_registers(self, train, mlflow_client):
        found = train()
        mlflow.set_tracking_uri(mlflow_client.tracking_uri)
        mlflow.set_registry_uri(mlflow_client.tracking_uri)
        assert len(mlflow.pyfunc.load_model(found["uri"]).predict(rows(5)[["a", "größe"]])) == 5
        mlflow_client.create_registered_model("orders")
        version = mlflow_client.create_model_version(
            "orders", found["uri"], found["run_id"], model_id=found["model_id"]
        )
        assert mlflow.pyfunc.load_model(f"models:/orders/{version.version}").metadata.run_id == found["run_id"]

    def test_requirements_are_pinned(self, train, mlflow_context, tmp_path):
        models.download(mlflow_context, ModelRef.from_dict(train()), tmp_path / "m")
        (file,) = (tmp_path / "m").rglob("requirements.txt")
        lines = file.read_text().split()
        assert all("==" in line for line in lines)
        assert {line.partition("==")[0] for line in lines} >= {"scikit-learn", "skops", "numpy", "pandas", "mlflow"}


class TestReuse:
    def test_nothing_changed_gives_the_model_back(self, train, mlflow_client, project, caplog):
        first = train()
        with caplog.at_level(logging.INFO):
            second = train()
        assert second == {**first, "reused": True}
        assert project.CALLS == ["logistic"]
        assert "Nothing changed" in caplog.text
        assert len(runs_of(mlflow_client)) == 1

    @pytest.mark.parametrize(
        "change", [{"hyperparameters": {"C": 2.0}}, {"seed": 1}, {"split": {"test": 0.3}}, {"metrics": ["accuracy"]}]
    )
    def test_a_changed_argument_trains_again(self, train, change):
        assert train(**change)["model_id"] != train()["model_id"]

    def test_changed_code_trains_again(self, train, project):
        first = train()
        file = project.folder / "shop_trainers.py"
        file.write_text(file.read_text() + "\n# another version\n")
        assert train()["model_id"] != first["model_id"]

    def test_changed_data_trains_again(self, train):
        assert train()["model_id"] != train(rows(seed=5))["model_id"]

    def test_another_task_trains_its_own(self, train, mlflow_context, data):
        import dataclasses

        from airflow_mlops.core.training.step import train_model

        other = dataclasses.replace(mlflow_context, key="flights/manual__2/step/-1")
        again = train_model(other, dataset=str(data), trainer="shop_trainers:logistic", roles=NUMERIC)
        assert again["model_id"] != train()["model_id"]

    def test_what_a_trainer_logs_itself_goes_to_the_same_run(self, train, mlflow_client):
        def chatty(X, y):
            mlflow.log_metric("rounds", 7)
            return LogisticRegression().fit(X, y)

        def tidy(X, y):
            with mlflow.start_run():
                mlflow.log_param("solver", "lbfgs")
            return LogisticRegression().fit(X, y)

        first, second = train(trainer=chatty), train(trainer=tidy)
        assert mlflow.active_run() is None
        runs = {run.info.run_id: run for run in runs_of(mlflow_client)}
        assert set(runs) == {first["run_id"], second["run_id"]}
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        assert runs[first["run_id"]].data.metrics["rounds"] == 7
        assert runs[second["run_id"]].data.params["solver"] == "lbfgs"

    def test_it_can_be_forced(self, train):
        first = train()
        second = train(reuse=False)
        assert second["model_id"] != first["model_id"]
        assert second["metrics"] == first["metrics"]

    def test_a_model_that_was_deleted_is_trained_again(self, train, mlflow_client):
        first = train()
        mlflow_client.delete_logged_model(first["model_id"])
        assert train()["model_id"] != first["model_id"]

    def test_the_run_of_a_failed_try_is_resumed(self, train, mlflow_client, project):
        project.BROKEN.append(True)
        with pytest.raises(SpecError, match="RuntimeError: out of luck"):
            train(trainer="shop_trainers:flaky")
        (run,) = runs_of(mlflow_client)
        assert run.info.status == "FAILED"
        project.BROKEN.clear()
        found = train(trainer="shop_trainers:flaky")
        assert found["run_id"] == run.info.run_id
        assert mlflow_client.get_run(found["run_id"]).info.status == "FINISHED"
        assert len(runs_of(mlflow_client)) == 1


class TestTrainers:
    def test_the_same_seed_gives_the_same_metrics(self, train):
        one = train(trainer="shop_trainers:forest", reuse=False)
        same = train(trainer="shop_trainers:forest", reuse=False)
        other = train(trainer="shop_trainers:forest", seed=1)
        assert one["metrics"] == same["metrics"] != other["metrics"]

    def test_a_trainer_is_given_what_it_names(self, train, project):
        train(trainer="shop_trainers:everything")
        (given,) = project.CALLS
        frame = rows()
        assert len(given["X"]) + len(given["X_val"]) == 240
        assert list(given["groups"]) == list(frame["who"][: len(given["X"])])
        assert list(given["sample_weight"]) == list(frame["w"][: len(given["X"])])
        assert given["time"].max() < frame["at"].iloc[len(given["X"])]
        assert list(given["X"].columns) == ["a", "größe"]
        assert given["y_val"].name == "y"

    def test_a_role_that_it_needs_is_missing(self, train):
        with pytest.raises(SpecError, match="asks for sample_weight, but the dataset has no weight role"):
            train(
                trainer="shop_trainers:everything",
                roles={"key": "id", "time": "at", "target": "y", "private": ["email", "shop", "w", "who"]},
            )

    def test_unfitted(self, train):
        with pytest.raises(SpecError, match="LogisticRegression that is not fitted"):
            train(trainer="shop_trainers:unfitted")

    def test_unknown_trainer(self, train):
        with pytest.raises(SpecError, match="did you mean 'logistic'"):
            train(trainer="shop_trainers:logistics")


class TestCode:
    def test_features_are_in_the_model_and_load_without_the_project(self, train, mlflow_context, tmp_path, project):
        found = train(features="shop_trainers:features")
        local = models.download(mlflow_context, ModelRef.from_dict(found), tmp_path / "m")
        rows(5)[["a", "größe"]].to_parquet(tmp_path / "new.parquet")
        script = (
            "import sys, mlflow, pandas\n"
            "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
            "print(model.predict(pandas.read_parquet(sys.argv[2])).tolist())\n"
            "import shop_helpers; print(shop_helpers.__file__)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(local), str(tmp_path / "new.parquet")],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        predictions, where = done.stdout.strip().splitlines()[-2:]
        assert len(json.loads(predictions)) == 5
        assert where.startswith(str(local))

    def test_an_estimator_of_the_users_own(self, train, mlflow_context, tmp_path):
        model = loaded(mlflow_context, train(trainer="shop_trainers:majority"), tmp_path / "m")
        assert set(model.predict(rows(5)[["a", "größe"]])) <= {0, 1}

    def test_a_class_that_nobody_else_can_import(self, train):
        with pytest.raises(UnsupportedError, match="top level of a module"):
            train(trainer="shop_trainers:hidden")

    def test_features_that_nobody_else_can_import(self, train):
        with pytest.raises(SpecError, match="put it at the top level of a module beside the DAG file"):
            train(features=lambda frame: frame)

    def test_types_off_the_allow_list(self, train):
        def train_other(X, y):
            model = LogisticRegression().fit(X, y)
            model.note_ = Path("/nowhere")
            return model

        with pytest.raises(UnsupportedError, match=r"trusted_types=\['pathlib"):
            train(trainer=train_other)


class TestBadInput:
    @pytest.mark.parametrize("count", [0, 1])
    def test_too_few_rows(self, train, mlflow_client, count):
        with pytest.raises(EmptyDataError):
            train(rows().head(count))
        assert runs_of(mlflow_client) == []

    def test_a_target_that_is_not_there(self, train):
        with pytest.raises(MissingColumnError, match=r"'größ' is not in .*did you mean 'größe'"):
            train(target="größ")

    def test_no_target_at_all(self, train):
        with pytest.raises(SpecError, match="pass target='<column>'"):
            train(roles={"key": "id"})

    def test_a_constant_target(self, train):
        with pytest.raises(SpecError, match="one and the same value in all 240 training rows"):
            train(rows().assign(y=1))

    def test_a_target_without_values(self, train):
        with pytest.raises(EmptyDataError, match="no row of 'orders' has a value in the target 'y'"):
            train(rows().assign(y=pd.array([None] * 300, dtype="float64")))

    def test_rows_without_a_label_are_dropped_and_counted(self, train, caplog):
        frame = rows().astype({"y": "Int64"})
        frame.loc[:9, "y"] = None
        found = train(frame)
        assert found["training"]["unlabelled_rows"] == 10
        assert found["training"]["rows"] + found["training"]["test_rows"] == 290
        assert "10 of 300 rows have no label" in caplog.text

    def test_labels_that_contradict_are_left_out_and_counted(self, train, caplog):
        frame = rows()
        again = frame.iloc[:6]
        same, other, later = again.iloc[:2], again.iloc[2:4], again.iloc[4:]
        other = other.assign(y=1 - other["y"])
        later = later.assign(y=1 - later["y"], at=later["at"] + pd.Timedelta("1h"))
        found = train(pd.concat([frame, same, other, later]))
        assert found["training"]["contradicting_rows"] == 4, "a label may change with time, and may be told twice"
        assert found["training"]["rows"] + found["training"]["test_rows"] == 302
        assert "4 of 306 rows are left out: another row of the same key has another y" in caplog.text

    def test_copies_of_rows_on_both_sides_of_a_random_split_are_told_of(self, train, caplog):
        frame = rows()
        train(pd.concat([frame, frame.iloc[:60]]), split={"by": "random", "test": 0.2})
        assert "test rows have a key that trains as well, so the metrics flatter" in caplog.text
        caplog.clear()
        train(frame, split={"by": "random", "test": 0.2})
        assert "trains as well" not in caplog.text

    def test_infinity_in_the_target(self, train):
        frame = rows()
        frame.loc[3, "größe"] = np.inf
        with pytest.raises(SpecError, match="'größe' has infinite values"):
            train(frame, trainer="shop_trainers:linear", roles={**NUMERIC, "target": "größe"})

    @pytest.mark.parametrize("value", [np.inf, np.nan])
    def test_bad_values_in_a_feature_are_placed(self, train, value):
        frame = rows()
        frame.loc[3, "größe"] = value
        with pytest.raises(SpecError, match="Columns: 'größe' has 1"):
            train(frame)

    def test_a_column_of_nulls(self, train):
        with pytest.raises(SpecError, match="'größe' has 240 nulls"):
            train(rows().assign(größe=np.nan))

    def test_bad_weights(self, train):
        frame = rows()
        frame.loc[3, "w"] = -1
        with pytest.raises(SpecError, match="weight column 'w' has 1 values"):
            train(frame)

    def test_no_features_left(self, train):
        with pytest.raises(SpecError, match="no feature columns"):
            train(roles={**NUMERIC, "private": ["email", "shop", "a", "größe"]})

    def test_a_role_column_that_is_not_there(self, train):
        with pytest.raises(MissingColumnError, match="the group column 'customer'"):
            train(roles={**NUMERIC, "group": "customer"})

    def test_unknown_metric(self, train):
        with pytest.raises(SpecError, match="did you mean 'roc_auc'"):
            train(metrics=["roc_aux"])

    def test_a_message_never_holds_a_value_of_a_private_column(self, train):
        with pytest.raises(MlopsError) as caught:
            train(roles={**NUMERIC, "private": ["shop"]})
        assert "example.com" not in str(caught.value)
