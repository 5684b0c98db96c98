"""What the tests of one evaluation judge on: rows, predictions made once, figures computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.evaluation.loading import ModelCopy, features, said
from airflow_mlops.core.evaluation.rows import Rows, times_of
from airflow_mlops.core.training.metrics import compute_one, for_target, metric, predict
from airflow_mlops.core.training.predictions import Predictions

if TYPE_CHECKING:
    import numpy as np
    import pandas

    from airflow_mlops.core.evaluation.probation import Release
    from airflow_mlops.core.steps import StepContext
    from airflow_mlops.core.vocabulary import DatasetRef


@dataclass
class Judged:
    """One model and what it says of the rows that it is judged on.

    :param copy: its verified files.
    :param rows: positions of those rows in the dataset.
    :param predictions: what it predicts there, in that order; None if it could not.
    :param problem: why it could not.
    """

    copy: ModelCopy
    rows: np.ndarray[Any, Any]
    model: Any = None
    predictions: Predictions | None = None
    problem: str | None = None
    bad_predictions: int = 0

    def at(self, rows: np.ndarray[Any, Any]) -> Predictions | None:
        """Return the predictions of some of the dataset's rows, given by sorted position."""
        import numpy as np

        return None if self.predictions is None else self.predictions.take(np.searchsorted(self.rows, rows))


@dataclass
class Champion:
    """A version that the model is compared with: the one that serves now, or another of its alias.

    :param alias: what was asked for: ``name@alias``.
    :param role: ``champion``, ``anchor`` or ``previous``.
    :param why: why it is the anchor.
    :param settled: why nothing has to be compared, one sentence; the test then passes.
    :param judged: its predictions on the rows that neither model has seen; None if there is none, it could
        not be loaded, or it is the same model.
    :param rows: those rows, with what was left out.
    :param problem: why it cannot be compared, though there is one.
    :param unclear: why nobody can tell which is better, where nothing is wrong with it.
    """

    alias: str
    ref: Any = None
    role: Literal["champion", "anchor", "previous"] = "champion"
    why: str | None = None
    settled: str | None = None
    rows: Rows | None = None
    judged: Judged | None = None
    same: bool = False
    verified: bool | None = None
    problem: str | None = None
    unclear: str | None = None

    @property
    def exists(self) -> bool:
        """Whether there is one at all."""
        return self.ref is not None

    @property
    def who(self) -> str:
        """What it is called in a sentence."""
        if self.role == "previous":
            return f"version {self.ref.version}, which served before it,"
        if self.role == "anchor":
            return f"the anchor of {self.alias} (version {self.ref.version}, {self.why})"
        return f"the champion {self.alias} (version {self.ref.version})"


@dataclass
class Evidence:
    """Everything that the tests of one evaluation look at.

    :param frame: the dataset's rows that have a target.
    :param target: the target column.
    :param weights: one a row, or None.
    :param rows: the rows that the model is judged on, with what was left out.
    :param scratch: a local folder for files.
    :param release: of a version on probation: since when it serves.
    :param newest: of a version on probation: its newest rows, labelled or not.
    :param logged_metrics: those that the model's run has in MLflow.
    :param backtest: the origins at which the recipes were fitted anew; None: the models themselves are judged.
    """

    context: StepContext
    dataset: DatasetRef
    frame: pandas.DataFrame
    target: str
    roles: dict[str, Any]
    weights: np.ndarray[Any, Any] | None
    rows: Rows
    challenger: Judged
    scratch: Path
    not_features: list[str]
    total_rows: int = 0
    champion: Champion | None = None
    #: Other versions that tests compare with, by the name of the test.
    rivals: dict[str, Champion] = field(default_factory=dict)
    release: Release | None = None
    newest: pandas.DataFrame | None = None
    show_values: bool = False
    specs: list[dict[str, Any]] = field(default_factory=list)
    infrastructure: dict[str, Any] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)
    calibration: list[dict[str, Any]] = field(default_factory=list)
    fairness: list[dict[str, Any]] = field(default_factory=list)
    extra_metrics: dict[str, Any] = field(default_factory=dict)
    logged_metrics: dict[str, float] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    backtest: list[dict[str, Any]] | None = None
    _figures: dict[Any, tuple[float | None, str | None]] = field(default_factory=dict, repr=False)

    @property
    def judged(self) -> bool:
        """Whether there are predictions to judge, or a reason why there are none."""
        return self.challenger.predictions is not None or self.challenger.problem is not None

    @cached_property
    def moments(self) -> pandas.Series | None:
        """The time role's column as instants, or None if there is none."""
        return times_of(self.frame, self.roles)

    def truth(self, rows: np.ndarray[Any, Any]) -> Any:
        """Return the target of some rows."""
        return self.frame[self.target].to_numpy()[rows]

    def figure(
        self, judged: Judged, name: str | Callable[..., Any], rows: np.ndarray[Any, Any] | None = None
    ) -> tuple[float | None, str | None]:
        """Return a metric of a model on some of its rows (default: all), or None and why there is none."""
        if rows is not None and not (self.champion and self.champion.judged and rows is self.champion.judged.rows):
            return self._figure(judged, name, rows)
        # Several tests and the report ask for the same figure of all rows, or of all that both models predict.
        key = (judged is self.challenger, name, rows is None)
        if key not in self._figures:
            self._figures[key] = self._figure(judged, name, judged.rows if rows is None else rows)
        return self._figures[key]

    def _figure(
        self, judged: Judged, name: str | Callable[..., Any], rows: np.ndarray[Any, Any]
    ) -> tuple[float | None, str | None]:
        predictions = judged.at(rows)
        if predictions is None:
            return None, judged.problem or "the model gave no predictions"
        try:
            return compute_one(
                name, self.truth(rows), predictions, None if self.weights is None else self.weights[rows]
            )
        except MlopsError:
            raise
        except Exception as error:
            raise SpecError(
                f"the metric {metric(name).name!r} raised {type(error).__name__}; try it on the model's predictions"
            ) from error


def judge(evidence_frame: pandas.DataFrame, truth: Any, judged: Judged, not_features: list[str]) -> None:
    """Load a model and predict its rows, once; what goes wrong is kept as its problem.

    :param truth: the target of the judged rows.
    """
    with judged.copy.code():
        try:
            judged.model = judged.copy.load()
            frame = evidence_frame.iloc[judged.rows].reset_index(drop=True)
            predictions = predict(judged.model, features(judged.copy, frame, not_features))
            if len(predictions.labels) != len(frame):
                judged.problem = f"it returns {len(predictions.labels)} predictions for {len(frame)} rows"
                return
        except Exception as error:
            judged.problem = said(error, evidence_frame)
            return
    take(judged, predictions, truth)


def take(judged: Judged, predictions: Predictions, truth: Any) -> None:
    """Take what a model said of its rows.

    :param truth: the target of the same rows.
    """
    judged.bad_predictions = not_finite(predictions)
    judged.predictions = predictions if judged.bad_predictions else _with_classes(truth, predictions)


def _with_classes(truth: Any, predictions: Predictions) -> Predictions:
    # On all rows at once: a slice need not have every class.
    try:
        return for_target(truth, predictions)
    except TypeError:
        return replace(predictions)


def not_finite(predictions: Predictions) -> int:
    """Return the number of rows whose prediction holds a null, NaN or infinity."""
    import numpy as np
    import pandas

    bad = np.zeros(len(predictions.labels), dtype=bool)
    for values in (predictions.labels, predictions.probabilities, predictions.scores):
        if values is None:
            continue
        ok = np.isfinite(values) if values.dtype.kind in "fc" else ~pandas.isna(values)
        bad |= ~(ok if ok.ndim == 1 else ok.all(axis=1))
    return int(bad.sum())
