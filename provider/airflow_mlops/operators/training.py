"""TrainModelOperator: a training function, script or notebook to a logged model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import check_roles
from airflow_mlops.links.model import MLflowRunLink
from airflow_mlops.operators.base import LONG_FIELDS, LongOperator
from airflow_mlops.operators.paths import resolve_path, roots

if TYPE_CHECKING:
    from airflow.sdk import Context


class TrainModelOperator(LongOperator):
    """Train a model with a function, script or notebook of your own and log it to MLflow.

    Returns a model ref: ``uri`` (``models:/m-...``), ``run_id``, ``model_id``, ``digest``, ``metrics`` (``roc_auc`` on
    the test rows, ``train_roc_auc`` on the others), ``training`` (what it was fitted on), ``test_dataset`` (ref of the
    rows held out), ``target``, ``code``, ``environment``; and ``experiment_id`` and ``reused``.

    A retry goes on with the MLflow run of the try before, and leaves one run with one model. A task that is cleared
    with nothing changed (data, arguments, code, library versions) returns the model that it made before.

    :param dataset: dataset ref, such as ``snapshot.output`` or ``validate.output``, or a path, glob or URI that is read
        in place. (templated)
    :param trainer: ``"package.module:function"`` or a callable ``(X, y, **hyperparameters)`` that returns the fitted
        model. Named in its signature, it is also given ``sample_weight``, ``groups``, ``time``, ``X_val`` and
        ``y_val``, ``seed`` or ``random_state``. (templated)
    :param command: in place of ``trainer``, a script as it is:
        ``["python", "train.py", "{dataset}", "{model_out}"]``. It runs in a process of its own, in the DAG bundle;
        ``python`` is the worker's own. ``{dataset}`` is a file with the training rows, all columns; ``{test_dataset}``
        one with the rows that are held out; ``{model_out}`` the path where it leaves its model (a file, also with an
        ending of its own like ``{model_out}.json``, or an MLflow folder); ``{hyperparameters}`` a JSON file;
        ``{seed}`` the number. A model that it logs to MLflow lands in the task's run and is the one that counts.
        (templated)
    :param notebook: in place of ``trainer``, the path of an ``.ipynb`` file, run by papermill with the parameters
        ``dataset``, ``test_dataset``, ``model_out``, ``seed`` and the hyperparameters by name. The executed notebook is
        kept with the run, also if a cell fails. (templated)
    :param cwd: folder that a command or notebook runs in; default: the folder of the DAG bundle in which the script is
        found, the notebook's own. (templated)
    :param dataset_format: what a command or notebook is given: ``parquet`` or ``csv``. (templated)
    :param features: ``"package.module:function"`` or a callable, one transform of the raw feature columns, row by row.
        It is logged inside the model, with the code of its package. (templated)
    :param hyperparameters: keyword arguments of the trainer; text that a template has rendered becomes a number where
        the trainer's default is one. A command reads them from ``{hyperparameters}``. ``"name@alias"``: those that
        this version was trained with; while there is none, the trainer's own. (templated)
    :param target: the column to predict; default: the dataset's target role. (templated)
    :param roles: what columns mean, added to the dataset's own. Columns with a role stay out of the features.
        (templated)
    :param split: ``{"by": "time", "test": "28d" or 0.2, "gap": "90d"}``, ``{"by": "group", "test": 0.2}`` or
        ``{"by": "random", "test": 0.2, "seed": 0}``, with ``validation`` for a trainer that asks for ``X_val``.
        Default: the last fifth by time if there is a time role, else by group, else at random. (templated)
    :param test_dataset: a dataset to test on, instead of a split. (templated)
    :param nullable: feature columns of whole numbers that may be missing at prediction, or ``"all"``: the trainer
        gets them as floats, and the signature lets them be missing. Other whole numbers are ``long`` in the signature,
        and MLflow refuses rows without them. (templated)
    :param seed: of the split, the global random generators and a trainer that asks for it. (templated)
    :param experiment: MLflow experiment; default: the DAG's id. (templated)
    :param metrics: names of scikit-learn, or ``"package.module:function"``; default: those usual for the target.
        (templated)
    :param name: name of the MLflow run and the logged model. (templated)
    :param tags: MLflow tags on both. (templated)
    :param trust: ``"pickle"``: a pickle that a command or notebook leaves is loaded, and a model that cannot be stored
        without pickle is stored with it; the model's tag ``mlops.trust`` says so. (templated)
    :param trusted_types: types that the model may contain beside those of scikit-learn, NumPy, SciPy, pandas, XGBoost,
        LightGBM and your own packages, such as ``["catboost.core.CatBoostClassifier"]``. (templated)
    :param code: where the code comes from, for the model's record: the ref of a ``CheckoutCodeOperator``, of a
        ``BuildImageOperator``, or a list of both. Code that runs from another commit is refused. (templated)
    :param reuse: whether a cleared task with nothing changed returns the earlier model; False trains again.
    :raises ValueError: in the constructor, unless one of ``trainer``, ``command`` and ``notebook`` is given, and for a
        role, trainer, command or ``trust`` that cannot be.
    """

    step = "train_model"
    step_arguments = (
        "dataset",
        "trainer",
        "command",
        "notebook",
        "cwd",
        "dataset_format",
        "features",
        "hyperparameters",
        "target",
        "roles",
        "split",
        "test_dataset",
        "nullable",
        "seed",
        "experiment",
        "metrics",
        "name",
        "tags",
        "trust",
        "trusted_types",
        "code",
        "reuse",
    )
    needs_mlflow = True
    template_fields: Sequence[str] = (*(a for a in step_arguments if a != "reuse"), *LONG_FIELDS)
    template_fields_renderers = dict.fromkeys(
        ("code", "dataset", "hyperparameters", "roles", "split", "test_dataset", "tags"), "json"
    )
    operator_extra_links = (MLflowRunLink(),)

    def __init__(
        self,
        *,
        dataset: dict[str, Any] | str,
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
        test_dataset: dict[str, Any] | str | None = None,
        nullable: list[str] | str | None = None,
        seed: int = 0,
        experiment: str | None = None,
        metrics: list[str] | None = None,
        name: str | None = None,
        tags: dict[str, Any] | None = None,
        trust: str | None = None,
        trusted_types: list[str] | None = None,
        code: Any = None,
        reuse: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if sum(one is not None for one in (trainer, command, notebook)) != 1:
            raise ValueError("give one of trainer, command and notebook")
        if trainer is not None and not callable(trainer) and not isinstance(trainer, str):
            raise ValueError(f"trainer must be a callable or 'package.module:function', got {trainer!r}")
        if trust not in (None, "pickle") and "{" not in str(trust):
            raise ValueError(f"trust must be 'pickle' or be left out, got {trust!r}")
        if isinstance(command, (str, list, tuple)):
            _check_command(command)
        if isinstance(roles, dict):
            try:
                check_roles(roles)
            except SpecError as error:
                raise ValueError(error.message) from None
        # Airflow would call a callable in a template field, with the context; what it shows is the name.
        self.functions = {k: v for k, v in (("trainer", trainer), ("features", features)) if callable(v)}
        self.dataset = dataset
        self.trainer = _shown(trainer)
        self.command = command
        self.notebook = notebook
        self.cwd = cwd
        self.dataset_format = dataset_format
        self.features = _shown(features)
        self.hyperparameters = hyperparameters
        self.target = target
        self.roles = roles
        self.split = split
        self.test_dataset = test_dataset
        self.nullable = nullable
        self.seed = seed
        self.experiment = experiment
        self.metrics = metrics
        self.name = name
        self.tags = tags
        self.trust = trust
        self.trusted_types = trusted_types
        self.code = code
        self.reuse = reuse

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with the functions themselves."""
        named = ("dataset", "test_dataset", "notebook", "cwd")
        paths = {name: resolve_path(context, getattr(self, name)) for name in named}
        if self.command and not paths["cwd"]:
            paths["cwd"] = _home_of(self.command, roots(context))
        return {**super().arguments(context), **paths, **self.functions, "code": _origin(self.code)}

    def on_kill(self) -> None:
        """Stop the command or notebook with all that it started."""
        from airflow_mlops.core.training import process

        process.stop_all()
        super().on_kill()


def _check_command(command: Any) -> None:
    """Refuse a command that no run could use.

    :raises ValueError: naming what is wrong.
    """
    from airflow_mlops.core.training.command import check_command

    if isinstance(command, str) and "{{" in command:
        return  # a template that renders to a list
    try:
        check_command(command)
    except SpecError as error:
        raise ValueError(error.message) from None


def _origin(code: Any) -> dict[str, Any] | None:
    """Return what the refs of a working copy and of an image say of where the code comes from.

    :raises SpecError: for anything else.
    """
    found: dict[str, Any] = {}
    for one in code if isinstance(code, (list, tuple)) else [code] if code else []:
        kind = one.get("kind") if isinstance(one, dict) else None
        if kind == "code":
            found |= {"git_sha": one.get("sha"), "repository": one.get("repository")}
        elif kind == "image":
            found |= {"image": one.get("digest"), **({"git_sha": one["sha"]} if one.get("sha") else {})}
        else:
            raise SpecError(
                "code must be the ref of a CheckoutCodeOperator, of a BuildImageOperator, or a list of both"
            )
    return found or None


def _home_of(command: Any, folders: list[str]) -> str | None:
    """Return the first folder that has a file which the command names, else the first."""
    words = [str(word) for word in command]
    for folder in folders:
        for number, word in enumerate(words[1:], 1):
            path = word.replace(".", "/") if words[number - 1] == "-m" else word
            there = (path, f"{path}.py", f"{path}/__main__.py") if words[number - 1] == "-m" else (path,)
            if not word.startswith(("-", "/")) and any(os.path.isfile(os.path.join(folder, one)) for one in there):
                return folder
    return folders[0] if folders else None


def _shown(function: Any) -> Any:
    if not callable(function):
        return function
    from airflow_mlops.core.training.fitting import name_of

    return name_of(function)
