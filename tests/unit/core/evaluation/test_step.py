"""The verdict on a model: what passes, what fails, on which rows, and what the report says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from airflow_mlops.core.errors import EmptyDataError, IntegrityError, MissingColumnError, SpecError
from airflow_mlops.core.evaluation.slices import _correct
from airflow_mlops.core.evaluation.step import evaluate_model
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.vocabulary import Report
from airflow_mlops.core.xcom import fit_xcom

ROLES = {"key": "id", "time": "day"}
AUC = {"kind": "metric", "metric": "roc_auc", "min": 0.8}
BETTER = {"kind": "champion", "metric": "roc_auc"}
Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluate(context: StepContext, save: Callable[..., str]) -> Evaluate:
    """Evaluate on a frame."""

    def run(model: Any, frame: pd.DataFrame, *tests: dict[str, Any], **more: Any) -> dict[str, Any]:
        options = {"roles": ROLES, "target": "late", "tests": list(tests) or [AUC], **more}
        model = model if isinstance(model, str) else model.to_dict()
        return evaluate_model(context, model=model, dataset=save(frame), **options)

    return run


@pytest.fixture
def details(context: StepContext) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Read a report's details."""
    return lambda report: context.store.get_json(context.store.key_of(report["details_uri"]) or "")


@pytest.fixture
def page(context: StepContext) -> Callable[[dict[str, Any]], str]:
    """Read a report's page."""
    return lambda report: context.store.get_bytes(context.store.key_of(report["report_uri"]) or "").decode()


def coin(probability: float = 0.5, *, count: Path | None = None, nan: bool = False) -> Any:
    """Return an MLflow model that says one probability for all rows, and counts its calls in a file."""
    import mlflow

    class Coin(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            import numpy

            if count is not None:
                with open(count, "a") as file:
                    file.write(f"{len(model_input)}\n")
            found = numpy.full(len(model_input), probability) + numpy.arange(len(model_input)) * 1e-6
            if nan:
                found[1::2] = numpy.nan
            return found

    return Coin()


def test_a_good_model_passes_and_the_report_says_what_was_measured(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, details: Any, page: Any
) -> None:
    ref = log_model()
    report = evaluate(ref, frame, AUC, {"kind": "signature"}, BETTER, champion="flights_late@champion")
    assert (report["kind"], report["passed"], report["severity"]) == ("model_test", True, "ok")
    assert report["subject"] == ref.digest
    assert (report["model_uri"], report["model_name"], report["champion_version"]) == (ref.uri, "flights_late", None)
    assert report["checks"] == {"total": 4, "failed": 0}
    assert "no champion yet" in report["summary"]
    assert Report.from_dict(report).report == "model_test"
    found = details(report)
    assert [test["kind"] for test in found["tests"]] == ["sanity", "metric", "signature", "champion"]
    assert found["tests"][1]["value"] == report["metrics"]["roc_auc"] > 0.9
    assert found["champion"] == found["champion"] | {"exists": False, "version": None}
    assert "There is no champion yet at" in page(report)


def test_metrics_are_those_of_scikit_learn(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, make_rows: Any
) -> None:
    from sklearn.linear_model import LogisticRegression

    train = make_rows(seed=9)
    fitted = LogisticRegression().fit(train[["größe", "distance"]], train["late"])
    weights = np.linspace(0.1, 3, len(frame))
    ref = log_model(model=fitted)
    X, y = frame[["größe", "distance"]], frame["late"]
    report = evaluate(ref, frame, AUC)
    assert report["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(y, fitted.predict_proba(X)[:, 1]))
    assert report["metrics"]["accuracy"] == pytest.approx(accuracy_score(y, fitted.predict(X)))
    weighted = evaluate(ref, frame.assign(w=weights), AUC, roles={**ROLES, "weight": "w"})
    assert weighted["metrics"]["accuracy"] == pytest.approx(accuracy_score(y, fitted.predict(X), sample_weight=weights))
    assert weighted["metrics"]["accuracy"] != report["metrics"]["accuracy"]


def test_errors_fail_and_warnings_do_not(log_model: Any, evaluate: Evaluate, frame: pd.DataFrame) -> None:
    ref = log_model()
    strict = {"kind": "metric", "metric": "roc_auc", "min": 0.999}
    report = evaluate(ref, frame, strict, {"kind": "metric", "metric": "log_loss", "max": 0.01, "severity": "warning"})
    assert (report["passed"], report["severity"], report["checks"]["failed"]) == (False, "error", 2)
    assert report["failures"][0]["name"] == "roc_auc"
    assert "roc_auc is 0.95" in report["summary"]
    assert "must be ≥ 0.999" in report["summary"]
    report = evaluate(ref, frame, strict | {"severity": "warning"})
    assert (report["passed"], report["severity"]) == (True, "warning")


def test_each_model_predicts_its_rows_once_whatever_the_tests(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, tmp_path: Path
) -> None:
    log_model(model=coin(0.4, count=tmp_path / "champion"), alias="champion", keys=frame.head(100), example=False)
    ref = log_model(model=coin(0.6, count=tmp_path / "challenger"), keys=frame.tail(50), example=False)
    evaluate(
        ref,
        frame,
        AUC,
        {"kind": "metric", "metric": "log_loss", "max": 2},
        {"kind": "slices", "by": ["airport", "distance"], "metric": "accuracy", "min": 0},
        BETTER,
        {"kind": "champion", "metric": "accuracy"},
        champion="flights_late@champion",
    )
    assert (tmp_path / "challenger").read_text().split() == ["550"]
    assert (tmp_path / "champion").read_text().split() == ["450"]


def test_a_champion_that_knows_the_rows_by_heart_does_not_win_by_it(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, details: Any, page: Any
) -> None:
    from sklearn.tree import DecisionTreeClassifier

    known = frame.head(400)
    by_heart = DecisionTreeClassifier(random_state=0).fit(known[["größe", "distance"]], known["late"])
    log_model(model=by_heart, alias="champion", keys=known)
    ref = log_model(keys=frame.head(0))
    # 200 rows are left, of nine days: too few for the days to be told apart, so the rows are.
    report = evaluate(ref, frame, BETTER | {"cluster": "id"}, champion="flights_late@champion")
    assert report["passed"], report["summary"]
    assert report["champion_version"] == 1
    found = details(report)
    assert found["champion"]["rows"] == 200
    assert found["champion"]["left_out"] == [{"why": "the champion was trained on them", "rows": 400}]
    assert found["dataset"]["judged"] == 600
    rest = frame.tail(200)
    auc = roc_auc_score(rest["late"], by_heart.predict_proba(rest[["größe", "distance"]])[:, 1])
    assert report["metrics"]["champion_roc_auc"] == pytest.approx(auc)
    # The challenger's own figures are of all its rows; beside the champion's stand those of the same rows.
    assert report["metrics"]["challenger_roc_auc"] != report["metrics"]["roc_auc"]
    assert "400 rows: the champion was trained on them" in page(report)


@pytest.mark.parametrize("require", ["not_worse", "better"])
def test_a_champion_that_was_trained_on_all_rows_ends_in_cannot_tell(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, details: Any, page: Any, require: str
) -> None:
    log_model(rows=frame, alias="champion", keys=frame)
    ref = log_model(keys=frame.head(0))
    report = evaluate(ref, frame, BETTER | {"require": require, "margin": 0.5}, champion="flights_late@champion")
    found = details(report)["tests"][-1]
    assert (report["passed"], found["passed"]) == (False, False)
    assert found["message"].startswith("Cannot tell against the champion flights_late@champion (version 1): 0 rows")
    assert "on_unclear='keep' keeps the champion" in found["message"]
    assert "champion_roc_auc" not in report["metrics"]
    assert "600 rows: the champion was trained on them" in page(report)


@pytest.mark.parametrize(
    ("require", "margin", "passed"),
    [("not_worse", 0.0, False), ("not_worse", 0.5, True), ("better", 0.0, False)],
)
def test_a_worse_challenger_passes_only_within_the_margin(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, require: str, margin: float, passed: bool
) -> None:
    log_model(alias="champion")
    report = evaluate(
        log_model(columns=["distance"]),
        frame,
        {**BETTER, "require": require, "margin": margin},
        champion="flights_late@champion",
    )
    assert report["passed"] is passed
    if not passed:
        assert "worse than the champion flights_late@champion (version 1)" in report["failures"][0]["message"]


def test_lower_is_better_for_losses(log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, details: Any) -> None:
    log_model(alias="champion", columns=["distance"])
    test = {"kind": "champion", "metric": "log_loss", "require": "better"}
    report = evaluate(log_model(), frame, test, champion="flights_late@champion")
    assert report["passed"]
    assert report["metrics"]["log_loss"] < report["metrics"]["champion_log_loss"]
    row = next(row for row in details(report)["champion"]["comparison"] if row["metric"] == "log_loss")
    assert row["ahead"] > 0


@pytest.mark.parametrize(("on_unclear", "passed"), [("keep", False), ("promote", True)])
def test_too_few_common_rows_cannot_tell(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, on_unclear: str, passed: bool
) -> None:
    log_model(alias="champion", keys=frame.head(560))
    report = evaluate(
        log_model(keys=frame.head(0)), frame, {**BETTER, "on_unclear": on_unclear}, champion="flights_late@champion"
    )
    assert report["passed"] is passed
    if not passed:
        assert "Cannot tell against the champion" in report["failures"][0]["message"]
        assert "40 rows that neither was trained on are too few" in report["failures"][0]["message"]


def test_common_rows_of_one_class_cannot_tell(log_model: Any, evaluate: Evaluate, frame: pd.DataFrame) -> None:
    log_model(alias="champion", keys=frame[frame["late"] == 1])
    report = evaluate(log_model(keys=frame.head(0)), frame, BETTER, champion="flights_late@champion")
    assert "are of one class" in report["failures"][0]["message"]


def test_the_champion_itself_is_recognised(log_model: Any, evaluate: Evaluate, frame: pd.DataFrame) -> None:
    champion = log_model(alias="champion")
    report = evaluate(champion, frame, BETTER, champion="flights_late@champion")
    assert report["passed"]
    report = evaluate(champion, frame, {**BETTER, "require": "better"}, champion="flights_late@champion")
    assert "the same model as the champion" in report["failures"][0]["message"]


def test_a_foreign_champion_is_compared_on_all_rows_with_a_caveat(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, details: Any, page: Any
) -> None:
    log_model(alias="champion", recorded=False, columns=["distance"])
    ref = log_model(keys=frame.head(0))
    refused = evaluate(ref, frame, BETTER, champion="flights_late@champion")
    assert "not on record here" in refused["failures"][0]["message"]
    assert refused["champion_version"] == 1
    report = evaluate(ref, frame, BETTER, champion="flights_late@champion", trust="unverified")
    assert report["passed"]
    assert any("not known which rows the champion" in caveat for caveat in details(report)["caveats"])
    assert any("champion's files were not verified" in caveat for caveat in details(report)["caveats"])
    assert "not known which rows the champion was trained on" in page(report)


def artifact_of(tmp_path: Path, ref: Any, name: str) -> Path:
    (found,) = [path for path in (tmp_path / "artifacts").rglob(name) if ref.model_id in str(path)]
    return found


def test_an_altered_champion_fails_its_test_and_nothing_else(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, tmp_path: Path
) -> None:
    champion = log_model(alias="champion")
    file = artifact_of(tmp_path, champion, "model.pkl")
    file.write_bytes(file.read_bytes() + b"\0")
    report = evaluate(log_model(), frame, AUC, BETTER, champion="flights_late@champion")
    assert report["checks"] == {"total": 3, "failed": 1}
    assert "cannot be compared" in report["failures"][0]["message"]
    assert "model.pkl" in report["failures"][0]["message"]


def test_a_champion_whose_files_are_gone_fails_its_test(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, tmp_path: Path
) -> None:
    import shutil

    champion = log_model(alias="champion")
    shutil.rmtree(artifact_of(tmp_path, champion, "MLmodel").parent)
    report = evaluate(log_model(), frame, AUC, BETTER, champion="flights_late@champion")
    assert report["checks"] == {"total": 3, "failed": 1}
    assert "cannot be compared" in report["failures"][0]["message"]


def test_a_champion_that_predicts_nan_or_lacks_its_columns_fails_its_test(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, make_rows: Any
) -> None:
    ref = log_model()
    log_model(alias="champion", model=coin(nan=True), example=False)
    report = evaluate(ref, frame, AUC, BETTER, champion="flights_late@champion")
    assert "300 of its 600 predictions are NaN" in report["failures"][0]["message"]
    log_model(alias="champion", rows=make_rows(seed=3).assign(wind=1.0), columns=["distance", "wind"])
    report = evaluate(ref, frame, AUC, BETTER, champion="flights_late@champion")
    assert "lacks 1 of the model's 2 columns: wind" in report["failures"][0]["message"]


def test_an_altered_model_is_refused_and_the_file_is_named(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, tmp_path: Path
) -> None:
    ref = log_model()
    file = artifact_of(tmp_path, ref, "model.pkl")
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError, match=r"model\.pkl"):
        evaluate(ref, frame)
    with pytest.raises(IntegrityError, match=r"model\.pkl"):
        evaluate(ref, frame, trust="unverified")


def test_a_model_from_elsewhere_needs_trust_and_the_report_says_so(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, details: Any, page: Any
) -> None:
    ref = log_model(recorded=False, alias="champion", name="foreign")
    with pytest.raises(IntegrityError, match="trust='unverified'"):
        evaluate("models:/foreign@champion", frame)
    report = evaluate("models:/foreign@champion", frame, trust="unverified")
    assert report["passed"]
    assert report["subject"].startswith("sha256:")
    assert details(report)["model"]["verified"] is False
    assert "not verified: nothing is on record" in page(report)
    assert ref.version == 1


def test_a_plain_model_folder_can_be_tested(evaluate: Evaluate, frame: pd.DataFrame, tmp_path: Path) -> None:
    import mlflow
    from sklearn.linear_model import LogisticRegression

    X, y = frame[["größe", "distance"]], frame["late"]
    folder = tmp_path / "saved"
    mlflow.sklearn.save_model(
        LogisticRegression().fit(X, y), folder, pip_requirements=[], serialization_format="pickle"
    )
    frame = frame.drop(columns="airport")
    report = evaluate(str(folder), frame, AUC, {"kind": "signature", "severity": "warning"}, trust="unverified")
    assert report["passed"]
    assert "no signature" in report["failures"][0]["message"]


def test_nan_predictions_fail_whatever_is_asked(log_model: Any, evaluate: Evaluate, frame: pd.DataFrame) -> None:
    report = evaluate(log_model(model=coin(nan=True), example=False), frame, {"kind": "size", "max_mb": 50}, AUC)
    assert report["failures"][0] == report["failures"][0] | {
        "name": "predictions are finite",
        "message": "300 of 600 predictions are NaN, infinite or null",
    }
    assert "NaN" in report["failures"][1]["message"]
    assert report["metrics"]["roc_auc"] is None


def test_a_missing_feature_is_a_failed_signature_and_not_a_traceback(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame
) -> None:
    report = evaluate(log_model(), frame.drop(columns="größe").assign(distance="far"), AUC, {"kind": "signature"})
    messages = {failure["kind"]: failure["message"] for failure in report["failures"]}
    assert "lacks 1 of the model's 2 columns: größe" in messages["sanity"]
    assert "missing größe; wrong type: distance is" in messages["signature"]
    assert "must be double" in messages["signature"]


def test_values_that_a_model_chokes_on_do_not_stand_in_the_report(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, page: Any
) -> None:
    report = evaluate(log_model(), frame.assign(distance="Erika Mustermann"), AUC)
    assert "could not convert string to float" in report["failures"][0]["message"]
    assert "Erika" not in json.dumps(report, ensure_ascii=False) + page(report)


def test_bad_data_has_its_own_errors(log_model: Any, evaluate: Evaluate, frame: pd.DataFrame) -> None:
    ref = log_model(keys=frame)
    with pytest.raises(EmptyDataError, match="no rows"):
        evaluate(ref, frame.head(0))
    with pytest.raises(EmptyDataError, match="all 600 rows of the dataset 'test' lack the target"):
        evaluate(ref, frame.assign(late=np.nan))
    with pytest.raises(EmptyDataError, match="600 the model was trained on them"):
        evaluate(ref, frame)
    with pytest.raises(MissingColumnError, match="no target column 'lte'; did you mean 'late'"):
        evaluate(ref, frame, target="lte")
    with pytest.raises(MissingColumnError, match="goes by 'airprt', which the dataset does not have; did you mean"):
        evaluate(log_model(), frame, {"kind": "slices", "by": "airprt", "metric": "f1", "min": 0})


def test_one_row_and_one_class_cannot_pass(log_model: Any, evaluate: Evaluate, frame: pd.DataFrame) -> None:
    ref = log_model()
    accuracy = {"kind": "metric", "metric": "accuracy", "min": 0}
    report = evaluate(ref, frame.head(1), AUC, accuracy)
    assert [failure["name"] for failure in report["failures"]] == ["roc_auc", "accuracy"]
    assert "too few for accuracy (min_rows is 20)" in report["failures"][1]["message"]
    report = evaluate(ref, frame[frame["late"] == 0], AUC)
    assert "roc_auc cannot be measured: all rows are of one class" in report["failures"][0]["message"]


def test_rows_without_a_label_are_left_out_and_counted(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, details: Any
) -> None:
    frame["late"] = frame["late"].astype(float).where(frame.index >= 25)
    report = evaluate(log_model(keys=frame.head(0)), frame)
    assert report["passed"]
    assert details(report)["dataset"] == details(report)["dataset"] | {
        "rows": 600,
        "judged": 575,
        "left_out": [{"rows": 25, "why": "without a value of the target late"}],
    }


def test_slices_are_judged_from_their_minimum_on(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, details: Any, page: Any
) -> None:
    # At one airport, the labels are wrong.
    frame["late"] = np.where(frame["airport"] == "LGA", 1 - frame["late"], frame["late"])
    test = {"kind": "slices", "by": ["airport"], "metric": "roc_auc", "max_gap": 0.2, "min_rows": 50}
    report = evaluate(log_model(), frame, test)
    assert report["checks"] == {"total": 3, "failed": 1}
    assert details(report)["tests"][2]["slice"] == "airport = LGA"
    small = next(row for row in details(report)["slices"] if row["slice"] == "Orléans")
    assert (small["value"], small["why_not_judged"]) == (None, "fewer than 50 rows")
    assert "LGA" in page(report)
    assert "<svg" in page(report)
    # The slice's name is a value of the data: it stands in the report and not in XCom.
    assert "LGA" not in json.dumps(report)
    assert "one slice by airport" in report["summary"]


def test_a_slice_that_falls_short_by_luck_is_not_held_against_the_model(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, details: Any, page: Any
) -> None:
    # Forty routes of about fifteen rows: some are below the accuracy of all.
    frame["route"] = np.random.default_rng(7).integers(0, 40, len(frame))
    test = {"kind": "slices", "by": "route", "metric": "accuracy", "max_gap": 0.02, "min_rows": 15, "cluster": "id"}
    frame["route"] = frame["route"].astype(str)
    report = evaluate(log_model(), frame, test)
    assert report["passed"], report["summary"]
    short = [row for row in details(report)["slices"] if row["short"]]
    told = [row for row in short if row["p_corrected"] is not None]
    assert len(told) > 3
    assert all(0.05 < row["p_corrected"] <= 1 and row["p"] <= row["p_corrected"] for row in told)
    assert "Holm" in page(report)
    strict = evaluate(log_model(), frame, test | {"correction": "none"})
    assert strict["checks"]["failed"] == len(short)


def test_the_correction_is_holms() -> None:
    from statsmodels.stats.multitest import multipletests

    values = np.random.default_rng(0).beta(0.3, 2, 25)
    entries = [{"p": float(p), "p_corrected": None, "short": True} for p in values]
    _correct(entries, {"alpha": 0.05})
    rejected, corrected, *_ = multipletests(values, 0.05, method="holm")
    assert [one["p_corrected"] for one in entries] == pytest.approx(list(corrected), abs=1e-12)
    assert [not one["passed"] for one in entries] == list(rejected)
    assert 0 < sum(rejected) < 25


def test_numbers_are_sliced_by_quartile_and_missing_values_stand_alone(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, details: Any
) -> None:
    frame["age"] = np.where(frame.index % 4 == 0, np.nan, np.arange(600.0))
    test = {"kind": "slices", "by": ["age", ["airport", "late"]], "metric": "accuracy", "min": 0.0, "min_rows": 1}
    found = details(evaluate(log_model(), frame, test))["slices"]
    ages = [row for row in found if row["by"] == "age"]
    assert sorted(row["rows"] for row in ages) == [112, 112, 113, 113, 150]
    assert [row["rows"] for row in ages if row["slice"] == "(missing)"] == [150]
    crossed = [row for row in found if row["by"] == "airport × late"]
    assert len(crossed) == 6
    assert sum(row["rows"] for row in crossed) == 600


def test_private_values_do_not_name_slices_unless_asked_for(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, page: Any
) -> None:
    test = {"kind": "slices", "by": "airport", "metric": "accuracy", "min": 0.0, "min_rows": 1}
    roles = {**ROLES, "private": ["airport"]}
    hidden = page(evaluate(log_model(), frame, test, roles=roles))
    assert "Orléans" not in hidden
    assert "value 1 (private)" in hidden
    assert "Orléans" in page(evaluate(log_model(), frame, test, roles=roles, show_values=True))


def test_slices_none_of_which_is_large_enough_do_not_pass(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame
) -> None:
    test = {"kind": "slices", "by": "airport", "metric": "roc_auc", "min": 0, "min_rows": 10_000}
    report = evaluate(log_model(), frame, test)
    assert "No slice by airport could be judged" in report["failures"][0]["message"]


def test_each_model_uses_the_code_that_was_logged_with_it(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, tmp_path: Path
) -> None:
    from sklearn.base import BaseEstimator, ClassifierMixin

    def log_version(column: str, **options: Any) -> Any:
        # Two versions of one project, with a module of one name; the model is pickled by reference to it.
        folder = tmp_path / column
        folder.mkdir()
        module = folder / "my_project.py"
        module.write_text(
            "from sklearn.base import BaseEstimator, ClassifierMixin\n"
            "class Rule(ClassifierMixin, BaseEstimator):\n"
            "    def predict(self, X):\n"
            f"        return (X[{column!r}] > 0).astype(int).to_numpy()\n"
        )
        sys.path.insert(0, str(folder))
        try:
            import my_project

            rule = my_project.Rule()
            rule.classes_ = np.array([0, 1])
            return log_model(model=rule, code_paths=[str(module)], example=False, **options)
        finally:
            sys.path.remove(str(folder))
            del sys.modules["my_project"]

    assert BaseEstimator
    assert ClassifierMixin
    log_version("distance", alias="champion")
    ref = log_version("größe")
    report = evaluate(ref, frame, {"kind": "champion", "metric": "accuracy"}, champion="flights_late@champion")
    assert report["metrics"]["accuracy"] == pytest.approx(((frame["größe"] > 0) == frame["late"]).mean())
    assert report["metrics"]["champion_accuracy"] == pytest.approx(((frame["distance"] > 0) == frame["late"]).mean())
    assert "my_project" not in sys.modules


def test_a_function_of_ones_own_is_a_test(log_model: Any, evaluate: Evaluate, frame: pd.DataFrame) -> None:
    def mean_score(model: Any, X: pd.DataFrame, y: pd.Series, probabilities: Any) -> list[dict[str, Any]]:
        assert list(X.columns) == ["größe", "distance"]
        return [
            {
                "name": "mean",
                "passed": bool(abs(probabilities[:, 1].mean() - y.mean()) < 0.2),
                "value": np.float64(0.5),
            },
            {"name": "never", "passed": False, "message": "too sure", "severity": "warning"},
        ]

    ref = log_model()
    report = evaluate(ref, frame, {"kind": "custom", "function": mean_score})
    assert report["severity"] == "warning"
    assert report["failures"][0]["name"] == "mean_score: never"
    report = evaluate(ref, frame, {"kind": "custom", "function": lambda model, X, y: {"profit": 12.5}, "name": "money"})
    assert report["metrics"]["profit"] == 12.5
    report = evaluate(ref, frame, {"kind": "custom", "function": lambda model, X, y: {"profit": float("nan")}})
    assert not report["passed"]
    with pytest.raises(SpecError, match="must return a bool"):
        evaluate(ref, frame, {"kind": "custom", "function": lambda model, X, y: "fine"})
    with pytest.raises(SpecError, match="raised ZeroDivisionError"):
        evaluate(ref, frame, {"kind": "custom", "function": lambda model, X, y: 1 / 0})


def test_size_is_held_to_its_limit(log_model: Any, evaluate: Evaluate, frame: pd.DataFrame) -> None:
    report = evaluate(log_model(), frame, {"kind": "size", "max_mb": 0.0001})
    assert "must be ≤ 0.0001 MB" in report["failures"][0]["message"]


def test_regression(log_model: Any, evaluate: Evaluate, frame: pd.DataFrame, make_rows: Any) -> None:
    from sklearn.linear_model import LinearRegression

    train = make_rows(seed=4)
    fitted = LinearRegression().fit(train[["distance"]], 3 * train["distance"] + 1)
    frame["late"] = 3 * frame["distance"] + 1 + np.random.default_rng(0).normal(scale=0.1, size=len(frame))
    test = {"kind": "metric", "metric": "mean_absolute_error", "max": 0.2}
    report = evaluate(log_model(model=fitted, columns=["distance"]), frame, test)
    assert report["passed"]
    assert report["metrics"]["r2"] > 0.99
    report = evaluate(log_model(model=fitted, columns=["distance"]), frame, AUC)
    assert "no meaning for a regression target" in report["failures"][0]["message"]


def test_the_same_evaluation_again_ends_with_one_report(
    log_model: Any, save: Callable[..., str], frame: pd.DataFrame, context: StepContext
) -> None:
    arguments = {"model": log_model().to_dict(), "dataset": save(frame), "target": "late", "tests": [AUC]}
    first, second = evaluate_model(context, **arguments), evaluate_model(context, **arguments)
    assert first["report_uri"] == second["report_uri"]
    assert len(list(context.store.keys("reports"))) == 2
    assert not list((Path(context.store.staging_folder()).parent).glob("w-*/model"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tests": [BETTER]}, "needs a champion: pass champion='name@alias'"),
        ({"champion": "flights_late"}, "champion must be 'name@alias'"),
        ({"trust": "blind"}, "trust must be"),
        ({"tests": [{"kind": "custom", "function": "no_such_module:f"}]}, "there is no module 'no_such_module'"),
        ({"dataset": None}, "has no test dataset on record: pass dataset="),
        ({"target": None, "roles": None}, "no target: pass target="),
    ],
)
def test_mistakes_in_the_arguments(
    context: StepContext, log_model: Any, frame: pd.DataFrame, save: Any, arguments: dict[str, Any], says: str
) -> None:
    ref = log_model().to_dict() | {"target": None}
    options = {"dataset": save(frame), "target": "late", "tests": [AUC], **arguments}
    if options.get("target") is None:
        context.store.delete(f"models/{ref['model_id']}.json")
    with pytest.raises(SpecError, match=says):
        evaluate_model(context, model=ref, **options)


def test_the_report_fits_into_xcom_with_hundreds_of_failing_slices(
    log_model: Any, evaluate: Evaluate, frame: pd.DataFrame
) -> None:
    frame["route"] = [f"route {i % 190}" for i in range(len(frame))]
    test = {"kind": "slices", "by": "route", "metric": "accuracy", "min": 1.01, "min_rows": 1}
    report = evaluate(log_model(), frame, test)
    assert report["checks"]["failed"] == 190
    assert len(report["failures"]) == 20
    assert len(json.dumps(fit_xcom(report)).encode()) < 16 * 1024
