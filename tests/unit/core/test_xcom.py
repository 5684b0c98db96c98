"""What goes to XCom fits, keeps what the next task needs, and says what was cut."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import DatasetRef, ModelRef, Report
from airflow_mlops.core.xcom import KEPT, XCOM_LIMIT, fit_xcom


def dataset(columns: int) -> dict[str, Any]:
    return DatasetRef(
        name="d", uri="file:///d", digest="sha256:0", columns={f"spalte_ä_{n}" * 15: "double" for n in range(columns)}
    ).to_dict()


def test_what_fits_is_left_alone() -> None:
    value = dataset(3)
    assert fit_xcom(value) == value


def test_the_worst_failures_stay_and_the_least_bad_go() -> None:
    failures = [{"column": f"c{n}", "message": "x" * 2000} for n in range(60)]
    value = Report(report="validation", passed=False, severity="error", summary="s", failures=failures).to_dict()
    fitted = fit_xcom(value)
    assert len(json.dumps(fitted)) <= XCOM_LIMIT
    kept = [failure["column"] for failure in fitted["failures"]]
    assert kept == [f"c{n}" for n in range(len(kept))]
    assert len(kept) > 20
    assert fitted["trimmed"] == ["failures"]


def test_columns_of_a_nested_ref_go_before_its_identity() -> None:
    value = ModelRef(uri="models:/m-1", test_dataset=dataset(100), metrics={"auc": 0.7}).to_dict()
    before = copy.deepcopy(value)
    fitted = fit_xcom(value)
    assert fitted["test_dataset"]["columns"] is None
    assert {k: v for k, v in fitted["test_dataset"].items() if k != "columns"} == {
        k: v for k, v in before["test_dataset"].items() if k != "columns"
    }
    assert fitted["metrics"] == {"auc": 0.7}
    assert fitted["trimmed"] == ["test_dataset.columns"]
    assert value == before, "the caller's dict is not changed"


def test_a_model_with_an_endless_environment_does_not_fail_the_task_that_trained_it() -> None:
    value = ModelRef(
        uri="models:/m-1",
        run_id="r",
        environment={"requirements": [f"library-{n}==1.2.3" for n in range(5000)], "python": "3.11"},
    ).to_dict()
    fitted = fit_xcom(value)
    assert len(json.dumps(fitted)) <= XCOM_LIMIT
    assert fitted["environment"] == {"requirements": [], "python": "3.11"}
    assert (fitted["uri"], fitted["run_id"]) == ("models:/m-1", "r")
    assert fitted["trimmed"] == ["environment.requirements"]


def test_a_summary_is_cut_but_stays_text() -> None:
    value = Report(report="drift", passed=True, severity="ok", summary="é" * 50_000).to_dict()
    assert fit_xcom(value)["summary"] == "é" * 300 + "…"


def test_non_ascii_text_counts_as_airflow_writes_it() -> None:
    value = {"kind": "dataset", "columns": {f"ä{n}" * 10: "é" for n in range(200)}}
    assert len(json.dumps(value, ensure_ascii=False).encode()) < XCOM_LIMIT < len(json.dumps(value))
    assert len(json.dumps(fit_xcom(value))) <= XCOM_LIMIT


def test_what_must_be_kept_and_is_too_large_is_an_error() -> None:
    with pytest.raises(SpecError, match="after trimming"):
        fit_xcom({"kind": "dataset", "uri": "x" * 20_000})


NAMES = st.sampled_from(["summary", "failures", "columns", "metrics", "training", "environment", "a.b", "x", "code"])
LEAF = st.none() | st.integers() | st.floats() | st.text(max_size=20) | st.just("é" * 3000) | st.just("w" * 9000)
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=25
)
REF = st.dictionaries(NAMES, VALUE, max_size=8).map(lambda d: {"kind": "dataset", "name": "n", "uri": "u", **d})


@settings(max_examples=150)
@given(st.dictionaries(NAMES, VALUE, max_size=9), REF)
def test_it_always_fits_and_always_keeps_what_identifies(fields: dict[str, Any], ref: dict[str, Any]) -> None:
    value = {"schema": 1, "kind": "model", "name": "é" * 100, "uri": "models:/m-1", **fields, "test_dataset": ref}
    fitted = fit_xcom(value)
    assert len(json.dumps(fitted)) <= XCOM_LIMIT
    assert {k: fitted[k] for k in KEPT & set(value)} == {k: value[k] for k in KEPT & set(value)}
    assert fitted["test_dataset"]["uri"] == "u"
