"""Tests of whether a model can be served: signature, a fresh process, contract, latency, throughput, memory, size."""

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
    """Test that the verified copy loads in a fresh process, predicts an example, and answers as MLflow serves it."""
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
    unserved = _unserved(found)
    if unserved:
        message = f"Loads in a fresh process, but behind MLflow's scoring server {unserved} for {what}"
        return [outcome(spec, False, message, value=seconds)]
    message = f"Loads in {text(seconds)} s in a fresh process, predicts {what}, and does so as MLflow serves it"
    return [outcome(spec, True, message, value=seconds)]


def _unserved(found: dict[str, Any]) -> str | None:
    """Return what the scoring server did wrong, or None."""
    server = found["server"]
    if "error" in server:
        return f"there is no answer: {server['error']}"
    if server["ping"] != 200:
        return f"/ping answers with status {server['ping']}"
    if server["invocations"] != 200:
        return f"/invocations answers with status {server['invocations']}"
    if server["predictions"] not in (None, found["rows"]):
        return f"/invocations answers with {server['predictions']} predictions of {found['rows']} rows"
    return None


def contract_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the served model refuses missing and wrong-typed columns, and takes no notice of one more."""
    found = _measured(evidence, "contract")
    if "checked" not in found:
        why = found.get("reason") or found["error"]
        return [outcome(spec, False, f"The input contract cannot be tested: {why}")]
    broken = found["broken"]
    if broken:
        said = "; ".join(
            f"{one['column']} {one['what']} (status {one['status']})" if one["column"] else one["what"]
            for one in broken[:5]
        )
        message = f"Of {found['checked']} inputs {len(broken)} are not treated as the signature says: {said}"
        return [outcome(spec, False, message, value=len(broken))]
    message = (
        f"The served model keeps to its signature on {found['checked']} inputs: missing and wrong-typed columns are "
        "refused, one more is ignored"
    )
    return [outcome(spec, True, message, value=0)]


def latency_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test percentiles of single rows' latency, of the model's own predict or of requests to the scoring server."""
    held = {key: spec[f"{key}_ms"] for key in ("p95", "p99", "p50") if f"{key}_ms" in spec}
    threshold = " and ".join(f"{key} ≤ {limit:g} ms" for key, limit in held.items())
    found = _measured(evidence, "http" if spec["over"] == "http" else "latency")
    if "error" in found:
        return [outcome(spec, False, f"Not measured: {found['error']}", threshold=threshold)]
    first = next(iter(held))
    passed = all(found[f"{key}_ms"] <= limit for key, limit in held.items())
    what = "requests of one row to MLflow's scoring server" if spec["over"] == "http" else "single-row predictions"
    message = f"Of {found['calls']} {what} p50 is {text(found['p50_ms'])} ms, p95 {text(found['p95_ms'])} ms, p99 "
    message += f"{text(found['p99_ms'])} ms" + ("" if passed else f", must be {threshold}")
    return [outcome(spec, passed, message, value=found[f"{first}_ms"], threshold=threshold)]


def throughput_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test how many rows a second the model predicts in batches, and how many requests a second are answered."""
    outcomes = []
    for key, name, what in (
        ("min_rows_per_second", "throughput", "rows a second in batches of {batch:,}"),
        ("min_requests_per_second", "requests", "requests of one row a second, with {clients} clients at once"),
    ):
        if key not in spec:
            continue
        found, threshold = _measured(evidence, name), f"≥ {spec[key]:g} a second"
        if "error" in found:
            outcomes.append(outcome(spec, False, f"Not measured: {found['error']}", threshold=threshold))
            continue
        value = found[key.removeprefix("min_")]
        passed = value >= spec[key]
        message = f"{text(value)} {what.format(**found)}" + ("" if passed else f", must be {threshold}")
        outcomes.append(outcome(spec, passed, message, value=value, threshold=threshold))
    return outcomes


def memory_test(evidence: Evidence, spec: dict[str, Any]) -> list[Outcome]:
    """Test that the fresh process, Python and its libraries with it, stays under the limit at its peak."""
    found, threshold = _measured(evidence, "memory"), f"≤ {spec['max_mb']:g} MB"
    if "error" in found:
        return [outcome(spec, False, f"Not measured: {found['error']}", threshold=threshold)]
    peak = found["peak_mb"]
    passed = peak <= spec["max_mb"]
    message = f"The process that serves the model took {text(peak)} MB at its peak"
    message += "" if passed else f", must be {threshold}"
    return [outcome(spec, passed, message, value=peak, threshold=threshold)]


def _measured(evidence: Evidence, name: str) -> dict[str, Any]:
    """Return what the fresh process measured, or an ``error``: why it did not."""
    found = _fresh(evidence)
    measured: dict[str, Any] | None = found.get(name)
    if measured is not None:
        return measured
    server = found.get("server")
    why = found.get("error") or (_unserved(found) if server else None)
    return {"error": why or ("there was no input to predict" if not found.get("example") else "it cannot be read")}


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
        measure=_wanted(evidence.specs),
        batch=max([s["batch"] for s in evidence.specs if s["kind"] == "throughput"] or [1]),
        timeout=max([s["timeout"] for s in evidence.specs if s["kind"] == "load"] or [LOAD_SECONDS]),
        scratch=scratch,
    )
    evidence.infrastructure["process"] = found
    return found


def _wanted(specs: list[dict[str, Any]]) -> set[str]:
    """Return what the fresh process has to find out for some tests."""
    wanted = set()
    for spec in specs:
        if spec["kind"] == "load":
            wanted.add("server")
        elif spec["kind"] == "contract":
            wanted.add("contract")
        elif spec["kind"] == "latency":
            wanted.add("http" if spec["over"] == "http" else "latency")
        elif spec["kind"] == "throughput":
            wanted |= {"throughput"} if "min_rows_per_second" in spec else set()
            wanted |= {"requests"} if "min_requests_per_second" in spec else set()
    return wanted
