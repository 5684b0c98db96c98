"""Tests of whether a model can be served: signature, a fresh process, latency, size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core.evaluation import fresh
from airflow_mlops.core.evaluation.kinds import LOAD_SECONDS
from airflow_mlops.core.evaluation.loading import features
from airflow_mlops.core.evaluation.outcome import Outcome, outcome
from airflow_mlops.core.reports import figure as text
from airflow_mlops.core.training.predictions import widened

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.evaluation.evidence import Evidence

#: Rows of the dataset that stand in for an input example.
EXAMPLE_ROWS = 5


def signature_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the dataset has the columns of the model's signature, in types that MLflow accepts for them."""
    copy, frame = evidence.challenger.copy, evidence.frame
    schema = copy.metadata.get_input_schema()
    if schema is None:
        message = (
            "The model has no signature, so nothing says what it takes: log it with signature=infer_signature(X, y)"
        )
        return [outcome(spec, False, message)]
    if not schema.has_input_names():
        message = "The signature names no columns; the dataset's columns were taken in their order"
        return [outcome(spec, True, message)]
    columns = {str(column): frame[column] for column in frame.columns}
    missing = [name for name in schema.required_input_names() if name not in columns]
    wrong = [
        f"{one.name} is {columns[one.name].dtype}, must be {one.type.name if hasattr(one.type, 'name') else one.type}"
        for one in schema.inputs
        if one.name in columns and not accepts(getattr(one.type, "name", ""), columns[one.name])
    ]
    gaps = [
        one.name
        for one in schema.inputs
        if getattr(one.type, "name", "") in ("integer", "long")
        and one.name in columns
        and columns[one.name].dtype.kind == "f"
        and columns[one.name].isna().any()
    ]
    extra = [name for name in columns if name not in schema.input_names() and name not in evidence.not_features]
    evidence.infrastructure["signature"] = {"missing": missing, "wrong": wrong, "extra": extra}
    parts = [f"missing {', '.join(missing[:10])}"] if missing else []
    parts += [f"wrong type: {'; '.join(wrong[:10])}"] if wrong else []
    parts += [f"train with nullable={gaps[:10]!r} if these whole numbers may be missing"] if gaps else []
    beside = f"; {len(extra)} more columns are not used by the model: {', '.join(extra[:10])}" if extra else ""
    if parts:
        return [outcome(spec, False, f"The dataset does not have the model's signature: {'; '.join(parts)}{beside}")]
    count = len(schema.input_names())
    return [outcome(spec, True, f"The dataset has all {count} columns of the signature{beside}")]


def accepts(wanted: str, column: pandas.Series) -> bool:
    """Return whether MLflow takes a column for a type of a signature without losing values.

    Integers go for floats, never the other way (which is what a missing value makes of an integer column).

    :param wanted: name of MLflow's type: ``long``, ``double``, ``string``...; others are not judged.
    """
    import pandas

    types = pandas.api.types
    if isinstance(column.dtype, pandas.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if wanted in ("integer", "long"):
        return bool(types.is_integer_dtype(column))
    if wanted in ("float", "double"):
        return bool(types.is_numeric_dtype(column) and not types.is_bool_dtype(column))
    if wanted == "boolean":
        return bool(types.is_bool_dtype(column))
    if wanted == "datetime":
        return bool(types.is_datetime64_any_dtype(column))
    if wanted == "string":
        return bool(types.is_string_dtype(column) or column.isna().all())
    return True


def load_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the verified copy loads in a fresh process and predicts its own input example, with finite results."""
    found = _fresh(evidence)
    if found["stage"] == "load":
        advice = ""
        if "ModuleNotFoundError" in found["error"]:
            advice = "; log the model with code_paths=[...] or install what it needs where it is served"
        return [outcome(spec, False, f"The model does not load in a fresh process: {found['error']}{advice}")]
    seconds = found.get("load_seconds")
    if found["stage"] == "example":
        which = "its own input example" if found.get("example") != "dataset" else "rows of the dataset"
        return [outcome(spec, False, f"In a fresh process it cannot predict {which}: {found['error']}", value=seconds)]
    if found["example"] is None:
        message = "It loads in a fresh process, but has no input example, and the dataset lacks columns that it takes"
        return [outcome(spec, False, message, value=seconds)]
    what = "its own input example" if found["example"] == "own" else "rows of the dataset (it has no input example)"
    if not found["finite"]:
        return [outcome(spec, False, f"In a fresh process it predicts NaN or null for {what}", value=seconds)]
    return [outcome(spec, True, f"Loads in {text(seconds)} s in a fresh process and predicts {what}", value=seconds)]


def latency_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the 95th percentile of single-row predictions in the fresh process stays under the limit."""
    found = _fresh(evidence)
    threshold = f"≤ {spec['p95_ms']:g} ms"
    latency = found.get("latency")
    if not latency:
        message = f"Not measured: {found.get('error', 'the model predicted nothing')}"
        return [outcome(spec, False, message, threshold=threshold)]
    p95 = latency["p95_ms"]
    message = (
        f"p95 of {latency['calls']} single-row predictions is {text(p95)} ms (median {text(latency['p50_ms'])} ms)"
    )
    passed = p95 <= spec["p95_ms"]
    return [
        outcome(spec, passed, message + ("" if passed else f", must be {threshold}"), value=p95, threshold=threshold)
    ]


def size_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the model's files together stay under the limit, in megabytes of 10^6 bytes."""
    megabytes = round(evidence.challenger.copy.bytes / 1e6, 3)
    threshold = f"≤ {spec['max_mb']:g} MB"
    passed = megabytes <= spec["max_mb"]
    message = f"The model's files are {text(megabytes)} MB" + ("" if passed else f", must be {threshold}")
    return [outcome(spec, passed, message, value=megabytes, threshold=threshold)]


def _fresh(evidence: Evidence) -> dict[str, Any]:
    """Return what the fresh process found; it runs once for all tests that ask."""
    if "process" in evidence.infrastructure:
        found: dict[str, Any] = evidence.infrastructure["process"]
        return found
    evidence.context.log.info("loading the model in a fresh process")
    try:
        copy = evidence.challenger.copy
        rows = features(copy, evidence.frame.head(EXAMPLE_ROWS), evidence.not_features)
        rows = widened(rows, copy.metadata.get_input_schema())
    except Exception:
        rows = None
    scratch = evidence.scratch / "fresh"
    scratch.mkdir()
    found = fresh.run(
        evidence.challenger.copy.folder,
        rows=rows,
        latency=any(spec["kind"] == "latency" for spec in evidence.specs),
        timeout=max([s["timeout"] for s in evidence.specs if s["kind"] == "load"] or [LOAD_SECONDS]),
        scratch=scratch,
    )
    evidence.infrastructure["process"] = found
    return found
