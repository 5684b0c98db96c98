"""Scoring: batches of rows in, batches of the prediction log out, one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import MlopsError, SpecError, UnsupportedError
from airflow_mlops.core.evaluation.loading import ModelCopy, features, said
from airflow_mlops.core.plain import clean
from airflow_mlops.core.predictions import layout
from airflow_mlops.core.training.predictions import Predictions, predict

if TYPE_CHECKING:
    import pandas
    import pyarrow

#: Labels that are counted one by one.
MAX_LABELS = 20


@dataclass
class Scorer:
    """One model that scores batches.

    :param copy: its verified files; the caller holds :meth:`~.ModelCopy.code` open.
    :param kept: columns of the rows that go into the log, in its order.
    :param key: the columns that identify a row; none: its number in the window does.
    :param time: the column with the instant that a row speaks of; None: ``scored_at`` stands for it.
    :param not_features: role columns, which no model is given.
    """

    copy: ModelCopy
    model: Any
    kept: list[str]
    key: list[str]
    time: str | None
    scored_at: Any
    identity: dict[str, str]
    not_features: list[str]
    rows: int = 0
    bad: int = 0
    labels: Counter[Any] = field(default_factory=Counter)
    _sums: dict[str, float] = field(default_factory=lambda: {"prediction": 0.0, "probability": 0.0})
    _classes: list[Any] | None = None
    _schema: Any = None
    _numeric: bool = True

    def score(self, batches: Iterator[Any]) -> Iterator[pyarrow.RecordBatch]:
        """Yield for each batch of rows one of the log; all have the schema of the first."""
        for batch in batches:
            if not batch.num_rows:
                continue
            said_of = self._predicted(batch.to_pandas())
            yield self._logged(batch, said_of)

    def figures(self) -> dict[str, float | int | None]:
        """Return what the history keeps of the predictions."""
        good = self.rows - self.bad
        found: dict[str, float | int | None] = {"rows": self.rows, "bad_predictions": self.bad}
        if self._classes is None and self._numeric:
            found["mean_prediction"] = self._sums["prediction"] / good if good else None
        if self._classes is not None and len(self._classes) == 2:
            positive = self.labels[clean(self._classes[-1])]
            found["positive_share"] = positive / self.rows if self.rows else None
        if self._schema is not None and layout.PROBABILITY in self._schema.names:
            found["mean_probability"] = self._sums["probability"] / good if good else None
        return found

    def facts(self) -> dict[str, Any]:
        """Return what stands beside the figures: how often each class was predicted."""
        if self._classes is None or len(self._classes) > MAX_LABELS:
            return {}
        return {"classes": {str(clean(one)): self.labels[clean(one)] for one in self._classes}}

    def _predicted(self, frame: pandas.DataFrame) -> Predictions:
        try:
            found = predict(self.model, features(self.copy, frame, self.not_features))
        except MlopsError:
            raise
        except Exception as error:
            raise SpecError(
                f"{self.copy.ref.uri} cannot predict these rows: {said(error, frame)}. Compare the dataset's columns "
                "and types with the model's signature"
            ) from error
        if len(found.labels) != len(frame):
            raise UnsupportedError(
                f"{self.copy.ref.uri} gives {len(found.labels)} predictions for {len(frame)} rows; one a row is needed"
            )
        return found

    def _logged(self, batch: Any, predictions: Predictions) -> Any:
        import pyarrow as pa

        count = batch.num_rows
        columns = {name: batch.column(name) for name in self.kept}
        columns[layout.PREDICTION] = self._labels(predictions)
        good = _finite(predictions)
        probabilities = layout.probability_columns(predictions)
        columns |= {name: pa.array(values) for name, values in probabilities.items()}
        if probabilities:
            self._sums["probability"] += float(probabilities[layout.PROBABILITY][good].sum())
        columns[layout.KEY] = self._keys(batch)
        columns[layout.TIME] = self._times(batch)
        for name, value in self.identity.items():
            columns[name] = pa.repeat(pa.scalar(value, pa.string()), count)
        self._classes = predictions.classes
        self._count(predictions, good)
        self.rows += count
        self.bad += count - int(good.sum())
        made = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        if self._schema is None:
            self._schema = made.schema
        elif made.schema != self._schema:
            if made.schema.names != self._schema.names:
                raise UnsupportedError(f"{self.copy.ref.uri} gives probabilities for some rows and none for others")
            made = pa.RecordBatch.from_arrays(
                [made.column(one.name).cast(one.type) for one in self._schema], schema=self._schema
            )
        return made

    def _labels(self, predictions: Predictions) -> Any:
        import pyarrow as pa

        labels = predictions.labels
        if labels.dtype.kind == "O":
            kinds = {type(one) for one in labels if one is not None}
            if len(kinds) > 1:
                return pa.array([None if one is None else str(clean(one)) for one in labels], pa.string())
        elif labels.dtype.kind in "US":
            return pa.array(labels.astype(object), pa.string())
        return pa.array(labels)

    def _keys(self, batch: Any) -> Any:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.key:
            return pa.array(np.arange(self.rows, self.rows + batch.num_rows)).cast(pa.string())
        parts = [batch.column(name).cast(pa.string()) for name in self.key]
        return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "/")

    def _times(self, batch: Any) -> Any:
        import pyarrow as pa

        kind = pa.timestamp("us", "UTC")
        if self.time is None:
            return pa.repeat(pa.scalar(self.scored_at, kind), batch.num_rows)
        column = batch.column(self.time)
        if pa.types.is_date(column.type):
            return column.cast(pa.timestamp("us")).cast(kind)
        return column.cast(kind, safe=False)

    def _count(self, predictions: Predictions, good: Any) -> None:
        import numpy as np

        labels = predictions.labels
        if predictions.classes is not None:
            if len(predictions.classes) <= MAX_LABELS:
                for one in predictions.classes:
                    self.labels[clean(one)] += int((labels == one).sum())
        elif labels.dtype.kind in "iuf":
            self._sums["prediction"] += float(np.asarray(labels, dtype="float64")[good].sum())
        else:
            self._numeric = False


def _finite(predictions: Predictions) -> Any:
    """Return which rows have a prediction without null, NaN or infinity."""
    import numpy as np
    import pandas

    good = np.ones(len(predictions.labels), dtype=bool)
    for values in (predictions.labels, predictions.probabilities):
        if values is not None:
            ok = np.isfinite(values) if values.dtype.kind in "fc" else ~pandas.isna(values)
            good &= ok if ok.ndim == 1 else ok.all(axis=1)
    return good
