"""A fitted model as a folder of MLflow: one estimator with its features, code, types, signature, requirements.

The folder loads in a process that has neither the user's project on its path nor this provider installed.
"""

from __future__ import annotations

import inspect
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError, UnsupportedError, did_you_mean
from airflow_mlops.core.extras import require
from airflow_mlops.core.models import quietly, skops_io
from airflow_mlops.core.training import flavours, provenance
from airflow_mlops.core.training.fitting import name_of

if TYPE_CHECKING:
    import pandas

#: Libraries whose types a model may always have.
TRUSTED_LIBRARIES = ("sklearn", "numpy", "scipy", "pandas", "xgboost", "lightgbm")
#: Types of Python's own that run nothing but what they hold, which is checked as well.
TRUSTED_TYPES = ("functools.partial", "collections.OrderedDict", "collections.defaultdict", "collections.Counter")
#: A value of a text column stands in the input example only if so many rows share it.
COMMON = 5


def assemble(features: Callable[..., Any] | None, fitted: Any) -> Any:
    """Return the estimator that is logged: the fitted one, with the features function before it.

    :raises SpecError: if the function cannot be imported by another process.
    :raises UnsupportedError: if the model has not got scikit-learn's methods.
    """
    if features is None:
        return fitted
    flavours.check_features(fitted)
    if not provenance.importable(features):
        raise SpecError(
            f"the features function {name_of(features)} is logged inside the model, so other processes must be able to "
            "import it: put it at the top level of a module beside the DAG file, not in the DAG file or in a function"
        )
    pipeline = require("sklearn.pipeline", "training a model")
    preprocessing = require("sklearn.preprocessing", "training a model")
    return pipeline.Pipeline([("features", preprocessing.FunctionTransformer(features)), ("model", fitted)])


def types_of(model: Any, own: Iterable[str], trusted_types: Iterable[str]) -> tuple[list[str], set[str]]:
    """Return the types that skops must be told to trust, and the modules they are from.

    :param own: the user's top packages: those of the trainer, of the features and of what these import.
    :param trusted_types: further types or functions, as dotted names.
    :raises UnsupportedError: if the model cannot be written without pickle, or has types of other libraries.
    """
    skops = skops_io("logging a model")
    try:
        with quietly():
            untrusted = skops.get_untrusted_types(data=skops.dumps(model))
    except Exception as error:
        raise _not_storable(model, error) from error
    refused = [t for t in untrusted if not allowed(t, own, trusted_types)]
    if refused:
        near = did_you_mean(refused[0], trusted_types)
        raise UnsupportedError(
            f"the model has types that are not on the allow-list: {', '.join(refused[:10])}{near} A model that is "
            f"loaded runs their code; if you trust them, pass trusted_types={refused[:10]!r}",
            types=refused,
        )
    homes = {t: _home(t) for t in untrusted}
    lost = [t for t, home in homes.items() if home is None]
    if lost:
        raise UnsupportedError(
            f"other processes could not import {', '.join(lost[:5])}, which the model needs: put it at the top level "
            "of a module beside the DAG file, not in the DAG file, a notebook or a function",
            types=lost,
        )
    return list(untrusted), {home for home in homes.values() if home}


def allowed(dotted: str, own: Iterable[str], trusted_types: Iterable[str]) -> bool:
    """Return whether a model may have a type: of a known library, of the user's own packages, or named."""
    top = dotted.partition(".")[0]
    return top in TRUSTED_LIBRARIES or top in own or dotted in TRUSTED_TYPES or dotted in trusted_types


def _not_storable(model: Any, error: BaseException) -> UnsupportedError:
    return UnsupportedError(
        f"the model ({_kind(model)}) cannot be stored without pickle: {type(error).__name__}: {str(error)[:300]}. Its "
        "functions and classes must stand at the top level of a module; if it cannot be helped, trust='pickle' stores "
        "it as a pickle, which runs whatever is in it when it is loaded"
    )


def _home(dotted: str) -> str | None:
    """Return the module that a dotted name is in, as another process would find it."""
    parts = dotted.split(".")
    for end in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:end])
        if name != "__main__" and provenance.find_module(name) is not None:
            return name
    return None


def _kind(model: Any) -> str:
    steps = getattr(model, "steps", None)
    return _kind(steps[-1][1]) if steps else type(model).__name__


def signature_of(raw: pandas.DataFrame, labels: Any, logger: Any, optional: Iterable[str] = ()) -> Any:
    """Return MLflow's signature of the raw feature columns; a column with nulls is optional.

    A column of whole numbers is ``long``, as the trainer saw it, and MLflow then refuses rows that lack the value:
    which of them may be missing is for the user to say (``nullable``).

    A column of a type that MLflow has no name for is listed as ``Any``, and the log says so.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    known = {spec.name: spec.type for spec in _inferred(raw.head(1000))}
    for name in set(raw.columns) - {n for n, kind in known.items() if not isinstance(kind, AnyType)}:
        # A type that MLflow does not know spoils the whole frame; nulls may fill the first rows.
        known |= {spec.name or name: spec.type for spec in _inferred(raw[[name]].dropna().head(1000))}
    unnamed = [name for name in raw.columns if isinstance(known.get(name, AnyType()), AnyType)]
    if unnamed:
        shown = ", ".join(f"{name} ({raw[name].dtype})" for name in unnamed[:10])
        logger.warning("MLflow's signature has no type for %s: not checked at prediction", shown)
    missing = raw.isna().any()
    free = {n for n in raw.columns if bool(missing[n]) or n in set(optional)}
    inputs = [ColSpec(known.get(n, AnyType()), name=str(n), required=n not in free) for n in raw.columns]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(_inferred(labels[:1000])))


def _inferred(values: Any) -> list[Any]:
    from mlflow.models import infer_signature

    with warnings.catch_warnings(), _quiet("mlflow.models.signature"):
        warnings.simplefilter("ignore")
        return list(infer_signature(values).inputs.inputs) if len(values) else []


class _quiet:  # noqa: N801
    """Silence one logger below errors for a while."""

    def __init__(self, name: str) -> None:
        import logging

        self.logger, self.level = logging.getLogger(name), logging.ERROR

    def __enter__(self) -> None:
        self.before = self.logger.level
        self.logger.setLevel(self.level)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.before)


def example_of(raw: pandas.DataFrame) -> pandas.DataFrame:
    """Return one made-up row: each column's median, or its most common value.

    A text that fewer than 5 rows share could point at a person, so it is left empty; no row of the data is copied.
    """
    pandas = require("pandas", "logging a model")
    types = pandas.api.types
    row: dict[str, Any] = {}
    for name in raw.columns:
        column = raw[name]
        known = column.dropna()
        if types.is_bool_dtype(column) or known.empty or not _ordered(column):
            counts = known.value_counts() if _hashable(known) else known.iloc[:0]
            common = not counts.empty and (int(counts.iloc[0]) >= COMMON or types.is_bool_dtype(column))
            value = counts.index[0] if common else ("" if types.is_string_dtype(known) and not known.empty else None)
            row[name] = pandas.Series([value], dtype=column.dtype)
        else:
            row[name] = pandas.Series([known.quantile(0.5, interpolation="nearest")]).astype(column.dtype)
    return pandas.DataFrame(row, columns=raw.columns)  # type: ignore[no-any-return]


def _ordered(column: pandas.Series) -> bool:
    pandas = require("pandas", "logging a model")
    return bool(
        pandas.api.types.is_numeric_dtype(column)
        or pandas.api.types.is_datetime64_any_dtype(column)
        or pandas.api.types.is_timedelta64_dtype(column)
    )


def _hashable(column: pandas.Series) -> bool:
    return len(column) > 0 and getattr(type(column.iloc[0]), "__hash__", None) is not None


def copy_code(own: dict[str, Path], folder: Path) -> list[str]:
    """Copy the ``.py`` files of the user's packages below a folder and return the copies, one a package.

    :param own: top package or module -> its folder or file.
    """
    copies = []
    for top, root in sorted(own.items()):
        target = folder / (f"{top}.py" if root.is_file() else top)
        if root.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root, target)
        else:
            for file in root.rglob("*.py"):
                place = target / file.relative_to(root)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
        copies.append(str(target))
    return copies


def write_model(
    model: Any,
    folder: Path,
    *,
    features: Callable[..., Any] | None,
    own: set[str],
    trusted_types: list[str],
    mlflow_model: Any,
    signature: Any,
    example: pandas.DataFrame | None,
    scratch: Path,
    pickle: bool = False,
) -> list[str]:
    """Write a fitted model as an MLflow model folder and return its pinned requirements.

    :param own: the user's top packages, whose types are trusted.
    :param mlflow_model: MLflow's ``Model`` with the ids it is to carry.
    :param scratch: a folder for the copy of the code.
    :param pickle: whether a model that cannot be written without pickle is written with it.
    """
    try:
        return _write(model, folder, features, own, trusted_types, scratch, mlflow_model, signature, example)
    except UnsupportedError:
        if not pickle:
            raise
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    return _write(model, folder, features, own, None, scratch, mlflow_model, signature, example)


def _write(
    model: Any,
    folder: Path,
    features: Callable[..., Any] | None,
    own: set[str],
    trusted_types: list[str] | None,
    scratch: Path,
    mlflow_model: Any,
    signature: Any,
    example: Any,
) -> list[str]:
    """Write the folder; ``trusted_types`` None: as a pickle."""
    from mlflow.exceptions import MlflowException

    types: list[str] | None = None if trusted_types is None else []
    modules = {type(model).__module__, *(own if trusted_types is None else ())}
    if trusted_types is not None and flavours.needs_types(model):
        types, homes = types_of(model, own, trusted_types)
        modules |= homes
    if features is not None:
        modules.add(inspect.unwrap(features).__module__)
    sources = provenance.sources_of(modules)
    libraries = {*provenance.BASE, *sources.third_party, type(model).__module__.partition(".")[0]}
    pinned = provenance.requirements(provenance.versions_of(libraries - set(sources.own)))
    try:
        with quietly():
            flavours.save(
                model,
                folder,
                types=types,
                scratch=scratch.with_name("python"),
                mlflow_model=mlflow_model,
                code_paths=copy_code(sources.own, scratch) or None,
                signature=signature,
                input_example=example,
                pip_requirements=pinned,
            )
    except MlflowException as error:
        # MLflow reads the model back as it writes it, and keeps what went wrong as the cause.
        raise _not_storable(model, error.__cause__ or error) from error
    for cache in list(folder.rglob("__pycache__")):
        shutil.rmtree(cache, ignore_errors=True)
    return pinned
