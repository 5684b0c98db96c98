"""EvaluateModelOperator's and @task.evaluate_model's shell: arguments, the report before the verdict, mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from airflow.sdk import BaseOperator
from sklearn.linear_model import LogisticRegression

from airflow_mlops.decorators.evaluation import EvaluateModelDecoratedOperator, evaluate_model_task
from airflow_mlops.exceptions import MlopsFailed, MlopsGateFailed
from airflow_mlops.operators.evaluation import EvaluateModelOperator

AUC = {"kind": "metric", "metric": "roc_auc", "min": 0.8}


@pytest.fixture
def churn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A model folder that this project has never seen, and data beside the DAG."""
    monkeypatch.setenv("AIRFLOW__MLOPS__HOME", str(tmp_path / "mlops"))
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 2)), columns=["age", "income"])
    frame["churned"] = (frame["age"] + 0.3 * rng.normal(size=200) > 0).astype(int)
    frame.to_parquet(tmp_path / "customers.parquet")
    fitted = LogisticRegression().fit(frame[["age", "income"]], frame["churned"])
    mlflow.sklearn.save_model(
        fitted, tmp_path / "model", pip_requirements=["scikit-learn"], serialization_format="cloudpickle"
    )
    return {
        "model": str(tmp_path / "model"),
        "dataset": "customers.parquet",
        "target": "churned",
        "trust": "unverified",
    }


@pytest.fixture
def task_context(tmp_path: Path) -> dict[str, Any]:
    """What a task is given, as far as the operator reads it, with the XComs that it pushes."""
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id="churn",
        run_id="r",
        task_id="t",
        map_index=-1,
        try_number=1,
        bundle_instance=SimpleNamespace(path=tmp_path),
        xcom_push=lambda key, value: pushed.update({key: value}),
    )
    return {"ti": ti, "dag": SimpleNamespace(fileloc=str(tmp_path / "dag.py")), "dag_run": None, "pushed": pushed}


def test_it_tests_a_foreign_model_on_a_relative_path(churn: dict[str, Any], task_context: dict[str, Any]) -> None:
    operator = EvaluateModelOperator(task_id="t", **churn, tests=[AUC])
    report = operator.execute(task_context)
    assert report["passed"]
    assert report["metrics"]["roc_auc"] > 0.9
    assert report["champion_version"] is None
    assert "/mlops/reports/churn/" in operator.link_urls["report"]


@pytest.mark.parametrize(("fail_on", "severity"), [("error", "error"), ("warning", "warning")])
def test_a_failed_gate_pushes_its_report_first_and_is_not_retried(
    churn: dict[str, Any], task_context: dict[str, Any], fail_on: str, severity: str
) -> None:
    test = {"kind": "metric", "metric": "roc_auc", "min": 0.9999, "severity": severity}
    operator = EvaluateModelOperator(task_id="t", **churn, tests=[test], fail_on=fail_on)
    with pytest.raises(MlopsGateFailed, match=r"roc_auc is 0\.9.*must be ≥ 0\.9999.*Report: "):
        operator.execute(task_context)
    assert task_context["pushed"]["return_value"]["severity"] == severity
    never = EvaluateModelOperator(task_id="t", **churn, tests=[test], fail_on="never")
    assert never.execute(task_context)["severity"] == severity


def test_an_error_of_the_step_is_one_line_and_not_retried(churn: dict[str, Any], task_context: dict[str, Any]) -> None:
    operator = EvaluateModelOperator(task_id="t", **{**churn, "target": "churnd"}, tests=[AUC])
    with pytest.raises(
        MlopsFailed, match="MissingColumnError: the dataset has no target column 'churnd'; did you mean"
    ):
        operator.execute(task_context)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"tests": [{"kind": "metrc"}]}, "test 1: there is no kind 'metrc'; did you mean 'metric'"),
        ({"tests": [{"kind": "metric", "metric": "roc_auc"}]}, "needs 'min' or 'max'"),
        ({"tests": [{"kind": "champion", "metric": "roc_auc"}]}, "needs champion='name@alias'"),
        ({"trust": "blind"}, "trust must be"),
        ({"fail_on": "sometimes"}, "fail_on must be"),
    ],
)
def test_static_mistakes_are_found_while_the_dag_is_parsed(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EvaluateModelOperator(task_id="t", model="models:/churn@candidate", **arguments)


def test_what_is_templated_waits(churn: dict[str, Any], task_context: dict[str, Any]) -> None:
    tests = [{"kind": "metric", "metric": "roc_auc", "min": "{{ params.min_auc }}"}]
    operator = EvaluateModelOperator(task_id="t", **churn, tests=tests)
    operator.render_template_fields({"params": {"min_auc": 0.99999}})  # type: ignore[typeddict-item]
    with pytest.raises(MlopsGateFailed, match=r"must be ≥ 0\.99999"):
        operator.execute(task_context)
    unrendered = EvaluateModelOperator(task_id="t", **churn, tests=tests)
    with pytest.raises(MlopsFailed, match="'min' must be a finite number"):
        unrendered.execute(task_context)


def test_arguments_are_templated_and_collide_with_none_of_airflows() -> None:
    for cls in (EvaluateModelOperator, EvaluateModelDecoratedOperator):
        assert isinstance(cls.template_fields, tuple)
        assert {"model", "dataset", "tests", "champion", "mlflow_conn_id"} <= set(cls.template_fields)
    assert not {*EvaluateModelOperator.step_arguments, "report_name"} & set(dir(BaseOperator))


def decorated(function: Callable[..., Any], *args: Any, options: dict[str, Any], **kwargs: Any) -> Any:
    return evaluate_model_task(function, **options)(*args, **kwargs).operator


def test_the_decorated_function_is_a_test_of_the_model(churn: dict[str, Any], task_context: dict[str, Any]) -> None:
    def calibrated(model: Any, X: Any, y: Any, probabilities: Any, tolerance: float) -> dict[str, Any]:
        assert list(X.columns) == ["age", "income"]
        gap = float(abs(probabilities[:, 1].mean() - y.mean()))
        return {"passed": gap < tolerance, "value": gap, "message": "the rates differ"}

    assert decorated(calibrated, options={**churn, "tests": [AUC]}, tolerance=0.5).execute(task_context)["passed"]
    with pytest.raises(MlopsGateFailed, match="calibrated: the rates differ"):
        decorated(calibrated, options=churn, tolerance=0.0).execute(task_context)


def test_the_decorated_function_may_be_called_with_the_model(
    churn: dict[str, Any], task_context: dict[str, Any]
) -> None:
    def profit(model: Any, X: Any, y: Any) -> dict[str, float]:
        return {"profit": float((model.predict(X) == y).sum())}

    model = churn.pop("model")
    assert decorated(profit, model, options=churn).execute(task_context)["metrics"]["profit"] > 150
    with pytest.raises(TypeError, match="needs the model"):
        decorated(profit, options=churn)
