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
    "skops": "mlflow",
    "mlflow": "mlflow",
    "great_expectations": "great-expectations",
    "yaml": "great-expectations",
    "evidently": "evidently",
    "docker": "docker",
    "boto3": "amazon",
}


def silence_telemetry() -> None:
    """Turn the libraries' telemetry off, unless the user has set the variable themselves."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("DO_NOT_TRACK", "true"),
        ("GX_ANALYTICS_ENABLED", "false"),
    ):
        os.environ.setdefault(name, value)


def require(module: str, purpose: str, extra: str | None = None) -> ModuleType:
    """Import ``module`` or say how to install it.

    :param module: dotted name, e.g. ``"pyarrow.parquet"``.
    :param purpose: what needs it, for the message, e.g. ``"validate_data"``.
    :param extra: the extra to name where the module is in several.
    :raises MissingExtraError: if the library is not installed.
    """
    silence_telemetry()
    top = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        extra = extra or EXTRA_OF.get(top, top)
        raise MissingExtraError(
            f"{purpose} needs the library {top!r}, which is not installed here; "
            f"run: pip install '{DISTRIBUTION}[{extra}]'",
            library=top,
            extra=extra,
            purpose=purpose,
        ) from error
