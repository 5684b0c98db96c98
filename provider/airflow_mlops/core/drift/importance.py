"""Which columns matter to a model, as it was put on record when it was trained, or as a user says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import SpecError

if TYPE_CHECKING:
    from airflow_mlops.core.drift.references import Reference
    from airflow_mlops.core.steps import StepContext
    from airflow_mlops.core.vocabulary import ModelRef

#: What stands for the model where a user says what matters.
GIVEN = "the model, as was given"


def of_model(ref: ModelRef) -> dict[str, float]:
    """Return how much each column matters to a model, or nothing where that is not on record."""
    found = (ref.training or {}).get("importance")
    return {str(name): float(share) for name, share in found.items()} if isinstance(found, dict) else {}


def importance_for(
    context: StepContext, given: Any, references: list[Reference]
) -> tuple[dict[str, float], str | None]:
    """Return how much each column matters, and the model to which; nothing and None where that is not known.

    :param given: ``{column: number}``, or a model (ref, ``"name@alias"`` or URI); empty: the model that a reference is
        the profile of.
    :raises SpecError: for another form.
    :raises NotFoundError: if there is no such model.
    """
    if given in (None, "", {}):
        known = next((one for one in references if one.importance), None)
        return (dict(known.importance or {}), known.label) if known is not None else ({}, None)
    if is_model(given):
        ref = models.resolve(context, given)
        matters = of_model(ref)
        name = f"{ref.name} {ref.version}" if ref.name else ref.uri
        if not matters:
            context.log.info("%s: it is not on record what matters to it; columns stand in their own order", name)
        return matters, name if matters else None
    check_importance(given)
    return {str(name): float(value) for name, value in given.items()}, GIVEN


def is_model(given: Any) -> bool:
    """Return whether importance is given as a model to take it from."""
    return isinstance(given, str) or (isinstance(given, dict) and given.get("kind") == "model")


def check_importance(given: Any) -> None:
    """Make sure that importance is given in a form that can be read.

    :raises SpecError: if it is not.
    """
    if given in (None, "", {}) or is_model(given):
        return
    if not isinstance(given, dict) or any(
        isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0 for value in given.values()
    ):
        raise SpecError(
            "importance is {column: a number of at least 0}, or the model to take it from: a ref, 'name@alias' or a "
            f"models:/ URI; got {given!r}"
        )
