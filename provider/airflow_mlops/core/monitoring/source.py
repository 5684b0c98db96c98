"""Predictions as monitoring reads them: window by window, under names of its own, whoever wrote them."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.evaluation import inputs, prediction_log
from airflow_mlops.core.evaluation.prediction_log import Described
from airflow_mlops.core.monitoring import estimate
from airflow_mlops.core.monitoring.labels import as_key
from airflow_mlops.core.predictions import layout
from airflow_mlops.core.training.predictions import Predictions
from airflow_mlops.core.vocabulary import parse_instant, role_columns

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.steps import StepContext


@dataclasses.dataclass
class PredictionSource:
    """A prediction log.

    :param given: what the user wrote.
    :param roles: added to those of the log.
    """

    context: StepContext
    described: Described
    name: str
    roles: dict[str, Any]
    window: dict[str, Any] | None = None

    @cached_property
    def _all(self) -> pandas.DataFrame:
        """All rows of a log that has no windows of its own, with ``__key__`` and ``__time__``."""
        _, frame = prediction_log._read_log(
            self.context, self.described, inputs.Source(dataset=self.described.uri), None
        )
        return self._named(frame)

    def _named(self, frame: pandas.DataFrame) -> pandas.DataFrame:
        import pandas

        names = [str(one) for one in frame.columns]
        columns = self.described.columns
        keys = role_columns({"key": columns.get("key")}, "key")
        if not keys:
            raise SpecError("predictions: name the column of the key, by which labels are joined: columns={'key': ...}")
        time = [columns["time"]] if columns.get("time") else []
        for column in [*self.described.said, *keys, *time]:
            if column not in names:
                raise MissingColumnError(
                    f"predictions: the log {self.name!r} has no column {column!r}{did_you_mean(column, names)}",
                    column=str(column),
                )
        found = frame.assign(__key__=as_key(frame, keys))
        if time:
            found["__time__"] = pandas.to_datetime(found[time[0]], utc=True, errors="coerce")
        made: pandas.DataFrame = found[found["__key__"].notna()]
        return made

    def windows(self) -> list[dict[str, Any]]:
        """Return the windows that the log itself has."""
        if self.described.log is None:
            return []
        return [one.window for one in layout.windows(self.context.store, self.described.log) if one.window]

    def frame(self, window: dict[str, str]) -> pandas.DataFrame:
        """Return the rows of a window.

        :raises EmptyDataError: if there are none.
        """
        if self.described.log is not None:
            table = layout.read(self.context.store, self.described.log, window=window)
            if not table.num_rows:
                raise EmptyDataError(f"the prediction log {self.name!r} has no rows in the window")
            self.described = dataclasses.replace(
                self.described, columns={**(layout.described(table.column_names) or {}), **self.described.columns}
            )
            found = self._named(table.to_pandas())
        else:
            found = self._all
            if "__time__" in found.columns:
                start, end = parse_instant(window["start"]), parse_instant(window["end"])
                found = found[(found["__time__"] >= start) & (found["__time__"] < end)]
        if not len(found):
            raise EmptyDataError(f"the prediction log {self.name!r} has no rows in the window")
        made: pandas.DataFrame = found.reset_index(drop=True)
        return made

    def all_keys(self) -> Any:
        """Return the keys of all rows of the log."""
        if self.described.log is None:
            return self._all["__key__"]
        table = layout.read(self.context.store, self.described.log, columns=[layout.KEY])
        return table.column(layout.KEY).to_pandas()

    @property
    def key_columns(self) -> list[str]:
        """What the log calls the key."""
        own = role_columns(self.roles, "key")
        return own or role_columns({"key": self.described.columns.get("key")}, "key")

    @property
    def label(self) -> str | None:
        """The column of the log that has the labels, or None."""
        return self.described.columns.get("label")

    @property
    def group(self) -> str | None:
        """The column that says which rows depend on each other, or None."""
        found = role_columns(self.roles, "group") or role_columns(
            {"group": self.described.columns.get("group")}, "group"
        )
        return found[0] if found else None

    def weights(self, frame: pandas.DataFrame) -> Any:
        """Return the weights of rows, or None."""
        column = self.described.columns.get("weight") or next(iter(role_columns(self.roles, "weight")), None)
        return frame[column].to_numpy(dtype="float64") if column and column in frame.columns else None

    def version(self, frame: pandas.DataFrame) -> str | None:
        """Return the version that predicted rows, if it is one and the log says so."""
        if layout.VERSION not in frame.columns:
            return None
        found = [str(one) for one in frame[layout.VERSION].dropna().unique() if str(one)]
        return found[0] if len(found) == 1 else None

    def latest_version(self) -> str | None:
        """Return the version of the log's newest window."""
        if self.described.log is None:
            return None
        known = layout.windows(self.context.store, self.described.log)
        found = known[-1].model.get("version") if known else None
        return str(found) if found else None

    def predictions(self, frame: pandas.DataFrame, truth: Any) -> Predictions:
        """Return what was said of rows.

        :param truth: their labels, which say what the classes are; None: not known.
        """
        labels = frame[self.described.columns["prediction"]] if self.described.columns.get("prediction") else []
        return prediction_log.predictions_of(self.described, frame, labels if truth is None else truth)

    def bins(self, said: Predictions, truth: Any) -> estimate.Bins | None:
        """Return rows counted by the probability of the second of two classes, or None."""
        import numpy as np

        if said.probabilities is None or said.classes is None or len(said.classes) != 2:
            return None
        positive = None if truth is None else np.asarray(truth == said.classes[-1])
        return estimate.bins_of(said.probabilities[:, -1], said.labels == said.classes[-1], positive)


def opened(context: StepContext, described: Described, given: Any, roles: dict[str, Any]) -> PredictionSource:
    """Return the log that a description stands for.

    A ref of a window of a log of ours stands for the whole log, which has the windows before as well.
    """
    ref = given if isinstance(given, dict) and given.get("kind") == "dataset" else {}
    if ref.get("log"):
        described = Described(None, None, {}, described.positive, str(ref["log"]))
        return PredictionSource(
            context, described, str(ref["log"]), {**(ref.get("roles") or {}), **roles}, ref["window"]
        )
    if described.log:
        known = layout.windows(context.store, described.log)
        own = known[-1].dataset.get("roles") or {} if known else {}
        return PredictionSource(context, described, described.log, {**own, **roles}, described.window)
    name = str(ref.get("name") or str(described.uri).rstrip("/").rpartition("/")[2] or "predictions")
    return PredictionSource(context, described, name, roles, ref.get("window"))
