"""``@task.train_model``: the function's body is the trainer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_mlops.operators.training import TrainModelOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class TrainModelDecoratedOperator(DecoratedOperator, TrainModelOperator):
    """Train with a function ``(X, y, **hyperparameters)`` that stands in the DAG file, and log the model to MLflow.

    Returns a model ref, as :class:`~airflow_mlops.operators.training.TrainModelOperator` does, whose arguments it
    takes. The function's source, and what it uses of its file, are the code that decides whether a cleared task
    trains again; the fitted model itself must be made of importable types.

    :param python_callable: the function.
    :param op_args: the dataset, if the decorator does not name it: ``train(snapshot.output)``. (templated)
    :param op_kwargs: ``dataset`` and the function's hyperparameters. (templated)
    """

    custom_operator_name = "@task.train_model"
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *TrainModelOperator.template_fields)
    template_fields_renderers = {  # noqa: RUF012
        **DecoratedOperator.template_fields_renderers,
        **TrainModelOperator.template_fields_renderers,
    }

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        dataset: Any = None,
        **kwargs: Any,
    ) -> None:
        called = list(op_args or ())
        own = dict(op_kwargs or {})
        dataset = called.pop(0) if called else own.pop("dataset", dataset)
        if called:
            raise TypeError(f"@task.train_model: call {python_callable.__name__} with the dataset, the rest by name")
        if dataset is None:
            raise TypeError("@task.train_model needs the dataset: @task.train_model(dataset=...), or in the call")
        # Airflow checks the call against the signature; the decorator may have given some of it.
        given = kwargs.get("hyperparameters")
        super().__init__(
            python_callable=python_callable,
            op_kwargs={**(given if isinstance(given, dict) else {}), **own},
            dataset=dataset,
            trainer=inspect.unwrap(python_callable),
            **kwargs,
        )
        self.op_kwargs = own

    def arguments(self, context: Context) -> dict[str, Any]:
        """Return the step's arguments: those of the call are hyperparameters."""
        from airflow_mlops.core.training.fitting import mapping

        arguments = super().arguments(context)
        given = mapping(arguments["hyperparameters"], "hyperparameters")
        return {**arguments, "hyperparameters": {**given, **self.op_kwargs}}


def train_model_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Wrap a function ``(X, y, **hyperparameters)`` into a task that trains a model.

    :param python_callable: the function.
    :param multiple_outputs: whether to push each key of the model ref on its own.
    """
    if python_callable is None:
        return functools.partial(train_model_task, multiple_outputs=multiple_outputs, **kwargs)  # type: ignore[return-value]
    return task_decorator_factory(
        python_callable=_as_called(python_callable),
        multiple_outputs=multiple_outputs,
        decorated_operator_class=TrainModelDecoratedOperator,
        **kwargs,
    )


def _as_called(trainer: Callable[..., Any]) -> Callable[..., Any]:
    """Return the trainer with the signature that a call in a DAG has: the dataset, and the hyperparameters by name."""
    from airflow_mlops.core.training.fitting import EXTRAS

    @functools.wraps(trainer)
    def called(*args: Any, **kwargs: Any) -> Any:
        return trainer(*args, **kwargs)

    rest = list(inspect.signature(trainer).parameters.values())[2:]
    dataset = inspect.Parameter("dataset", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
    own = [
        one if one.kind is one.VAR_KEYWORD else one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for one in rest
        if one.name not in EXTRAS and one.kind is not one.VAR_POSITIONAL
    ]
    called.__signature__ = inspect.Signature([dataset, *own])  # type: ignore[attr-defined]
    return called
