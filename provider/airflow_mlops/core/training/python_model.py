"""A Python model of the user's own (``mlflow.pyfunc.PythonModel``) that is stored as skops and not as a pickle.

The source of this module is logged beside such a model, as ``mlops_python_model``, and loads it where this provider is
not installed: it imports nothing of it.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

#: What the module is called inside a model's code.
NAME = "mlops_python_model"
MODEL, TYPES = "model.skops", "types.json"


class Called:
    """Calls a ``PythonModel`` with rows alone, whether or not its ``predict`` asks for a context and parameters."""

    def __init__(self, model: Any) -> None:
        self.model = model
        load_context = getattr(model, "load_context", None)
        if callable(load_context):
            load_context(None)
        self.asks = inspect.signature(model.predict).parameters

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> Any:
        """Return the model's predictions for rows."""
        named = {"params": params} if "params" in self.asks else {}
        context = [None] if "context" in self.asks else []
        return self.model.predict(*context, rows, **named)

    def get_raw_model(self) -> Any:
        """Return the user's object."""
        return self.model


def _load_pyfunc(path: str) -> Called:
    """Load what :func:`save` wrote, as MLflow asks for it."""
    import skops.io

    types = json.loads((Path(path) / TYPES).read_text(encoding="utf-8"))
    return Called(skops.io.load(Path(path) / MODEL, trusted=types))


def save(model: Any, folder: Path, types: list[str]) -> None:
    """Write a model and the types that it is made of to a new folder."""
    import skops.io

    folder.mkdir()
    skops.io.dump(model, folder / MODEL)
    (folder / TYPES).write_text(json.dumps(types), encoding="utf-8")
