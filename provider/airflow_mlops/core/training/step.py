"""Training a model: read, split, fit, measure, log to MLflow, put on record."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests, models
from airflow_mlops.core.data import dataset as datasets
from airflow_mlops.core.errors import SpecError, UnsupportedError
from airflow_mlops.core.extras import require
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.imports import load, source_root
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.training import fitting, packaging, provenance, rows
from airflow_mlops.core.training.metrics import compute, default_metrics, metric, task_of
from airflow_mlops.core.training.mlflow_run import TrainingRun
from airflow_mlops.core.training.predictions import Predictions, predict
from airflow_mlops.core.training.split import resolve_split, validation_split
from airflow_mlops.core.vocabulary import DatasetRef, ModelRef, clean

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext


def train_model(
    context: StepContext,
    *,
    dataset: Any,
    trainer: str | Callable[..., Any],
    features: str | Callable[..., Any] | None = None,
    hyperparameters: dict[str, Any] | None = None,
    target: str | None = None,
    roles: dict[str, Any] | None = None,
    split: dict[str, Any] | None = None,
    test_dataset: Any = None,
    seed: int = 0,
    experiment: str | None = None,
    metrics: list[Any] | None = None,
    name: str | None = None,
    tags: dict[str, Any] | None = None,
    trusted_types: list[str] | None = None,
    reuse: bool = True,
    code: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a model and return its ref, with ``experiment_id`` and ``reused``.

    :param dataset: dataset ref, path, glob or URI.
    :param trainer: ``"pkg.mod:function"`` or a callable ``(X, y, **hyperparameters) -> fitted model``.
    :param features: ``"pkg.mod:function"``, one transform of the raw columns that is logged inside the model.
    :param target: column to predict; default: the dataset's target role.
    :param roles: added to the dataset's own roles.
    :param split: see :func:`airflow_mlops.core.training.split.resolve_split`.
    :param test_dataset: rows to test on instead of a split.
    :param seed: given to a trainer that names ``seed`` or ``random_state``, and to the global generators.
    :param experiment: MLflow experiment; default: the DAG's id.
    :param metrics: names to log; default: those usual for the target.
    :param name: name of the logged model and the run.
    :param tags: tags on run and model.
    :param trusted_types: types that the model may have beside those of scikit-learn, NumPy, SciPy, pandas and the
        user's own packages.
    :param reuse: give back the model of an earlier try of the same task with the same spec; False trains anew.
    :param code: ``{"git_sha", "bundle_version"}`` where the caller knows them better than git.
    :raises SpecError: for arguments no run could use, a constant target, or a trainer that fails.
    :raises EmptyDataError: if there are no rows to train or test on.
    :raises MissingColumnError: if the target or the column of a role is not there.
    :raises UnsupportedError: if the model cannot be stored without pickle or has types not on the allow-list.
    """
    require("sklearn", "train_model")
    log = context.log
    recipe = Recipe(trainer, features, hyperparameters, seed)
    ref = datasets.resolve(context.store, dataset, roles=fitting.mapping(roles, "roles") or None, target=target or None)
    wanted = ref.roles.get("target")
    if not wanted:
        raise SpecError("there is no target: pass target='<column>', or give the dataset a target role")
    parts = _resolved_split(split, ref, recipe.seed, test_dataset, context)
    for metric_name in metrics or []:
        metric(metric_name)
    spec = recipe.spec(ref, str(wanted), parts, metrics, trusted_types)
    run = TrainingRun(context, experiment or str(context.run.get("dag_id") or "mlops"), _key(context, spec))
    found = run.find(reuse=reuse)
    if found is not None:
        if found["reused"]:
            log.info("Nothing changed since MLflow run %s: reusing its model %s", found["run_id"], found["uri"])
        return found
    data = rows.read(context.store, ref, str(wanted), parts, test_dataset, log)
    origin = {**recipe.code(context), **{k: v for k, v in (code or {}).items() if v is not None}}
    all_tags = {**(tags or {}), **_tags(context, ref, str(wanted), recipe, origin, parts)}
    with run.opened(name, all_tags), tempfile.TemporaryDirectory(prefix="mlops-model-") as scratch:
        run.log_setup(recipe.effective, ref)
        with run.current():
            fitted = _fit(context, recipe, data, ref, parts)
        crash_point("train.fitted")
        model = packaging.assemble(recipe.features, fitted)
        measured, labels = _measure(context, model, fitted, data, metrics)
        run.model(name or "model", all_tags, recipe.effective)
        counts = {"train_rows": len(data.train), "test_rows": len(data.test)}
        run.log_metrics(measured, counts, ref)
        folder = Path(scratch) / "model"
        recipe.write(run, model, folder, data, labels, trusted_types, context)
        manifest = models.manifest_of(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        made = ModelRef(
            uri=f"models:/{run.model_id}",
            run_id=run.run_id,
            model_id=run.model_id,
            digest=models.digest_of(manifest),
            metrics=measured,
            training={**rows.record_of(context.store, ref, data, parts), "seed": recipe.seed},
            test_dataset=data.test_dataset.to_dict(),
            target=str(wanted),
            code=origin,
            environment=recipe.environment,
        )
        run.upload(folder, made, manifest)
        log.info("Logged model %s: %.2f MB, digest %s", made.uri, size / 1e6, made.digest)
        run.close(made, manifest)
    return {**made.to_dict(), "experiment_id": run.experiment_id, "reused": False}


class Recipe:
    """How a model is made: the functions, the hyperparameters, the seed, and the code and environment behind them."""

    def __init__(self, trainer: Any, features: Any, hyperparameters: Any, seed: Any) -> None:
        self.trainer = fitting.trainer_of(load(trainer, "trainer"))
        self.features = load(features, "features") if features else None
        given = fitting.mapping(hyperparameters, "hyperparameters")
        self.hyperparameters = fitting.check_hyperparameters(self.trainer, given)
        try:
            self.seed = int(seed)
        except (TypeError, ValueError) as error:
            raise SpecError(f"the seed must be a whole number, got {seed!r}") from error
        self.digest, self.sources = provenance.code_of(self.trainer.function, self.features)
        self.environment = provenance.environment_of(self.sources.third_party)

    @property
    def effective(self) -> dict[str, Any]:
        """Hyperparameters with the trainer's own defaults."""
        defaults = {
            name: parameter.default
            for name, parameter in self.trainer.hyperparameters.items()
            if parameter.default is not parameter.empty
        }
        return {**defaults, **self.hyperparameters}

    def spec(self, ref: DatasetRef, target: str, split: Any, metrics: Any, trusted_types: Any) -> dict[str, Any]:
        """Return what, if it changes, makes another model."""
        return {
            "dataset": ref.digest,
            "roles": ref.roles,
            "target": target,
            "trainer": self.trainer.name,
            "features": fitting.name_of(self.features) if self.features else None,
            "hyperparameters": self.hyperparameters,
            "split": split,
            "seed": self.seed,
            "metrics": [str(metric(name).name) for name in metrics or []],
            "trusted_types": sorted(trusted_types or []),
            "code": self.digest,
            "environment": self.environment["digest"],
        }

    def code(self, context: StepContext) -> dict[str, Any]:
        """Return the code record: git, bundle, digest, and the names of the functions."""
        root = source_root(provenance.inner(self.trainer.function))
        return {
            **provenance.git_of(root),
            "bundle_version": context.run.get("bundle_version"),
            "digest": self.digest,
            "trainer": self.trainer.name,
            "features": fitting.name_of(self.features) if self.features else None,
        }

    def write(
        self,
        run: TrainingRun,
        model: Any,
        folder: Path,
        data: rows.Rows,
        labels: Any,
        trusted_types: list[str] | None,
        context: StepContext,
    ) -> None:
        """Write the model's folder with signature, input example, code and pinned requirements."""
        from mlflow.models import Model

        raw = data.train.raw
        example: Any = packaging.example_of(raw)
        try:
            predict(model, example)
        except Exception as error:
            context.log.warning(
                "The model does not take a typical row (%s): it is logged without an input example",
                type(error).__name__,
            )
            example = None
        own = {*self.sources.own, *(str(f.__module__).partition(".")[0] for f in self._functions())}
        packaging.write_model(
            model,
            folder,
            features=self.features,
            own=own,
            trusted_types=list(trusted_types or []),
            mlflow_model=Model(
                artifact_path="model", model_uuid=run.model_id, run_id=run.run_id, model_id=run.model_id
            ),
            signature=packaging.signature_of(raw, labels, context.log),
            example=example,
            scratch=folder.parent / "code",
        )

    def _functions(self) -> list[Callable[..., Any]]:
        return [provenance.inner(f) for f in (self.trainer.function, self.features) if f is not None]


def _key(context: StepContext, spec: dict[str, Any]) -> str:
    return digests.hex_of(digests.of_json([context.key, clean(spec)]))


def _resolved_split(split: Any, ref: DatasetRef, seed: int, test_dataset: Any, context: StepContext) -> dict[str, Any]:
    given = fitting.mapping(split, "split")
    if test_dataset in (None, "", {}):
        return resolve_split(given, ref.roles, seed)
    if set(given) - {"validation"}:
        raise SpecError("pass either a split or a test_dataset, not both")
    other = datasets.resolve(context.store, test_dataset, roles=ref.roles)
    kept = resolve_split(given, ref.roles, seed)
    return {**kept, "by": "dataset", "test": other.digest, "validation_by": kept["by"]}


def _fit(context: StepContext, recipe: Recipe, data: rows.Rows, ref: DatasetRef, split: dict[str, Any]) -> Any:
    trainer, log = recipe.trainer, context.log
    part, extras = data.train, {}
    if trainer.asks_for("X_val"):
        spec = {**split, "by": split.get("validation_by", split["by"])}
        inner = validation_split(data.train.frame, spec, ref.roles, _all(len(data.train)))
        log.info("Validation for the trainer, %s: %s of the training rows", inner.text, f"{len(inner.test):,}")
        part, held = _take(data.train, inner.train), _take(data.train, inner.test)
        extras = {"X_val": fitting.apply_features(recipe.features, held.raw), "y_val": held.y}
    for role, names in (("weight", ("sample_weight",)), ("time", ("time",)), ("group", ("groups",))):
        if trainer.asks_for(*names) and not ref.roles.get(role):
            raise SpecError(f"the trainer {trainer.name} asks for {names[0]}, but the dataset has no {role} role")
    if part.weight is not None and not trainer.asks_for("sample_weight"):
        log.warning(
            "The dataset has weights, but %s does not take sample_weight: they only count in the metrics", trainer.name
        )
    X = fitting.apply_features(recipe.features, part.raw)  # noqa: N806
    log.info("Fitting %s on %s rows, seed %d, %s", trainer.name, f"{len(part):,}", recipe.seed, recipe.hyperparameters)
    started = time.monotonic()
    fitted = fitting.fit(trainer, X, part.y, {**part.extras(ref.roles), **extras}, recipe.hyperparameters, recipe.seed)
    log.info("Fitted %s in %.1f s", type(fitted).__name__, time.monotonic() - started)
    return fitted


def _all(count: int) -> Any:
    import numpy as np

    return np.arange(count)


def _take(part: rows.Part, positions: Any) -> rows.Part:
    return rows.Part(
        part.raw.iloc[positions].reset_index(drop=True),
        part.y.iloc[positions].reset_index(drop=True),
        None if part.weight is None else part.weight[positions],
        part.frame.iloc[positions].reset_index(drop=True),
    )


def _measure(
    context: StepContext, model: Any, fitted: Any, data: rows.Rows, names: list[Any] | None
) -> tuple[dict[str, float | None], Any]:
    """Return the metrics, ``roc_auc`` on the test rows and ``train_roc_auc`` on the others, and the train labels."""
    found: dict[str, float | None] = {}
    trained = _predictions(model, fitted, data.train)
    chosen = names or default_metrics(_task(fitted, data.train, trained))
    for side, part in (("", data.test), ("train_", data.train)):
        values = compute(
            chosen,
            part.y,
            trained if side else _predictions(model, fitted, part),
            part.weight,
            logger=context.log,
            where="the training rows" if side else "the test rows",
        )
        found |= {f"{side}{key}": value for key, value in values.items()}
    shown = {key: round(value, 4) for key, value in found.items() if value is not None and not key.startswith("train_")}
    context.log.info("Metrics on %s test rows: %s", f"{len(data.test):,}", shown)
    return found, trained.labels


def _predictions(model: Any, fitted: Any, part: rows.Part) -> Predictions:
    from sklearn.exceptions import NotFittedError

    try:
        return predict(model, part.raw)
    except NotFittedError as error:
        raise SpecError(
            f"the trainer returned a {type(fitted).__name__} that is not fitted; return model.fit(X, y)"
        ) from error
    except UnsupportedError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise SpecError(
            f"the model ({type(fitted).__name__}) was fitted but cannot predict its own rows: "
            f"{type(error).__name__}: {text}"
        ) from error


def _task(fitted: Any, part: rows.Part, prediction: Predictions) -> Any:
    from sklearn.base import is_regressor

    if hasattr(fitted, "__sklearn_tags__") and is_regressor(fitted):
        return "regression"
    return task_of(part.y, prediction)


def _tags(
    context: StepContext, ref: DatasetRef, target: str, recipe: Recipe, code: dict[str, Any], split: dict[str, Any]
) -> dict[str, Any]:
    import json

    run = context.run
    return {
        "mlops.dataset_name": ref.name,
        "mlops.dataset_digest": ref.digest,
        "mlops.dataset_uri": strip_credentials(ref.uri),
        "mlops.target": target,
        "mlops.trainer": recipe.trainer.name,
        "mlops.features": code["features"],
        "mlops.code_digest": code["digest"],
        "mlops.git_sha": code.get("git_sha"),
        "mlops.git_dirty": None if code.get("dirty") is None else str(code["dirty"]).lower(),
        "mlflow.source.git.commit": code.get("git_sha"),
        "mlops.bundle_version": code.get("bundle_version"),
        "mlops.environment": json.dumps(recipe.environment, sort_keys=True),
        "mlops.environment_digest": recipe.environment["digest"],
        "mlops.seed": recipe.seed,
        "mlops.split": json.dumps(split, sort_keys=True),
        "mlops.provider_version": run.get("provider_version"),
        **{f"mlops.{name}": run.get(name) for name in ("dag_id", "run_id", "task_id", "map_index", "triggered_by")},
    }
