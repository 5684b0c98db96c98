"""What a model predicts without any server, in a process of its own: ``python -m ... JOB.json``.

The job is ``{"model", "rows", "result"}``; ``rows`` is a Parquet file, or null for the model's own input example. The
result is ``{"body", "predictions"}``, the request that a server takes and the answer that it must give, or
``{"error"}``. The process ends when its standard input closes.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.evaluation.outcome import without_values

if TYPE_CHECKING:
    import pandas

#: Seconds that loading and predicting may take.
TIMEOUT = 300.0


def run(model: Path, rows: pandas.DataFrame | None = None, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Predict in a fresh process and return its result.

    :param model: a verified copy.
    :param rows: what to predict; None: the model's own input example.
    """
    from airflow_mlops.core.evaluation import fresh

    with tempfile.TemporaryDirectory(prefix="mlops-offline-") as folder:
        return fresh.answer("airflow_mlops.core.serving.offline", {"model": str(model)}, rows, Path(folder), timeout)


def main(file: str) -> None:
    """Run the job of a file."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    columns: list[str] = []
    try:
        result = _predicted(job, columns)
    except Exception as error:
        told = without_values(error, columns) if columns else f"{type(error).__name__}: {error}"
        result = {"error": " ".join(told.split())[:300]}
    temporary = Path(job["result"] + ".tmp")
    temporary.write_text(json.dumps(result), encoding="utf-8")
    os.replace(temporary, job["result"])


def _predicted(job: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.pyfunc.scoring_server import predictions_to_json

    model = mlflow.pyfunc.load_model(job["model"])
    if job["rows"] is None:
        example = model.metadata.load_input_example(job["model"])
        body = model.metadata.get_serving_input(job["model"])
        if example is None or body is None:
            return {"body": None, "predictions": None}
    else:
        example = pd.read_parquet(job["rows"])
        schema = model.metadata.get_input_schema()
        if schema is not None and schema.has_input_names():
            example = example[[name for name in schema.input_names() if name in example.columns]]
        body = json.dumps({"dataframe_split": json.loads(example.to_json(orient="split", date_format="iso"))})
    columns += [str(name) for name in getattr(example, "columns", [])]
    answer = io.StringIO()
    predictions_to_json(model.predict(example), answer)
    return {"body": body, "predictions": json.loads(answer.getvalue())["predictions"]}


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(3)


def disagreeing(one: Any, other: Any, tolerance: float) -> list[int]:
    """Return the positions at which two lists of predictions differ; all of them if their lengths do.

    :param tolerance: numbers that are this close, relative to the larger one or absolutely, are equal.
    """
    if not isinstance(one, list) or not isinstance(other, list):
        return [] if _equal(one, other, tolerance) else [0]
    if len(one) != len(other):
        return list(range(max(len(one), len(other))))
    return [n for n, (a, b) in enumerate(zip(one, other, strict=True)) if not _equal(a, b, tolerance)]


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_equal(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance) or (one != one and other != other)
    return bool(one == other)


if __name__ == "__main__":
    main(sys.argv[1])
