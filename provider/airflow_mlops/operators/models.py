"""What a model argument of an operator stands for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow_mlops.operators.paths import resolve_path

if TYPE_CHECKING:
    from airflow.sdk import Context


def resolve_model(context: Context, model: Any) -> Any:
    """Return a model argument as the step needs it: a relative path against the DAG bundle, all else as it is.

    A text is a path if there is something there, so ``name/3`` and ``name@alias`` stay what they are.
    """
    if not isinstance(model, str) or "://" in model or model.startswith(("models:", "runs:")):
        return model
    found = resolve_path(context, model)
    return found if os.path.exists(found) else model
