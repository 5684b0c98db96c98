"""TrainModelOperator: a training function to a logged model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import check_roles
from airflow_mlops.links.model import MLflowRunLink
from airflow_mlops.operators.base import BACKEND_FIELDS, MlopsOperator
from airflow_mlops.operators.paths import resolve_path

if TYPE_CHECKING:
    from airflow.sdk import Context


class TrainModelOperator(MlopsOperator):
    """Train a model with a function of your own and log it to MLflow.

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
    :param features: ``"package.module:function"`` or a callable, one transform of the raw feature columns, row by row.
        It is logged inside the model, with the code of its package. (templated)
    :param hyperparameters: keyword arguments of the trainer; text that a template has rendered becomes a number where
        the trainer's default is one. (templated)
    :param target: the column to predict; default: the dataset's target role. (templated)
    :param roles: what columns mean, added to the dataset's own. Columns with a role stay out of the features.
        (templated)
    :param split: ``{"by": "time", "test": "28d" or 0.2, "gap": "90d"}``, ``{"by": "group", "test": 0.2}`` or
        ``{"by": "random", "test": 0.2, "seed": 0}``, with ``validation`` for a trainer that asks for ``X_val``.
        Default: the last fifth by time if there is a time role, else by group, else at random. (templated)
    :param test_dataset: a dataset to test on, instead of a split. (templated)
    :param seed: of the split, the global random generators and a trainer that asks for it. (templated)
    :param experiment: MLflow experiment; default: the DAG's id. (templated)
    :param metrics: names of scikit-learn, or ``"package.module:function"``; default: those usual for the target.
        (templated)
    :param name: name of the MLflow run and the logged model. (templated)
    :param tags: MLflow tags on both. (templated)
    :param trusted_types: types that the model may contain beside those of scikit-learn, NumPy, SciPy, pandas and your
        own packages, such as ``["lightgbm.sklearn.LGBMClassifier"]``. (templated)
    :param reuse: whether a cleared task with nothing changed returns the earlier model; False trains again.
    :raises ValueError: in the constructor, for a role that cannot be or a trainer that is neither text nor callable.
    """

    step = "train_model"
    step_arguments = (
        "dataset",
        "trainer",
        "features",
        "hyperparameters",
        "target",
        "roles",
        "split",
        "test_dataset",
        "seed",
        "experiment",
        "metrics",
        "name",
        "tags",
        "trusted_types",
        "reuse",
    )
    needs_mlflow = True
    template_fields: Sequence[str] = (*(a for a in step_arguments if a != "reuse"), *BACKEND_FIELDS)
    template_fields_renderers = dict.fromkeys(
        ("dataset", "hyperparameters", "roles", "split", "test_dataset", "tags"), "json"
    )
    operator_extra_links = (MLflowRunLink(),)

    def __init__(
        self,
        *,
        dataset: dict[str, Any] | str,
        trainer: str | Callable[..., Any],
        features: str | Callable[..., Any] | None = None,
        hyperparameters: dict[str, Any] | None = None,
        target: str | None = None,
        roles: dict[str, Any] | None = None,
        split: dict[str, Any] | None = None,
        test_dataset: dict[str, Any] | str | None = None,
        seed: int = 0,
        experiment: str | None = None,
        metrics: list[str] | None = None,
        name: str | None = None,
        tags: dict[str, Any] | None = None,
        trusted_types: list[str] | None = None,
        reuse: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(trainer) and not isinstance(trainer, str):
            raise ValueError(f"trainer must be a callable or 'package.module:function', got {trainer!r}")
        if isinstance(roles, dict):
            try:
                check_roles(roles)
            except SpecError as error:
                raise ValueError(error.message) from None
        # Airflow would call a callable in a template field, with the context; what it shows is the name.
        self.functions = {k: v for k, v in (("trainer", trainer), ("features", features)) if callable(v)}
        self.dataset = dataset
        self.trainer = _shown(trainer)
        self.features = _shown(features)
        self.hyperparameters = hyperparameters
        self.target = target
        self.roles = roles
        self.split = split
        self.test_dataset = test_dataset
        self.seed = seed
        self.experiment = experiment
        self.metrics = metrics
        self.name = name
        self.tags = tags
        self.trusted_types = trusted_types
        self.reuse = reuse

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments, with the functions themselves."""
        paths = {name: resolve_path(context, getattr(self, name)) for name in ("dataset", "test_dataset")}
        return {**super().arguments(context), **paths, **self.functions}


def _shown(function: Any) -> Any:
    if not callable(function):
        return function
    from airflow_mlops.core.training.fitting import name_of

    return name_of(function)
