"""Checks of a model server before any traffic: its own address, no gateway in between."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import CannotReachError, MlopsError, NotFoundError
from airflow_mlops.core.serving import offline
from airflow_mlops.core.serving.client import ServerClient
from airflow_mlops.core.serving.state import Deployment
from airflow_mlops.core.vocabulary import ModelRef

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.steps import StepContext

#: Rows of the held-out data that stand in for a model's own input example.
ROWS = 20
#: Requests before any that are timed.
WARM_UP = 5


def run(context: StepContext, deployment: Deployment, address: str, copy: Path) -> list[dict[str, Any]]:
    """Run a deployment's checks and return what each found: ``{"kind", "passed", "message", "value"}``.

    A check that cannot be made, because nobody knows what to ask the model, passes and says so.

    :param copy: the model's verified files.
    """
    wanted = deployment.intent["checks"]
    if not wanted:
        return []
    asked = offline.run(copy, rows=None)
    if not asked.get("body") and not asked.get("error"):
        rows = held_out(context, deployment.model)
        asked = offline.run(copy, rows=rows) if rows is not None else asked
    found = []
    with ServerClient(address) as client:
        for spec in wanted:
            gone = False
            try:
                passed, message, value = _KINDS[spec["kind"]](client, spec, asked)
            except MlopsError as error:
                passed, message, value = False, error.message, None
                gone = isinstance(error, CannotReachError)
            found.append({**spec, "passed": passed, "message": message, "value": value, "reached": not gone})
            context.log.info("check %s: %s", spec["kind"], message)
            if gone:
                break  # the others would only wait for it
    return found


def held_out(context: StepContext, model: dict[str, Any]) -> pandas.DataFrame | None:
    """Return some rows that the model was not trained on, if they are in the store."""
    known = models.recorded(context, ModelRef.from_dict({**model, "kind": "model"})) or {}
    dataset = (known.get("ref") or {}).get("test_dataset") or {}
    key = context.store.key_of(str(dataset.get("uri") or "")) if dataset.get("format") == "parquet" else None
    if key is None:
        return None
    import pyarrow.parquet

    try:
        with context.store.open_input(key) as file:
            batch = next(pyarrow.parquet.ParquetFile(file).iter_batches(ROWS), None)
    except NotFoundError:
        return None
    return None if batch is None else batch.to_pandas()


def _example(client: ServerClient, spec: dict[str, Any], asked: dict[str, Any]) -> tuple[bool, str, Any]:
    if not asked.get("body"):
        return True, f"not made: {_why(asked)}", None
    predictions, _ = client.invoke(asked["body"].encode())
    count = len(predictions) if isinstance(predictions, (list, dict)) else 1
    return True, f"it answers its own example with {count} prediction{'s' if count != 1 else ''}", count


def _offline(client: ServerClient, spec: dict[str, Any], asked: dict[str, Any]) -> tuple[bool, str, Any]:
    if not asked.get("body"):
        return True, f"not made: {_why(asked)}", None
    predictions, _ = client.invoke(asked["body"].encode())
    wrong = offline.disagreeing(predictions, asked["predictions"], float(spec["tolerance"]))
    if wrong:
        message = (
            f"{len(wrong)} of {len(asked['predictions'])} predictions differ from those that the same files give "
            "without a server: it serves another model, or other versions of the libraries"
        )
        return False, message, len(wrong)
    return True, "its predictions are those that the same files give without a server", 0


def _latency(client: ServerClient, spec: dict[str, Any], asked: dict[str, Any]) -> tuple[bool, str, Any]:
    body = asked["body"].encode() if asked.get("body") else None
    taken = []
    for number in range(WARM_UP + int(spec["requests"])):
        seconds = client.invoke(body)[1] if body else client.call("/ping")[2]
        if number >= WARM_UP:
            taken.append(seconds * 1000)
    taken.sort()
    p95 = round(taken[-(-95 * len(taken) // 100) - 1], 2)
    what = "requests" if body else "calls of /ping (nobody knows what to ask it)"
    passed = p95 <= spec["p95_ms"]
    return passed, f"p95 of {len(taken)} {what} is {p95:g} ms, at most {spec['p95_ms']:g} are allowed", p95


def _why(asked: dict[str, Any]) -> str:
    if asked.get("error"):
        return f"the model does not predict on this machine without a server ({asked['error']})"
    return "the model has no input example, and no held-out rows of it are in the store"


_KINDS = {"example": _example, "offline": _offline, "latency": _latency}
