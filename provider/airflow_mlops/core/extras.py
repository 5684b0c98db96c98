"""Import of optional libraries with an error that gives the pip command."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from airflow_mlops.core.errors import MissingExtraError

DISTRIBUTION = "airflow-provider-mlops"

#: Top-level module -> extra of this distribution that installs it.
EXTRA_OF = {
    "pyarrow": "pyarrow",
    "numpy": "pyarrow",
    "pandas": "mlflow",
    "sklearn": "mlflow",
    "scipy": "mlflow",
    "skops": "mlflow",
    "mlflow": "mlflow",
    "great_expectations": "great-expectations",
    "yaml": "great-expectations",
    "evidently": "evidently",
    "fairlearn": "fairness",
    "docker": "docker",
    "boto3": "amazon",
    "sqlalchemy": "sql",
}


def silence_telemetry() -> None:
    """Turn the libraries' telemetry off, unless the user has set the variable themselves."""
    # MLflow takes DO_NOT_TRACK=true for its own off switch as well, but not "1", which the others understand.
    mlflow_is_on = os.environ.get("MLFLOW_DISABLE_TELEMETRY", "true").strip().lower() in ("false", "0")
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("DO_NOT_TRACK", "1" if mlflow_is_on else "true"),
        ("GX_ANALYTICS_ENABLED", "false"),
    ):
        os.environ.setdefault(name, value)


def require(module: str, purpose: str, extra: str | None = None) -> ModuleType:
    """Import ``module`` or say how to install it.

    :param module: dotted name, e.g. ``"pyarrow.parquet"``.
    :param purpose: what needs it, for the message, e.g. ``"validate_data"``.
    :param extra: the extra to name where the module is in several.
    :raises MissingExtraError: if the library is not installed, or is but does not import.
    """
    silence_telemetry()
    top = module.partition(".")[0]
    extra = extra or EXTRA_OF.get(top)
    command = f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install {top}"
    try:
        return importlib.import_module(module)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == top
        why = "is not installed here" if absent else f"is installed here but does not import ({error})"
        raise MissingExtraError(
            f"{purpose} needs the library {top!r}, which {why}; run: {command}",
            library=top,
            extra=extra,
            purpose=purpose,
        ) from error
