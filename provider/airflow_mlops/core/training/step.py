"""Training a model: read, split, fit, measure, log to MLflow, put on record."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import digests, models
from airflow_mlops.core.data import dataset as datasets
from airflow_mlops.core.errors import SpecError, UnsupportedError
from airflow_mlops.core.extras import require
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.training import fitting, flavours, recipes, rows
from airflow_mlops.core.training.importance import importance_of
from airflow_mlops.core.training.metrics import compute, default_metrics, metric, task_of
from airflow_mlops.core.training.mlflow_run import TrainingRun
from airflow_mlops.core.training.predictions import Predictions, predict
from airflow_mlops.core.training.recipe import FunctionRecipe, Made, Recipe, Task
from airflow_mlops.core.training.split import resolve_split
from airflow_mlops.core.vocabulary import DatasetRef, ModelRef, clean

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

TRUST = (None, "", "pickle")


def train_model(
    context: StepContext,
    *,
    dataset: Any,
    trainer: str | Callable[..., Any] | None = None,
    command: list[str] | None = None,
    notebook: str | None = None,
    cwd: str | None = None,
    dataset_format: str = "parquet",
    features: str | Callable[..., Any] | None = None,
    hyperparameters: dict[str, Any] | str | None = None,
    target: str | None = None,
    roles: dict[str, Any] | None = None,
    split: dict[str, Any] | None = None,
    test_dataset: Any = None,
    nullable: list[str] | str | None = None,
    seed: int = 0,
    experiment: str | None = None,
    metrics: list[Any] | None = None,
    name: str | None = None,
    tags: dict[str, Any] | None = None,
    trust: str | None = None,
    trusted_types: list[str] | None = None,
    reuse: bool = True,
    code: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a model and return its ref, with ``experiment_id`` and ``reused``.

    :param dataset: dataset ref, path, glob or URI.
    :param trainer: ``"pkg.mod:function"`` or a callable ``(X, y, **hyperparameters) -> fitted model``.
    :param command: instead: program and arguments; see :mod:`airflow_mlops.core.training.command`.
    :param notebook: instead: path of a notebook; see :mod:`airflow_mlops.core.training.notebook`.
    :param cwd: folder that a command or notebook runs in; default: the process's own, the notebook's.
    :param dataset_format: of the files for a command or notebook: ``parquet`` or ``csv``.
    :param features: ``"pkg.mod:function"``, one transform of the raw columns that is logged inside the model.
    :param hyperparameters: by name, or ``"name@alias"``: those that this version was trained with; none if there is no
        such version yet.
    :param target: column to predict; default: the dataset's target role.
    :param roles: added to the dataset's own roles.
    :param split: see :func:`airflow_mlops.core.training.split.resolve_split`.
    :param test_dataset: rows to test on instead of a split.
    :param nullable: whole-number features that may be missing at prediction, or ``"all"``: the model is trained on
        floats there, and its signature lets them be missing.
    :param seed: given to a trainer that names ``seed`` or ``random_state``, and to the global generators.
    :param experiment: MLflow experiment; default: the DAG's id.
    :param metrics: names to log; default: those usual for the target.
    :param name: name of the logged model and the run.
    :param tags: tags on run and model.
    :param trust: ``"pickle"``: a pickle that a command leaves is loaded, and a model that cannot be stored without
        pickle is stored with it.
    :param trusted_types: types that the model may have beside those of scikit-learn, NumPy, SciPy, pandas, XGBoost,
        LightGBM and the user's own packages.
    :param reuse: give back the model of an earlier try of the same task with the same spec; False trains anew.
    :param code: ``{"git_sha", "repository", "image", "bundle_version"}`` where the caller knows them better than git.
    :raises SpecError: for arguments no run could use, a constant target, or a trainer or command that fails.
    :raises StoppedError: if the process of a command was stopped or killed.
    :raises EmptyDataError: if there are no rows to train or test on.
    :raises MissingColumnError: if the target, the column of a role, or one that the model takes is not there.
    :raises UnsupportedError: if the model cannot be stored without pickle or has types not on the allow-list.
    """
    require("sklearn", "train_model")
    log = context.log
    if trust not in TRUST:
        raise SpecError(f"trust must be 'pickle' or be left out, got {trust!r}")
    if isinstance(hyperparameters, str) and models.NAMED.fullmatch(hyperparameters.strip()):
        hyperparameters = recipes.settings_of(context, hyperparameters.strip())
    recipe = recipe_of(
        trainer=trainer,
        command=command,
        notebook=notebook,
        features=features,
        hyperparameters=hyperparameters,
        seed=seed,
        trust=trust or None,
        process={
            "cwd": cwd,
            "dataset_format": dataset_format,
            "trusted_types": trusted_types,
            "model_name": name,
        },
    )
    ref = datasets.resolve(context.store, dataset, roles=fitting.mapping(roles, "roles") or None, target=target or None)
    wanted = ref.roles.get("target")
    if not wanted:
        raise SpecError("there is no target: pass target='<column>', or give the dataset a target role")
    parts = _resolved_split(split, ref, recipe.seed, test_dataset, context)
    for metric_name in metrics or []:
        metric(metric_name)
    spec = recipe.spec(ref, str(wanted), parts, metrics, trusted_types, nullable)
    run = TrainingRun(context, experiment or str(context.run.get("dag_id") or "mlops"), _key(context, spec))
    found = run.find(reuse=reuse)
    if found is not None:
        if found["reused"]:
            log.info("Nothing changed since MLflow run %s: reusing its model %s", found["run_id"], found["uri"])
        return found
    data = rows.read(context.store, ref, str(wanted), parts, test_dataset, log, nullable)
    origin = _origin(recipe, context, code)
    all_tags = {**(tags or {}), **_tags(context, ref, str(wanted), recipe, origin, parts)}
    with (
        run.opened(name, all_tags, anew=recipe.begins_anew),
        tempfile.TemporaryDirectory(prefix="mlops-model-") as scratch,
    ):
        task = Task(context, run, data, ref, str(wanted), parts, Path(scratch))
        made = recipe.make(task)
        crash_point("train.fitted")
        with made.code():
            measured, labels = measure(context, made, metrics)
            matters = importance_of(made.predicts, made.data.test.raw, log)
            run.model(name or "model", all_tags, recipe.effective, flavours.flavour_of(made.fitted), made.model_id)
            counts = {"train_rows": len(data.train), "test_rows": len(data.test)}
            run.log_metrics(measured, counts, ref)
            folder = made.folder
            if folder is None:
                folder = Path(scratch) / "model"
                recipe.write(task, made, folder, labels, trusted_types, nullable)
        manifest = models.manifest_of(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        model_ref = ModelRef(
            uri=f"models:/{run.model_id}",
            run_id=run.run_id,
            model_id=run.model_id,
            digest=models.digest_of(manifest),
            metrics=measured,
            training={
                **rows.record_of(context.store, ref, data, parts),
                "seed": recipe.seed,
                "recipe": recipes.record(context.store, recipe, nullable, ref, metrics),
                "importance": matters,
            },
            test_dataset=data.test_dataset.to_dict(),
            target=str(wanted),
            code=origin,
            environment=recipe.environment,
        )
        run.upload(folder, model_ref, manifest, there=made.model_id is not None)
        log.info("Logged model %s: %.2f MB, digest %s", model_ref.uri, size / 1e6, model_ref.digest)
        run.close(model_ref, manifest)
    return {**model_ref.to_dict(), "experiment_id": run.experiment_id, "reused": False}


def recipe_of(
    *,
    trainer: Any,
    command: Any,
    notebook: Any,
    features: Any,
    hyperparameters: Any,
    seed: Any,
    trust: str | None,
    process: dict[str, Any],
) -> Recipe:
    """Return how the model is made.

    :param process: the further arguments of a command or notebook.
    :raises SpecError: unless exactly one of trainer, command and notebook is given.
    """
    given = [one for one in (trainer, command, notebook) if one not in (None, "", [])]
    if len(given) != 1:
        raise SpecError("give one of trainer, command and notebook")
    if trainer:
        return FunctionRecipe(trainer, features, hyperparameters, seed, trust)
    options = {
        "features": features,
        "hyperparameters": hyperparameters,
        "seed": seed,
        "trust": trust,
        **process,
    }
    if notebook:
        from airflow_mlops.core.training.notebook import NotebookRecipe

        return NotebookRecipe(notebook, **options)
    from airflow_mlops.core.training.command import CommandRecipe

    return CommandRecipe(command, **options)


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


def measure(context: StepContext, made: Made, names: list[Any] | None) -> tuple[dict[str, float | None], Any]:
    """Return the metrics, ``roc_auc`` on the test rows and ``train_roc_auc`` on the others, and the train labels."""
    model, fitted, data = made.predicts, made.fitted, made.data
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


def _origin(recipe: Recipe, context: StepContext, code: dict[str, Any] | None) -> dict[str, Any]:
    """Return where the code comes from: what git says, and what the caller knows.

    :raises SpecError: if the code that ran is of another commit than the caller says.
    """
    own = recipe.code(context)
    known = {k: v for k, v in (code or {}).items() if v is not None}
    ran, said = own.get("git_sha"), known.get("git_sha")
    if ran and said and ran != said:
        raise SpecError(
            f"the training code is at commit {ran} ({recipe.place}), not at {said}: have it imported from the working "
            "copy, by runtime={'python': ..., 'code': [the working copy's path]}"
        )
    return {**own, **known}


def _tags(
    context: StepContext, ref: DatasetRef, target: str, recipe: Recipe, code: dict[str, Any], split: dict[str, Any]
) -> dict[str, Any]:
    run = context.run
    return {
        "mlops.dataset_name": ref.name,
        "mlops.dataset_digest": ref.digest,
        "mlops.dataset_uri": strip_credentials(ref.uri),
        "mlops.target": target,
        "mlops.trainer": recipe.name,
        "mlops.features": code["features"],
        "mlops.code_digest": code["digest"],
        "mlops.git_sha": code.get("git_sha"),
        "mlops.git_dirty": None if code.get("dirty") is None else str(code["dirty"]).lower(),
        "mlflow.source.git.commit": code.get("git_sha"),
        "mlops.bundle_version": code.get("bundle_version"),
        "mlops.repository": code.get("repository"),
        "mlops.image": code.get("image"),
        "mlops.environment": json.dumps(recipe.environment, sort_keys=True),
        "mlops.environment_digest": recipe.environment["digest"],
        "mlops.seed": recipe.seed,
        "mlops.trust": recipe.trust,
        "mlops.split": json.dumps(split, sort_keys=True),
        "mlops.provider_version": run.get("provider_version"),
        **{f"mlops.{name}": run.get(name) for name in ("dag_id", "run_id", "task_id", "map_index", "triggered_by")},
    }
