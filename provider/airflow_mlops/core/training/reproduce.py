"""Training a model again from its record, and saying what differs: data, code, libraries, metrics, predictions.

Nothing is logged or registered: the new model lives as long as the comparison.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.data import dataset as datasets
from airflow_mlops.core.errors import MlopsError, SpecError, UnsupportedError
from airflow_mlops.core.extras import require
from airflow_mlops.core.training import recipes, rows
from airflow_mlops.core.training.predictions import Predictions, predict
from airflow_mlops.core.training.recipe import FunctionRecipe, Made, Task
from airflow_mlops.core.training.step import measure
from airflow_mlops.core.vocabulary import DatasetRef, ModelRef, Report

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.steps import StepContext

#: Metrics that differ by less are the same: the sum of the same numbers in another order.
TOLERANCE = 1e-12


@dataclass
class Differences:
    """What is not as it is on record.

    :param found: ``{"what", "recorded", "now", "fails"}``; ``fails`` where the model is another one by it.
    """

    found: list[dict[str, Any]] = field(default_factory=list)

    def compare(self, what: str, recorded: Any, now: Any, *, fails: bool = False) -> None:
        """Note a difference; what is not on record cannot differ."""
        if recorded is not None and recorded != now:
            self.found.append({"what": what, "recorded": recorded, "now": now, "fails": fails})

    @property
    def failing(self) -> list[dict[str, Any]]:
        """Those by which it is another model."""
        return [one for one in self.found if one["fails"]]


class _Unlogged:
    """Stands in for the MLflow run of a training that is not logged."""

    def log_setup(self, hyperparameters: dict[str, Any], dataset: DatasetRef) -> None:
        """Log nothing."""

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Let the trainer log to nobody's run."""
        yield


def reproduce_model(context: StepContext, *, model: Any, code: str = "recorded") -> dict[str, Any]:
    """Train a model again by the recipe on its record, and compare.

    Data by digest, code, hyperparameters, split and seed are those on record; the libraries are those of this process,
    and where they are others that is said. Metrics must agree to 1e-12, predictions on the test rows bit for bit, or
    also to 1e-12 where the estimator adds its numbers in another order.

    :param model: a model ref or URI, such as ``models:/churn/7``.
    :param code: ``"recorded"``: the code that is kept with the record; ``"imported"``: what this process imports under
        its name, which may be another by now: that is said.
    :return: a report of kind ``reproduction``, with ``differences``.
    :raises UnsupportedError: if it was not trained from a trainer function, or before recipes were put on record.
    :raises SpecError: if its code cannot be imported here.
    """
    require("sklearn", "reproduce_model")
    if code not in ("recorded", "imported"):
        raise SpecError(f"code must be 'recorded' or 'imported', got {code!r}")
    ref = models.resolve(context, model)
    recipe, training = _recipe(ref)
    found = Differences()
    dataset = _dataset(context, training, recipe)
    found.compare("dataset", training["dataset_digest"], dataset.digest)
    with tempfile.TemporaryDirectory(prefix="mlops-reproduce-") as scratch, contextlib.ExitStack() as stack:
        if code == "recorded":
            made_by = stack.enter_context(recipes.opened(context.store, ref, Path(scratch) / "code"))
        else:
            made_by = _trainer(ref, recipe, training)
            found.compare("code", (ref.code or {}).get("digest"), made_by.digest)
            found.compare("commit", (ref.code or {}).get("git_sha"), made_by.code(context).get("git_sha"))
        _compare_environment(found, ref.environment or {})
        for one in found.found:
            context.log.warning("%s: on record %s, here %s", one["what"], one["recorded"], one["now"])
        split = {name: one for name, one in training["split"].items() if name != "cutoff"}
        held_out = ref.test_dataset if split.get("by") == "dataset" else None
        data = rows.read(context.store, dataset, str(ref.target), split, held_out, context.log, recipe["nullable"])
        unlogged: Any = _Unlogged()
        task = Task(context, unlogged, data, dataset, str(ref.target), split, Path(scratch))
        made = made_by.make(task)
        with made.code():
            measured, _ = measure(context, made, recipe["metrics"])
            again = predict(made.predicts, made.data.test.raw)
        before = _recorded_predictions(context, ref, made.data.test.raw, Path(scratch))
    return _report(ref, made, found, measured, before, again)


def _recipe(ref: ModelRef) -> tuple[dict[str, Any], dict[str, Any]]:
    training = ref.training or {}
    recipe = training.get("recipe")
    if not isinstance(recipe, dict) or not recipe.get("dataset"):
        raise UnsupportedError(
            f"{ref.uri} has no recipe on record: it was trained elsewhere, by a command, a notebook or a function of a "
            "DAG file, or by a version of airflow-provider-mlops that kept none. Only a model that TrainModelOperator "
            "makes with an importable trainer= can be made again from its record",
            uri=ref.uri,
        )
    return recipe, training


def _dataset(context: StepContext, training: dict[str, Any], recipe: dict[str, Any]) -> DatasetRef:
    """Return the ref of the data that is on record, with its columns."""
    ref = DatasetRef(
        name=training["dataset_name"],
        uri=training["dataset_uri"],
        digest=training["dataset_digest"],
        format=recipe["dataset"]["format"],
        window=recipe["dataset"]["window"],
        roles=recipe["dataset"]["roles"],
    )
    schema, _ = datasets.read_batches(context.store, ref)
    columns = {one.name: str(one.type) for one in schema}
    return datasets.resolve(context.store, {**ref.to_dict(), "columns": columns})


def _trainer(ref: ModelRef, recipe: dict[str, Any], training: dict[str, Any]) -> FunctionRecipe:
    code = ref.code or {}
    try:
        return FunctionRecipe(
            code["trainer"], code.get("features"), recipe["hyperparameters"], training["seed"], recipe["trust"]
        )
    except (ImportError, SpecError) as error:
        where = f" (commit {code['git_sha']})" if code.get("git_sha") else ""
        raise SpecError(
            f"the code of {ref.uri}{where} cannot be used here: {getattr(error, 'message', error)}. Name the folder "
            "that it is imported from: --code FOLDER"
        ) from error


def _compare_environment(found: Differences, environment: dict[str, Any]) -> None:
    import platform

    found.compare("python", environment.get("python"), platform.python_version())
    for name, version in sorted((environment.get("packages") or {}).items()):
        try:
            now: str | None = metadata.version(name)
        except metadata.PackageNotFoundError:
            now = None
        found.compare(f"package {name}", version, now)


def _recorded_predictions(
    context: StepContext, ref: ModelRef, raw: pandas.DataFrame, scratch: Path
) -> Predictions | None:
    """Return what the model on record predicts; None, and a word in the log, where it cannot be loaded here."""
    from airflow_mlops.core.evaluation import loading

    try:
        copy = loading.fetch(context, ref, scratch / "recorded", "recorded")
        with copy.code():
            return predict(copy.load(), raw)
    except MlopsError as error:
        context.log.warning("the model on record does not predict here: %s", error.message)
        return None


def _report(
    ref: ModelRef,
    made: Made,
    found: Differences,
    measured: dict[str, float | None],
    before: Predictions | None,
    again: Predictions,
) -> dict[str, Any]:
    largest = 0.0
    for name, value in sorted(ref.metrics.items()):
        now = measured.get(name)
        if value is None or now is None:
            found.compare(f"metric {name}", value, now, fails=True)
            continue
        largest = max(largest, abs(value - now))
        if abs(value - now) > TOLERANCE:
            found.compare(f"metric {name}", value, now, fails=True)
    exact, apart = _apart(before, again)
    if before is None:
        found.compare("predictions", "the model on record", "it does not predict here", fails=True)
    elif apart > TOLERANCE:
        found.compare("predictions", "those of the model on record", f"differ by up to {apart:.3g}", fails=True)
    passed = not found.failing
    how = "bit for bit" if exact else f"to {TOLERANCE:g}"
    summary = (
        f"{ref.uri} is reproduced: {len(ref.metrics)} metrics and {len(made.data.test):,} predictions agree {how}."
        if passed
        else f"{ref.uri} is not reproduced: {', '.join(one['what'] for one in found.failing[:5])} differ."
    )
    others = [one["what"] for one in found.found if not one["fails"]]
    if others:
        summary += f" Not as on record: {', '.join(others[:8])}."
    report = Report(
        report="reproduction",
        passed=passed,
        severity="ok" if not found.found else "warning" if passed else "error",
        summary=summary,
        metrics={"max_metric_difference": largest, "max_prediction_difference": apart, "bit_for_bit": exact},
        checks={"total": len(ref.metrics) + 1, "failed": len(found.failing)},
        subject=ref.digest,
    )
    return {**report.to_dict(), "differences": found.found}


def _apart(before: Predictions | None, again: Predictions) -> tuple[bool, float]:
    """Return whether predictions are the same bit for bit, and by how much they differ at most."""
    import numpy as np

    if before is None:
        return False, float("inf")
    if before.probabilities is not None and again.probabilities is not None:
        one, other = np.asarray(before.probabilities, "float64"), np.asarray(again.probabilities, "float64")
    elif np.asarray(again.labels).dtype.kind == "f":
        one, other = np.asarray(before.labels, "float64"), np.asarray(again.labels, "float64")
    else:
        same = np.array_equal(np.asarray(before.labels), np.asarray(again.labels))
        return same, 0.0 if same else float("inf")
    if one.shape != other.shape:
        return False, float("inf")
    return bool(np.array_equal(one, other)), float(np.max(np.abs(one - other), initial=0.0))
