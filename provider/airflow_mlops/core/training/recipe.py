"""How a model is made: the user's function and features, hyperparameters, seed, and the code and environment behind."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.imports import load, source_root
from airflow_mlops.core.training import fitting, flavours, packaging, provenance, rows
from airflow_mlops.core.training.metrics import metric
from airflow_mlops.core.training.mlflow_run import TrainingRun
from airflow_mlops.core.training.predictions import predict
from airflow_mlops.core.training.split import validation_split
from airflow_mlops.core.vocabulary import DatasetRef

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext


@dataclass(frozen=True)
class Task:
    """What a recipe works on.

    :param split: the resolved split.
    :param scratch: an empty local folder, gone when the step ends.
    """

    context: StepContext
    run: TrainingRun
    data: rows.Rows
    ref: DatasetRef
    target: str
    split: dict[str, Any]
    scratch: Path


@dataclass(frozen=True)
class Made:
    """A fitted model.

    :param model: what is logged; it takes the raw columns of ``data``.
    :param fitted: what the user's code made, without the features function.
    :param data: the rows, with the columns that the model takes.
    :param called: what predicts frames, where that is not ``model`` itself.
    :param folder: the files, where the user's code wrote an MLflow model; nothing of it is changed.
    :param model_id: MLflow's id, where the user's code logged it.
    :param code: lets the model's own modules be imported while it is in use.
    """

    model: Any
    fitted: Any
    data: rows.Rows
    called: Any = None
    folder: Path | None = None
    model_id: str | None = None
    code: Callable[[], contextlib.AbstractContextManager[None]] = field(default=contextlib.nullcontext)

    @property
    def predicts(self) -> Any:
        """What predicts frames."""
        return self.model if self.called is None else self.called


class Recipe(ABC):
    """How a model is made.

    :param name: what is run, for messages and records.
    :param digest: of the code behind it.
    :param sources: that code.
    """

    name: str
    digest: str
    sources: provenance.Sources
    environment: dict[str, Any]
    hyperparameters: dict[str, Any]
    #: Whether it logs to MLflow as it pleases, so that a try that was killed has to begin with a run of its own.
    begins_anew = False

    def __init__(self, features: Any, seed: Any, trust: str | None) -> None:
        self.features = load(features, "features") if features else None
        self.trust = trust
        try:
            self.seed = int(seed)
        except (TypeError, ValueError) as error:
            raise SpecError(f"the seed must be a whole number, got {seed!r}") from error

    @property
    def effective(self) -> dict[str, Any]:
        """Hyperparameters as they count."""
        return self.hyperparameters

    @property
    @abstractmethod
    def place(self) -> Path | None:
        """The folder or file that the code is in."""

    @abstractmethod
    def make(self, task: Task) -> Made:
        """Make the model."""

    @property
    def packages(self) -> set[str]:
        """The user's top packages, whose types a model may have."""
        functions = [provenance.inner(self.features)] if self.features is not None else []
        return {*self.sources.own, *(str(f.__module__).partition(".")[0] for f in functions)}

    def spec(
        self, ref: DatasetRef, target: str, split: Any, metrics: Any, trusted_types: Any, nullable: Any
    ) -> dict[str, Any]:
        """Return what, if it changes, makes another model."""
        return {
            "dataset": ref.digest,
            "roles": ref.roles,
            "target": target,
            "trainer": self.name,
            "features": fitting.name_of(self.features) if self.features else None,
            "hyperparameters": self.hyperparameters,
            "split": split,
            "seed": self.seed,
            "metrics": [str(metric(name).name) for name in metrics or []],
            "trusted_types": sorted(trusted_types or []),
            "nullable": nullable if isinstance(nullable, str) else sorted(nullable or []),
            "trust": self.trust,
            "code": self.digest,
            "environment": self.environment["digest"],
        }

    def code(self, context: StepContext) -> dict[str, Any]:
        """Return the code record: git, bundle, digest, and what was run."""
        return {
            **provenance.git_of(self.place),
            "bundle_version": context.run.get("bundle_version"),
            "digest": self.digest,
            "trainer": self.name,
            "features": fitting.name_of(self.features) if self.features else None,
        }

    def write(self, task: Task, made: Made, folder: Path, labels: Any, trusted_types: Any, nullable: Any) -> None:
        """Write the model's folder with signature, input example, code and pinned requirements."""
        from mlflow.models import Model

        raw, run, log = made.data.train.raw, task.run, task.context.log
        example: Any = packaging.example_of(raw)
        try:
            predict(made.predicts, example)
        except Exception as error:
            log.warning(
                "The model does not take a typical row (%s): it is logged without an input example",
                type(error).__name__,
            )
            example = None
        whole = [n for n in raw.columns if getattr(made.data.train.frame[n].dtype, "kind", "") in "iu"]
        optional = whole if nullable == "all" else nullable or []
        packaging.write_model(
            made.model,
            folder,
            features=self.features,
            own=self.packages,
            trusted_types=list(trusted_types or []),
            mlflow_model=Model(
                artifact_path="model", model_uuid=run.model_id, run_id=run.run_id, model_id=run.model_id
            ),
            signature=packaging.signature_of(raw, labels, log, optional),
            example=example,
            scratch=folder.parent / "code",
            pickle=self.trust == "pickle",
        )


class FunctionRecipe(Recipe):
    """A trainer ``(X, y, **hyperparameters) -> fitted model``."""

    def __init__(self, trainer: Any, features: Any, hyperparameters: Any, seed: Any, trust: str | None = None) -> None:
        super().__init__(features, seed, trust)
        self.trainer = fitting.trainer_of(load(trainer, "trainer"))
        self.name = self.trainer.name
        given = fitting.mapping(hyperparameters, "hyperparameters")
        self.hyperparameters = fitting.check_hyperparameters(self.trainer, given)
        self.digest, self.sources = provenance.code_of(self.trainer.function, self.features)
        self.environment = provenance.environment_of(self.sources.third_party)

    @property
    def effective(self) -> dict[str, Any]:
        """Hyperparameters with the trainer's own defaults."""
        defaults = {
            name: parameter.default
            for name, parameter in self.trainer.hyperparameters.items()
            if parameter.default is not parameter.empty
        }
        return {**defaults, **self.hyperparameters}

    @property
    def place(self) -> Path | None:
        """The top package of the function, or its file."""
        return source_root(provenance.inner(self.trainer.function))

    @property
    def packages(self) -> set[str]:
        """The user's top packages, the function's with them."""
        return super().packages | {str(provenance.inner(self.trainer.function).__module__).partition(".")[0]}

    def make(self, task: Task) -> Made:
        """Fit the model in this process."""
        task.run.log_setup(self.effective, task.ref)
        with task.run.current():
            fitted = self.fit(task.context.log, task.data.train, task.ref, task.split)
        model = packaging.assemble(self.features, fitted)
        return Made(model, fitted, task.data, called=flavours.callable_model(model))

    def fit(self, log: logging.Logger, part: rows.Part, ref: DatasetRef, split: dict[str, Any]) -> Any:
        """Call the trainer on some rows and return what it makes, without the features function."""
        trainer, extras = self.trainer, {}
        if trainer.asks_for("X_val"):
            spec = {**split, "by": split.get("validation_by", split["by"])}
            inner = validation_split(part.frame, spec, ref.roles, _all(len(part)))
            log.info("Validation for the trainer, %s: %s of the training rows", inner.text, f"{len(inner.test):,}")
            held = _take(part, inner.test)
            part = _take(part, inner.train)
            extras = {"X_val": fitting.apply_features(self.features, held.raw), "y_val": held.y}
        for role, names in (("weight", ("sample_weight",)), ("time", ("time",)), ("group", ("groups",))):
            if trainer.asks_for(*names) and not ref.roles.get(role):
                raise SpecError(f"the trainer {trainer.name} asks for {names[0]}, but the dataset has no {role} role")
        if part.weight is not None and not trainer.asks_for("sample_weight"):
            log.warning(
                "The dataset has weights, but %s does not take sample_weight: they only count in the metrics",
                trainer.name,
            )
        X = fitting.apply_features(self.features, part.raw)  # noqa: N806
        log.info("Fitting %s on %s rows, seed %d, %s", trainer.name, f"{len(part):,}", self.seed, self.hyperparameters)
        started = time.monotonic()
        named = {**part.extras(ref.roles), **extras}
        fitted = fitting.fit(trainer, X, part.y, named, self.hyperparameters, self.seed)
        log.info("Fitted %s in %.1f s", type(fitted).__name__, time.monotonic() - started)
        return fitted


def _all(count: int) -> Any:
    import numpy as np

    return np.arange(count)


def _take(part: rows.Part, positions: Any) -> rows.Part:
    return dataclasses.replace(
        part,
        raw=part.raw.iloc[positions].reset_index(drop=True),
        y=part.y.iloc[positions].reset_index(drop=True),
        weight=None if part.weight is None else part.weight[positions],
        frame=part.frame.iloc[positions].reset_index(drop=True),
    )
