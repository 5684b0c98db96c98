"""``@task.evaluate_model``: the function's body is one's own test of a model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from airflow.providers.common.compat.sdk import DecoratedOperator, TaskDecorator, task_decorator_factory

from airflow_mlops.operators.evaluation import EvaluateModelOperator

#: What the step gives the function; everything else that it names is an argument of the call.
GIVEN = ("model", "X", "y", "predictions", "probabilities", "sample_weight")


class EvaluateModelDecoratedOperator(DecoratedOperator, EvaluateModelOperator):
    """Run a function ``(model, X, y)`` as one test of a model, beside those in ``tests``.

    It is given the loaded model, the features and the target of the rows that the model was not trained on, and
    returns a bool, a dict of metrics, a dict with ``passed``, or a list of such dicts. Returns a report, as
    :class:`~airflow_mlops.operators.evaluation.EvaluateModelOperator` does, whose arguments it takes.

    :param python_callable: the function. Named in its signature, it is given ``predictions``, ``probabilities`` and
        ``sample_weight`` too.
    :param op_args: the model, if the decorator does not name it: ``check(train.output)``. (templated)
    :param op_kwargs: the function's other arguments. (templated)
    """

    custom_operator_name = "@task.evaluate_model"
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *EvaluateModelOperator.template_fields)
    template_fields_renderers = {  # noqa: RUF012
        **DecoratedOperator.template_fields_renderers,
        **EvaluateModelOperator.template_fields_renderers,
    }

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        called = list(op_args or ())
        own = dict(op_kwargs or {})
        model = called.pop(0) if called else own.pop("model", model)
        if called:
            raise TypeError(f"@task.evaluate_model: call {python_callable.__name__} with the model, the rest by name")
        if model is None:
            raise TypeError("@task.evaluate_model needs the model: @task.evaluate_model(model=...), or in the call")
        named = [name for name in GIVEN if name in inspect.signature(python_callable).parameters]
        # Airflow checks the call against the signature; what the step gives stands there as None until it runs.
        super().__init__(
            python_callable=python_callable,
            op_kwargs={**dict.fromkeys(named), **own},
            model=model,
            **kwargs,
        )
        self.op_kwargs = own

    def arguments(self, context: Any) -> dict[str, Any]:
        """Return the step's arguments: the function is the first test."""
        arguments = super().arguments(context)
        function = functools.partial(self.python_callable, **self.op_kwargs)
        functools.update_wrapper(function, self.python_callable)
        test = {"kind": "custom", "name": self.python_callable.__name__, "function": function}
        return {**arguments, "tests": [test, *(arguments["tests"] or [])]}


def evaluate_model_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Wrap a function ``(model, X, y)`` into a task that tests a model.

    :param python_callable: the function.
    :param multiple_outputs: whether to push each key of the report on its own.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=EvaluateModelDecoratedOperator,
        **kwargs,
    )
