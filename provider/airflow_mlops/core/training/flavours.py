"""The kinds of model that a trainer may return, and how each is written without pickle where that can be.

| model | MLflow's flavour | format |
| --- | --- | --- |
| scikit-learn's, any object with ``predict``, and all behind a features function | ``sklearn`` | skops |
| XGBoost: ``XGBClassifier`` and the like, ``Booster`` | ``xgboost`` | XGBoost's own |
| LightGBM: ``LGBMClassifier`` and the like; ``Booster`` | ``lightgbm`` | skops; LightGBM's own |
| ``mlflow.pyfunc.PythonModel`` | ``python_function`` | skops |

With ``trust="pickle"`` what skops cannot write is written by cloudpickle.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Literal

from airflow_mlops.core.errors import UnsupportedError
from airflow_mlops.core.training import python_model

Flavour = Literal["sklearn", "xgboost", "lightgbm", "python"]

_BY_CLASS: dict[str, Flavour] = {
    "xgboost.Booster": "xgboost",
    "xgboost.XGBModel": "xgboost",
    "lightgbm.Booster": "lightgbm",
    "lightgbm.LGBMModel": "lightgbm",
    "mlflow.PythonModel": "python",
}


def flavour_of(model: Any) -> Flavour:
    """Return how a model is written."""
    for kind in type(model).__mro__:
        found = _BY_CLASS.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
        if found:
            return found
    return "sklearn"


def is_booster(model: Any) -> bool:
    """Return whether a model is XGBoost's or LightGBM's native one."""
    return type(model).__name__ == "Booster" and type(model).__module__.partition(".")[0] in ("xgboost", "lightgbm")


def needs_types(model: Any) -> bool:
    """Return whether a model is written as skops, whose types must be on the allow-list."""
    return flavour_of(model) != "xgboost" and not is_booster(model)


def check_features(model: Any) -> None:
    """Refuse a features function before a model that cannot stand at the end of a scikit-learn pipeline.

    :raises UnsupportedError: naming what to return instead.
    """
    if is_booster(model) or flavour_of(model) == "python":
        raise UnsupportedError(
            f"a features function is logged before a model with scikit-learn's methods; a {type(model).__name__} has "
            "not got them. Return XGBClassifier, LGBMClassifier or the like, or let the model transform its input"
        )


def callable_model(model: Any) -> Any:
    """Return what predicts frames: the model itself, a ``PythonModel`` as its ``predict`` wants to be called."""
    return python_model.Called(model) if flavour_of(model) == "python" else model


def feature_names(model: Any) -> list[str] | None:
    """Return the names of the columns that a fitted model was given, in their order; None if it does not say."""
    names = getattr(model, "feature_names_in_", None)
    for attribute in ("feature_names", "feature_name"):
        if names is None and is_booster(model):
            names = getattr(model, attribute, None)
            names = names() if callable(names) else names
    if names is None and getattr(model, "steps", None):
        return feature_names(model.steps[0][1])
    return None if names is None else [str(name) for name in names]


def save(model: Any, folder: Path, *, types: list[str] | None, scratch: Path, **options: Any) -> None:
    """Write a model as a folder of MLflow.

    :param types: the types that skops is to trust; None: by cloudpickle.
    :param scratch: an empty folder for what is copied into the model's.
    :param options: of every ``save_model`` of MLflow: signature, input example, code, requirements.
    """
    flavour = flavour_of(model)
    if flavour == "xgboost":
        import mlflow.xgboost

        mlflow.xgboost.save_model(model, str(folder), **options)
    elif flavour == "lightgbm":
        import mlflow.lightgbm

        mlflow.lightgbm.save_model(model, str(folder), **_serialization(types), **options)
    elif flavour == "python":
        _save_python(model, folder, types, scratch, options)
    else:
        import mlflow.sklearn

        mlflow.sklearn.save_model(model, str(folder), **_serialization(types), **options)


def _serialization(types: list[str] | None) -> dict[str, Any]:
    if types is None:
        return {"serialization_format": "cloudpickle"}
    return {"serialization_format": "skops", "skops_trusted_types": types}


def _save_python(model: Any, folder: Path, types: list[str] | None, scratch: Path, options: dict[str, Any]) -> None:
    import mlflow.pyfunc

    if types is None:
        mlflow.pyfunc.save_model(str(folder), python_model=model, **options)
        return
    scratch.mkdir(parents=True, exist_ok=True)
    loader = scratch / f"{python_model.NAME}.py"
    loader.write_text(inspect.getsource(python_model), encoding="utf-8")
    python_model.save(model, scratch / "python_model", types)
    code = [*(options.pop("code_paths") or []), str(loader)]
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=python_model.NAME,
        data_path=str(scratch / "python_model"),
        code_paths=code,
        **options,
    )
