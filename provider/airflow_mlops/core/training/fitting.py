"""Calling the user's trainer: what it asks for by name, its hyperparameters, the seed, and what it gives back."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import CannotReachError, MlopsError, SpecError, did_you_mean
from airflow_mlops.core.imports import module_of
from airflow_mlops.core.tracking import strip_credentials
from airflow_mlops.core.training import provenance

if TYPE_CHECKING:
    import pandas

#: What a trainer is given if it names it.
EXTRAS = ("sample_weight", "groups", "time", "X_val", "y_val", "seed", "random_state")


@dataclass(frozen=True)
class Trainer:
    """A training function and what its signature asks for.

    :param name: how it is called in messages and records.
    :param extras: names of :data:`EXTRAS` among its parameters.
    :param hyperparameters: its other parameters; None if it takes any.
    """

    function: Callable[..., Any]
    name: str
    extras: tuple[str, ...]
    hyperparameters: dict[str, inspect.Parameter] = field(repr=False)
    takes_any: bool = False

    def asks_for(self, *names: str) -> bool:
        """Return whether it names one of these extras."""
        return any(name in self.extras for name in names)


def trainer_of(function: Callable[..., Any]) -> Trainer:
    """Read a trainer's signature ``(X, y, **hyperparameters)``.

    :raises SpecError: if it cannot be called with ``X`` and ``y``.
    """
    name = name_of(function)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise SpecError(f"the trainer {name} has no signature that can be read; wrap it in a function") from error
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise SpecError(f"the trainer {name} must take the features and the target first: def train(X, y, ...)")
    rest = {p.name: p for p in parameters if p not in positional[:2]}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in rest.values())
    named = {k: p for k, p in rest.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    extras = tuple(k for k in EXTRAS if k in named)
    if "X_val" in extras and "y_val" not in extras:
        raise SpecError(f"the trainer {name} asks for X_val but not for y_val")
    hyperparameters = {k: p for k, p in named.items() if k not in EXTRAS}
    return Trainer(function, name, extras, hyperparameters, takes_any)


def name_of(function: Callable[..., Any]) -> str:
    """Return ``module:qualname`` of a callable; of a ``functools.partial`` that of the function inside."""
    function = provenance.inner(function)
    return f"{module_of(function)}:{getattr(function, '__qualname__', type(function).__name__)}"


def mapping(value: Any, what: str) -> dict[str, Any]:
    """Return a dict argument, which a template may have rendered as text.

    :raises SpecError: if it is no dict.
    """
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(value)
                break
            except (ValueError, SyntaxError):
                continue
    if not isinstance(value, dict):
        raise SpecError(f"{what} must be a dict, got {type(value).__name__}")
    return value


def check_hyperparameters(trainer: Trainer, given: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters, with text turned into numbers where the trainer's defaults are numbers.

    :raises SpecError: for one that the trainer does not take (naming the nearest), or one that it needs.
    """
    known = [*trainer.hyperparameters, *(name for name in ("seed", "random_state") if name in trainer.extras)]
    for name in given:
        if name in trainer.hyperparameters:
            continue
        if name in EXTRAS:
            raise SpecError(f"{name!r} is no hyperparameter: the step passes it to the trainer itself")
        if not trainer.takes_any:
            near = did_you_mean(name, known) or "."
            takes = ", ".join(known) or "none"
            raise SpecError(
                f"the trainer {trainer.name} has no hyperparameter {name!r}{near} It takes: {takes}",
                hyperparameter=name,
            )
    missing = [n for n, p in trainer.hyperparameters.items() if p.default is p.empty and n not in given]
    if missing:
        raise SpecError(f"the trainer {trainer.name} needs the hyperparameter(s) {', '.join(missing)}", missing=missing)
    return {name: _typed(trainer, name, value) for name, value in given.items()}


def _typed(trainer: Trainer, name: str, value: Any) -> Any:
    """Return a number for its text, as a template renders it, where the trainer's default is a number."""
    parameter = trainer.hyperparameters.get(name)
    default = parameter.default if parameter else None
    if not isinstance(value, str) or not isinstance(default, (bool, int, float)):
        return value
    try:
        read = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        read = value
    if not isinstance(read, (bool, int, float)):
        raise SpecError(f"the hyperparameter {name!r} must be a {type(default).__name__}, got the text {value!r}")
    return read


def seed_everything(seed: int) -> None:
    """Seed Python's and NumPy's global generators, for trainers that use them."""
    import random

    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)


def fit(
    trainer: Trainer,
    X: pandas.DataFrame,  # noqa: N803
    y: pandas.Series,
    extras: dict[str, Any],
    hyperparameters: dict[str, Any],
    seed: int,
) -> Any:
    """Call the trainer and return the fitted model.

    :param extras: values for the extras that it names.
    :raises SpecError: if it raises, or returns something that cannot predict.
    :raises CannotReachError: if what it raises is a failure of the network or the disk, which a retry may not meet.
    """
    named = {name: value for name, value in extras.items() if name in trainer.extras}
    named |= {name: seed for name in ("seed", "random_state") if name in trainer.extras}
    seed_everything(seed)
    try:
        fitted = trainer.function(X, y, **named, **hyperparameters)
    except MlopsError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        outside = isinstance(error, OSError) and not isinstance(error, (FileNotFoundError, PermissionError))
        failure = CannotReachError if outside else SpecError
        raise failure(_why(trainer, error, X), trainer=trainer.name, error=type(error).__name__) from error
    if fitted is None:
        raise SpecError(f"the trainer {trainer.name} returned nothing; end it with `return model`")
    if isinstance(fitted, type) or not callable(getattr(fitted, "predict", None)):
        kind = fitted.__name__ if isinstance(fitted, type) else type(fitted).__name__
        raise SpecError(
            f"the trainer {trainer.name} returned {'the class' if isinstance(fitted, type) else 'a'} {kind}, which has "
            "no predict(); return the fitted estimator"
        )
    return fitted


def _why(trainer: Trainer, error: Exception, X: pandas.DataFrame) -> str:  # noqa: N803
    """Return why a trainer failed, naming the columns where its library only says that there are bad values."""
    text = strip_credentials(" ".join(str(error).split()))
    lead = f"the trainer {trainer.name} failed with {type(error).__name__}"
    if "infinity" in text or "NaN" in text:
        found = bad_columns(X)
        if found:
            return f"{lead}: {text[:200]} Columns: {'; '.join(found)}. Clean them in the snapshot or in `features`"
    if "could not convert string to float" in text:
        # scikit-learn's message goes on with the value.
        names = [repr(name) for name in X.columns if getattr(X[name].dtype, "kind", "O") == "O"]
        return f"{lead}: columns hold text where numbers are needed: {', '.join(names[:5])}. Encode or leave them out"
    return f"{lead}: {text[:500]}"


def bad_columns(frame: pandas.DataFrame) -> list[str]:
    """Return ``"'x' has 3 infinite values"`` and ``"'x' has 3 nulls"`` for the first such columns."""
    import numpy as np

    infinite, null = [], []
    for name in frame.columns:
        column = frame[name]
        if getattr(column.dtype, "kind", "O") == "f":
            count = int(np.isinf(column.to_numpy(dtype="float64", na_value=np.nan)).sum())
            if count:
                infinite.append(f"{name!r} has {count} infinite values")
        count = int(column.isna().sum())
        if count:
            null.append(f"{name!r} has {count} nulls")
    return [*infinite, *null][:5]


def apply_features(features: Callable[..., Any] | None, X: pandas.DataFrame) -> pandas.DataFrame:  # noqa: N803
    """Return what the trainer sees of the raw columns.

    :raises SpecError: if the function raises or does not return one row for each row.
    """
    if features is None:
        return X
    try:
        made = features(X.copy())
    except MlopsError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:500]
        raise SpecError(
            f"the features function {name_of(features)} failed with {type(error).__name__}: {text}",
            error=type(error).__name__,
        ) from error
    if not hasattr(made, "__len__") or len(made) != len(X):
        got = f"{len(made)} rows" if hasattr(made, "__len__") else f"a {type(made).__name__}"
        raise SpecError(
            f"the features function {name_of(features)} returned {got} for {len(X)} rows; it is part of the model and "
            "must keep every row. Filter rows before training"
        )
    return made  # type: ignore[no-any-return]
