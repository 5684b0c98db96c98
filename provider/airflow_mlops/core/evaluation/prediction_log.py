"""Prediction logs: what a model said of some rows, in a file or table that anybody may have written.

A log is described as ``{"uri", "format", "columns"}``: where it is, ``parquet``, ``csv`` or ``jsonl``, and which of
its columns is what. ``sagemaker`` and ``kserve`` are what those servers write; see
:mod:`airflow_mlops.core.predictions.events`. A log of ours needs no description: it is named, ``{"log": "churn"}``, or
given as the ref that batch scoring returned. No model is needed to measure one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.content import digest_of
from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.evaluation import inputs
from airflow_mlops.core.predictions import events, layout
from airflow_mlops.core.training.predictions import Predictions
from airflow_mlops.core.vocabulary import DatasetRef, role_columns

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.steps import StepContext

FIELDS = ("uri", "format", "columns", "positive", "log", "window")
#: What a log's columns may be.
COLUMNS = ("key", "time", "prediction", "probability", "label", "weight", "group")
FORMATS = ("parquet", "csv", "jsonl", *events.FORMATS)


@dataclass(frozen=True)
class Described:
    """A description that was checked.

    :param uri: path, glob or URI; None: the log is a table or query.
    :param columns: what of :data:`COLUMNS` is which column; ``probability`` may be ``{class: column}``.
    :param positive: the class that a single ``probability`` column speaks of; default: the last of the two.
    :param log: name of a log of ours, whose columns are known when it is read.
    :param window: of such a log only these rows.
    """

    uri: Any
    format: str | None
    columns: dict[str, Any]
    positive: Any = None
    log: str | None = None
    window: dict[str, Any] | None = None

    @property
    def roles(self) -> dict[str, Any]:
        """The log's columns as roles of a dataset."""
        names = {"key": "key", "time": "time", "weight": "weight", "group": "group", "label": "target"}
        return {role: self.columns[name] for name, role in names.items() if self.columns.get(name)}

    @property
    def said(self) -> list[str]:
        """The columns that hold what the model said."""
        probability = self.columns.get("probability")
        several = list(probability.values()) if isinstance(probability, Mapping) else [probability]
        return [str(one) for one in [self.columns.get("prediction"), *several] if one]


def check(predictions: Any) -> Described:
    """Return a description of a prediction log.

    :param predictions: ``{"uri", "format", "columns", "positive"}``, or a dataset ref with ``columns`` beside it as
        ``{"uri": ref, ...}``.
    :raises SpecError: for an unknown field or column (with the nearest), or one without what the model said.
    """
    if isinstance(predictions, str) and predictions:
        return Described(None, None, {}, log=predictions)
    if not isinstance(predictions, Mapping):
        raise SpecError(f"predictions is a dict like {{'uri': ..., 'columns': {{...}}}}, got {predictions!r}")
    if predictions.get("kind") == DatasetRef.kind:
        predictions = {"uri": predictions}
    for name in predictions:
        if name not in FIELDS:
            raise SpecError(f"predictions has no field {name!r}{did_you_mean(str(name), FIELDS)} It has: {FIELDS}")
    kind = predictions.get("format") or None
    if kind not in (None, *FORMATS):
        raise SpecError(f"predictions: format must be one of {', '.join(FORMATS)}, got {kind!r}")
    columns = predictions.get("columns")
    if columns is None:
        columns = _known_columns(predictions, kind)
    if not isinstance(columns, Mapping):
        raise SpecError(f"predictions needs 'columns': which column is what, of {', '.join(COLUMNS)}")
    for name in columns:
        if name not in COLUMNS:
            raise SpecError(f"predictions: there is no {name!r}{did_you_mean(str(name), COLUMNS)} It has: {COLUMNS}")
    log = predictions.get("log")
    if not log and not columns.get("prediction") and not columns.get("probability"):
        raise SpecError("predictions: name the column of 'prediction' or of 'probability'")
    return Described(
        predictions.get("uri"), kind, dict(columns), predictions.get("positive"), log, predictions.get("window")
    )


def _known_columns(predictions: Mapping[str, Any], kind: str | None) -> Any:
    """Return the columns of a log that nobody has to describe, or None."""
    if kind in events.FORMATS:
        return events.COLUMNS
    if predictions.get("log"):
        return {}
    ref = predictions.get("uri")
    names = ref.get("columns") if isinstance(ref, Mapping) else None
    return layout.described(names) if names else None


def read(
    context: StepContext,
    log: Described,
    source: inputs.Source,
    *,
    columns: Mapping[str, str] | None = None,
    roles: dict[str, Any] | None = None,
    target: str | None = None,
) -> tuple[DatasetRef, pandas.DataFrame]:
    """Return the ref and rows of a log, its labels with it.

    :param source: the log itself, if it has no ``uri``; else, if there is one, the labels: they are joined by the key.
    :param columns: ``{name: name in the data}``, for columns that tests and roles call by another name.
    :raises MissingColumnError: if a column is not there.
    :raises SpecError: if labels cannot be joined: no key, or a key that stands for several labels.
    """
    if log.log:
        log, log_source, labels = _ours(context, log), inputs.Source(), source
    elif log.uri in (None, ""):
        if not source.given:
            raise SpecError("predictions needs 'uri', or a table or sql that holds the log")
        log_source, labels = source, inputs.Source()
    else:
        log_source, labels = inputs.Source(dataset=log.uri), source
    ref, frame = _read_log(context, log, log_source, columns)
    names = [str(name) for name in frame.columns]
    for column in [*log.said, *role_columns(log.roles)]:
        if column not in names:
            raise MissingColumnError(
                f"predictions: the log {ref.name!r} has no column {column!r}{did_you_mean(column, names)}",
                column=column,
            )
    wanted = dict(log.roles)
    if labels.given:
        # Roles and target are then those of the labels.
        frame, wanted = _joined(context, frame, wanted, labels, roles, target, ref)
    else:
        wanted |= inputs.in_our_names(dict(roles or {}), columns or {})
        wanted |= {"target": target} if target else {}
    if not wanted.get("target"):
        raise SpecError(
            "the log has no labels: name their column as predictions['columns']['label'], or give a dataset with the "
            "labels and the key"
        )
    return dataclasses.replace(ref, roles={**ref.roles, **wanted}), frame


def _read_log(
    context: StepContext, log: Described, source: inputs.Source, columns: Mapping[str, str] | None
) -> tuple[DatasetRef, pandas.DataFrame]:
    if log.log:
        table = layout.read(context.store, log.log, window=log.window)
        if not table.num_rows:
            raise EmptyDataError(f"the prediction log {log.log!r} has no rows{' in the window' if log.window else ''}")
        found = inputs.renamed(table.to_pandas(), columns or {}, log.log)
        uri = context.store.uri_of(f"{layout.FOLDER}/{log.log}")
        digest = digest_of(table.to_batches(), table.schema)
        return DatasetRef(name=log.log, uri=uri, digest=digest, rows=table.num_rows), found
    if log.format in events.FORMATS:
        return events.read(str(log.uri if source.dataset is None else source.dataset), str(log.format))
    if log.format is None or not isinstance(source.dataset, str):
        return inputs.read(context, source, columns=columns)
    from airflow_mlops.core.data.reading import open_source

    opened = open_source(source.dataset, format=log.format)
    table = list(opened.batches())
    opened.check_unchanged()
    import pyarrow as pa

    ref = DatasetRef(
        name=opened.name,
        uri=opened.uri,
        digest=opened.manifest_digest(),
        format=opened.format,
        rows=opened.rows,
        source=source.dataset,
    )
    frame = pa.Table.from_batches(table, opened.schema).to_pandas()
    return ref, inputs.renamed(frame, columns or {}, ref.name)


def _ours(context: StepContext, log: Described) -> Described:
    """Return the description of a log of ours, with the columns that it has."""
    names = layout.read(context.store, str(log.log), window=log.window).column_names
    columns = {**(layout.described(names) or {}), **log.columns}
    if not columns:
        raise EmptyDataError(f"the prediction log {log.log!r} has no rows{' in the window' if log.window else ''}")
    return dataclasses.replace(log, columns=columns)


def _joined(
    context: StepContext,
    frame: pandas.DataFrame,
    wanted: dict[str, Any],
    labels: inputs.Source,
    roles: dict[str, Any] | None,
    target: str | None,
    log: DatasetRef,
) -> tuple[pandas.DataFrame, dict[str, Any]]:
    """Return the rows of the log that have a label, with what stands beside the labels."""
    ref, truth = inputs.read(context, labels, roles=roles, target=target)
    column = ref.roles.get("target")
    if not column:
        raise SpecError(f"the labels in {ref.name!r} have no target: name their column as target=")
    mine = role_columns(wanted, "key")
    theirs = role_columns(ref.roles, "key") or mine
    if not mine or len(mine) != len(theirs):
        raise SpecError(
            "labels are joined to predictions by the key: name its column as predictions['columns']['key'] and, where "
            "the labels call it by another name, as roles={'key': ...}"
        )
    for name in [*theirs, column]:
        if name not in truth.columns:
            raise MissingColumnError(f"the labels in {ref.name!r} have no column {name!r}", column=str(name))
    truth = truth.rename(columns=dict(zip(theirs, mine, strict=True)))
    if truth.duplicated(mine).any():
        raise SpecError(f"{int(truth.duplicated(mine).sum()):,} rows of the labels repeat a key: one label a key")
    fresh = [name for name in truth.columns if name in mine or name not in frame.columns or name == column]
    joined = frame.drop(columns=[column], errors="ignore").merge(truth[fresh], on=mine, how="inner")
    if joined.empty:
        raise EmptyDataError(f"no key of the log {log.name!r} is among the labels in {ref.name!r}")
    if len(joined) < len(frame):
        context.log.info("%s of %s predictions have a label", f"{len(joined):,}", f"{len(frame):,}")
    return joined.reset_index(drop=True), {**ref.roles, **wanted, "key": mine, "target": column}


def predictions_of(log: Described, frame: pandas.DataFrame, truth: Any) -> Predictions:
    """Return what the model said of the rows of a frame.

    :param truth: the labels of the same rows, which say what the classes are.
    :raises SpecError: if a single probability is given for another number of classes than two.
    """
    import numpy as np
    import pandas

    probability, prediction = log.columns.get("probability"), log.columns.get("prediction")
    labels = None if not prediction else frame[prediction].to_numpy()
    if not probability:
        assert labels is not None
        return Predictions(labels)
    if isinstance(probability, Mapping):
        known = {str(one): one for one in pandas.unique(pandas.Series(truth)).tolist()}
        # A class that JSON or a template has made a text of.
        classes = [known.get(str(name), name) for name in probability]
        matrix = frame[list(probability.values())].to_numpy(dtype="float64")
        found = np.asarray(classes)[matrix.argmax(axis=1)] if labels is None else labels
        return Predictions(found, matrix, classes)
    distinct = {*pandas.unique(pandas.Series(truth)).tolist()}
    distinct |= set() if labels is None else {*pandas.unique(pandas.Series(labels)).tolist()}
    if log.positive is not None:
        distinct.add(next((one for one in distinct if str(one) == str(log.positive)), log.positive))
    if distinct <= {0, 1}:
        distinct |= {0, 1}
    if len(distinct) != 2:
        raise SpecError(
            f"one column of probabilities speaks of two classes; the labels have {len(distinct)}. Name the class with "
            "'positive', or give 'probability' as {class: column}"
        )
    classes = sorted(distinct, key=lambda one: (str(one) == str(log.positive), str(type(one)), one))
    scores = frame[probability].to_numpy(dtype="float64", na_value=np.nan)
    if labels is None:
        labels = np.asarray(classes)[(scores >= 0.5).astype(int)]
    return Predictions(labels, np.column_stack([1 - scores, scores]), classes)
