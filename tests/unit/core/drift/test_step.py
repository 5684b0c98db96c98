"""Comparing two datasets: the report, its details, and data as it should not be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_mlops.core.drift.step import detect_drift
from airflow_mlops.core.errors import CorruptDataError, EmptyDataError, MissingColumnError, SpecError, UnsupportedError
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.store import LocalStore


class Bench:
    """Two files and a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = StepContext(store=LocalStore(folder / "store"), key="etl/run/drift/-1", run={"dag_id": "etl"})

    def write(self, name: str, columns: dict[str, Any]) -> str:
        path = self.folder / f"{name}.parquet"
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, path)
        return str(path)

    def run(self, reference: dict[str, Any], current: dict[str, Any], **more: Any) -> tuple[dict[str, Any], Any]:
        report = detect_drift(
            self.context, reference=self.write("reference", reference), current=self.write("current", current), **more
        )
        return report, self.details(report)

    def details(self, report: dict[str, Any]) -> Any:
        return json.loads(self.context.store.get_bytes(str(self.context.store.key_of(report["details_uri"]))))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def column(details: Any, name: str) -> dict[str, Any]:
    return next(one for one in details["columns"] if one["name"] == name)


RANDOM = np.random.default_rng(3)


def test_report_of_drift(bench: Bench) -> None:
    reference = {"a": RANDOM.normal(size=3000), "b": RANDOM.normal(size=3000), "c": ["x", "y", "z"] * 1000}
    current = {"a": RANDOM.normal(2, 1, size=2000), "b": RANDOM.normal(size=2000), "c": ["x", "w"] * 1000}
    report, details = bench.run(reference, current, subject="churn:7")
    assert report["kind"] == "drift"
    assert report["subject"] == "churn:7"
    assert (report["passed"], report["severity"]) == (False, "warning")
    assert report["metrics"]["drift_share"] == pytest.approx(2 / 3)
    assert report["summary"].startswith("current has drifted from reference: 2 of 3 columns")
    assert set(column(details, "a")) >= {"name", "kind", "test", "score", "threshold", "drifted", "bound", "skipped"}
    assert column(details, "a")["test"] == "wasserstein"
    assert column(details, "b")["drifted"] is False
    assert {one["kind"] for one in details["findings"]} == {"new_categories", "vanished_categories"}
    page = bench.context.store.get_bytes(str(bench.context.store.key_of(report["report_uri"]))).decode()
    assert "Drifted: 2" in page
    for text in (page, json.dumps(details), json.dumps(report)):
        assert ">w<" not in text
        assert '"w"' not in text


def test_values_only_when_asked_for_and_not_private(bench: Bench) -> None:
    sides = ({"c": ["x", "y"] * 100, "d": ["x", "y"] * 100}, {"c": ["x", "w"] * 100, "d": ["x", "v"] * 100})
    _, details = bench.run(*sides, show_values=True, roles={"private": "d"})
    assert [one.get("examples") for one in details["findings"]] == [["w"], ["y"], None, None]


def test_every_type_is_compared_or_has_a_reason(bench: Bench) -> None:
    values = list(range(100))
    table = {
        "int8": pa.array(values, pa.int8()),
        "uint8": pa.array(values, pa.uint8()),
        "int64": pa.array([*values[:-1], None], pa.int64()),
        "uint64": pa.array(values, pa.uint64()),
        "half": pa.array(np.array(values, dtype="float16")),
        "float": pa.array(values, pa.float32()),
        "decimal": pa.array(values, pa.int64()).cast(pa.decimal128(20, 0)),
        "bool": pa.array([v % 2 == 0 for v in values]),
        "text": pa.array([str(v % 5) for v in values]),
        "large": pa.array([str(v % 5) for v in values], pa.large_string()),
        "dictionary": pa.array([str(v % 5) for v in values]).dictionary_encode(),
        "time": pa.array(values, pa.time32("s")),
        "duration": pa.array(values, pa.duration("us")),
        "date": pa.array(values, pa.date32()),
        "timestamp": pa.array(values, pa.timestamp("us", "UTC")),
        "binary": pa.array([b"x"] * 100),
        "list": pa.array([[1]] * 100),
        "null": pa.nulls(100),
    }
    _, details = bench.run(table, table)
    assert [one["name"] for one in details["columns"]] == list(table)
    skipped = {one["name"]: one["skipped"] for one in details["columns"] if one["skipped"]}
    assert list(skipped) == ["date", "timestamp", "binary", "list", "null"]
    assert all(one["score"] is not None and not one["drifted"] for one in details["columns"] if not one["skipped"])
    _, details = bench.run(table, table, columns=["date", "timestamp"])
    assert [one["kind"] for one in details["columns"]] == ["numeric", "numeric"]


def test_columns_that_changed_are_findings(bench: Bench) -> None:
    reference = {"same": [1.0] * 50, "amount": [1.0] * 50, "kind": [1.0] * 50, "gone": [1.0] * 50}
    current = {"same": [1.0] * 50, "Amount": [1.0] * 50, "kind": ["a"] * 50, "gone": pa.nulls(50, pa.float64())}
    report, details = bench.run(reference, current)
    assert (report["passed"], report["severity"]) == (False, "error")
    told = {one["column"]: one["message"] for one in details["findings"]}
    assert "did you mean 'Amount'" in told["amount"]
    assert "has changed from double to string" in told["kind"]
    assert "no values in the current data" in told["gone"]
    assert "new" in told["Amount"]


def test_time_zone_lost_is_a_change(bench: Bench) -> None:
    times = [1_000_000 * n for n in range(100)]
    with_zone, without = pa.array(times, pa.timestamp("us", "Europe/Berlin")), pa.array(times, pa.timestamp("us"))
    report, _ = bench.run({"t": with_zone}, {"t": without}, columns=["t"])
    assert report["severity"] == "error"
    other = pa.array(times, pa.timestamp("us", "UTC"))
    report, _ = bench.run({"t": with_zone}, {"t": other}, columns=["t"])
    assert report["passed"]


def test_no_rows(bench: Bench) -> None:
    some, none = {"a": [1.0, 2.0] * 50}, {"a": pa.array([], pa.float64())}
    report, _ = bench.run(some, none)
    assert (report["passed"], report["severity"]) == (False, "error")
    assert "has no rows" in report["summary"]
    with pytest.raises(EmptyDataError, match="reference"):
        bench.run(none, some)


def test_one_row_is_not_drift(bench: Bench) -> None:
    report, details = bench.run({"a": np.arange(2000.0)}, {"a": [5000.0]})
    assert (report["passed"], report["severity"]) == (True, "warning")
    assert "too few" in column(details, "a")["skipped"]
    assert "could be compared with" in report["summary"]
    assert "1 values in the current data are too few to tell (min_rows=30)" in report["summary"], "it says why"
    page = bench.context.store.get_bytes(str(bench.context.store.key_of(report["report_uri"]))).decode()
    assert "Cannot tell" in page
    assert "No drift" not in page


def test_missing_values_are_a_finding_of_their_own(bench: Bench) -> None:
    full = RANDOM.normal(size=2000)
    some = pa.array(full, mask=RANDOM.random(2000) < 0.12)
    report, details = bench.run({"a": full}, {"a": some})
    assert (report["passed"], report["severity"]) == (True, "warning")
    assert details["findings"][0]["kind"] == "missing"
    none = pa.array(full, mask=RANDOM.random(2000) < 0.4)
    assert bench.run({"a": full}, {"a": none})[0]["severity"] == "error"


def test_roles_stay_out(bench: Bench) -> None:
    data = {"id": list(range(100)), "day": list(range(100)), "x": [1.0] * 100}
    _, details = bench.run(data, data, roles={"key": "id", "time": "day"})
    assert [one["name"] for one in details["columns"] if not one["skipped"]] == ["x"]


def test_window(bench: Bench) -> None:
    days = pa.array(range(100), pa.date32())
    data = {"day": days, "x": [0.0] * 50 + [1.0] * 50}
    window = {"start": "1970-02-20", "end": "1970-04-11"}
    report, details = bench.run(
        data, data, roles={"time": "day"}, window=window, reference_window={"end": "1970-02-20", "length": "50d"}
    )
    assert details["rows"] == {"reference": 50, "current": 50}
    assert column(details, "x")["drifted"]
    assert report["window"] == window
    with pytest.raises(SpecError, match="time"):
        bench.run(data, data, window=window)


def test_own_tests_and_thresholds(bench: Bench) -> None:
    sides = {"a": RANDOM.normal(size=500), "b": ["x", "y"] * 250}, {"a": RANDOM.normal(1, size=500), "b": ["x"] * 500}
    _, details = bench.run(*sides, columns={"a": {"test": "psi", "threshold": 99}, "b": {"test": "tvd"}})
    assert [(one["test"], one["threshold"], one["drifted"]) for one in details["columns"]] == [
        ("psi", 99, False),
        ("tvd", 0.1, True),
    ]
    _, details = bench.run(*sides, method="jensenshannon", thresholds={"a": 0.9})
    assert [(one["test"], one["threshold"]) for one in details["columns"]] == [
        ("jensenshannon", 0.9),
        ("jensenshannon", 0.1),
    ]


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"method": "kolmogorov"}, "no drift test"),
        ({"columns": {"a": {"tests": "psi"}}}, "did you mean 'test'"),
        ({"columns": {"a": {"test": "chisquare"}}}, "not defined"),
        ({"columns": {"b": {"kind": "numeric"}}}, "text"),
        ({"columns": {"a": {"threshold": "high"}}}, "number"),
        ({"thresholds": "learned"}, "thresholds"),
        ({"drift_share": 0}, "drift_share"),
        ({"min_rows": 0}, "min_rows"),
    ],
)
def test_wrong_arguments(bench: Bench, more: dict[str, Any], match: str) -> None:
    data = {"a": [1.0] * 50, "b": ["x"] * 50}
    with pytest.raises(SpecError, match=match):
        bench.run(data, data, **more)


def test_a_named_column_must_be_in_the_reference(bench: Bench) -> None:
    data = {"amount": [1.0] * 50}
    with pytest.raises(MissingColumnError, match="did you mean 'amount'"):
        bench.run(data, data, columns=["amout"])


def test_again_ends_with_one_report(bench: Bench) -> None:
    data = {"a": RANDOM.normal(size=500)}
    first, _ = bench.run(data, data, subject="s")
    second, _ = bench.run(data, data, subject="s")
    assert first["report_uri"] == second["report_uri"]
    assert len([key for key in bench.context.store.keys("reports") if key.endswith("details.json")]) == 1


def test_evidentlys_own_page(bench: Bench) -> None:
    reference = {
        "a": RANDOM.normal(size=300),
        "b": pa.array([1, None, 3] * 100, pa.int64()),
        "c": ["x", "y", "z"] * 100,
    }
    report, _ = bench.run(reference, {**reference, "a": RANDOM.normal(5, 1, size=300)}, report="drifted")
    html = bench.context.store.get_bytes(str(bench.context.store.key_of(report["evidently_uri"])))
    assert b"<html" in html[:2000].lower()
    assert "evidently_uri" not in bench.run(reference, reference, report="drifted")[0]


def test_a_corrupt_file_among_many_is_named_and_a_table_format_refused(bench: Bench) -> None:
    good = bench.write("good", {"a": [1.0] * 50})
    many = bench.folder / "many"
    many.mkdir()
    for number in range(100):
        pq.write_table(pa.table({"a": [float(number)] * 50}), many / f"{number:03}.parquet")
    data = (many / "042.parquet").read_bytes()
    (many / "042.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptDataError, match=r"042\.parquet"):
        detect_drift(bench.context, reference=good, current=str(many))
    (many / "_delta_log").mkdir()
    with pytest.raises(UnsupportedError, match="Delta Lake"):
        detect_drift(bench.context, reference=good, current=str(many))


def test_infinities_are_missing(bench: Bench) -> None:
    values = RANDOM.normal(size=500)
    _, details = bench.run({"a": values}, {"a": [*values[:490], *[float("inf"), float("-inf")] * 5]})
    assert column(details, "a")["current"]["infinite"] == 10
    assert column(details, "a")["drifted"] is False
