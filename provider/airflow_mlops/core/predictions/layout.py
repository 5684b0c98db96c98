"""Where the prediction log is and what stands in it.

Batch scoring writes each window of a log as one dataset, content-addressed as every other, and then
``predictions/<log>/windows/<start>--<end>.json``, which names it: to replace that small object is to replace the
window. So a ref that was given out stays what it was, and erasure and garbage collection know the rows. A model server
writes ``predictions/<server>/date=.../version=.../*.parquet`` as requests come
(:mod:`airflow_mlops.core.serving.capture`). The columns are the same, and :func:`read` reads both.

Windows of a log are equal or apart, or no row would be counted once. One that holds older ones takes their place; one
that overlaps another is refused.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.core.errors import NotFoundError, SpecError, did_you_mean
from airflow_mlops.core.plain import clean
from airflow_mlops.core.store import Store, safe_name
from airflow_mlops.core.vocabulary import DatasetRef, Thing, Window, parse_instant, utc_now

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.core.training.predictions import Predictions

FOLDER = "predictions"
#: What every row of a log has beside the columns that came with it.
PREDICTION, KEY, TIME = "prediction", "prediction_key", "prediction_time"
MODEL, VERSION, DIGEST = "prediction_model", "prediction_version", "prediction_digest"
#: Of a classifier. Of two classes: the probability of the last one; of more: of the class that was predicted, and in
#: ``prediction_probability_<class>`` of each.
PROBABILITY = "prediction_probability"
COLUMNS = (PREDICTION, PROBABILITY, KEY, TIME, MODEL, VERSION, DIGEST)
#: Classes of which each has a column.
MAX_CLASSES = 50


@dataclass(frozen=True, kw_only=True)
class LogWindow(Thing):
    """One window of a log.

    :param log: the log's name.
    :param window: ``{"start", "end"}``; None: the rows have no time, and nobody named a window.
    :param dataset: ref of the rows.
    :param model: ``{"name", "version", "uri", "digest"}`` of what predicted them.
    :param identity: digest of all that made it: the same model, rows and columns need not be scored again.
    :param figures: of the predictions, as the history has them.
    """

    kind: ClassVar[str] = "log_window"
    log: str
    window: dict[str, str] | None
    dataset: dict[str, Any]
    model: dict[str, Any]
    identity: str
    figures: dict[str, Any] = field(default_factory=dict)
    destination_uri: str | None = None
    run: dict[str, Any] = field(default_factory=dict)
    at: str = field(default_factory=utc_now)


def probability_columns(predictions: Predictions) -> dict[str, Any]:
    """Return the columns of a classifier's probabilities, each an array of float64; none without probabilities."""
    import numpy as np

    matrix, classes = predictions.probabilities, predictions.classes
    if matrix is None or classes is None:
        return {}
    if len(classes) == 2:
        return {PROBABILITY: np.ascontiguousarray(matrix[:, -1], dtype="float64")}
    found = {PROBABILITY: np.asarray(matrix.max(axis=1), dtype="float64")}
    if len(classes) <= MAX_CLASSES:
        for place, label in enumerate(classes):
            found[f"{PROBABILITY}_{clean(label)}"] = np.ascontiguousarray(matrix[:, place], dtype="float64")
    return found


def described(columns: Iterable[str]) -> dict[str, Any] | None:
    """Return what is which column of a log of ours, or None if columns like these are no log of ours."""
    names = [str(name) for name in columns]
    if not {PREDICTION, KEY, TIME, DIGEST} <= {*names}:
        return None
    found: dict[str, Any] = {"key": KEY, "time": TIME, "prediction": PREDICTION}
    mark = f"{PROBABILITY}_"
    several = {name[len(mark) :]: name for name in names if name.startswith(mark)}
    if several:
        found["probability"] = several
    elif PROBABILITY in names:
        found["probability"] = PROBABILITY
    return found


def window_key(log: str, window: Mapping[str, str] | None, digest: str) -> str:
    """Return the key of the object that names a window's rows; rows without a window go by their digest."""
    name = digest.rpartition(":")[2][:16] if window is None else window_name(window)
    return f"{FOLDER}/{safe_name(log)}/windows/{name}.json"


def window_name(window: Mapping[str, str]) -> str:
    """Return ``<start>--<end>``, in UTC, as part of a key."""
    return f"{_compact(window['start'])}--{_compact(window['end'])}"


def windows(store: Store, log: str, within: Any = None) -> list[LogWindow]:
    """Return the windows that batch scoring has written, by their end.

    :param within: only those that overlap this window.
    """
    span = Window.of(within)
    found = []
    for key in store.keys(f"{FOLDER}/{safe_name(log)}/windows"):
        if span and not _overlaps(key.rpartition("/")[2].removesuffix(".json"), span):
            continue
        try:
            found.append(LogWindow.from_dict(store.get_json(key)))
        except NotFoundError:
            continue
    standing = [one for one in found if not any(_replaces(other, one) for other in found)]
    return sorted(standing, key=lambda one: (one.window or {}).get("end") or one.at)


def check_apart(store: Store, log: str, window: Mapping[str, str]) -> None:
    """Make sure that a window can be written: those of the log that it meets are equal to it or inside it.

    :raises SpecError: naming the one that is not.
    """
    for one in windows(store, log, window):
        if one.window and not _holds(window, one.window):
            raise SpecError(
                f"the log {log!r} has the window {one.window['start']} to {one.window['end']}, which overlaps "
                f"{window['start']} to {window['end']}: its rows would count twice. Give windows that are equal or "
                "apart, or another log_name",
                window=one.window,
            )


def _replaces(other: LogWindow, one: LogWindow) -> bool:
    """Return whether a window stands in the place of another one, which it holds and which is older."""
    if other is one or other.window is None or one.window is None or other.window == one.window:
        return False
    return other.at > one.at and _holds(other.window, one.window)


def _holds(outer: Mapping[str, str], inner: Mapping[str, str]) -> bool:
    first, last = _compact(outer["start"]), _compact(outer["end"])
    return first <= _compact(inner["start"]) and _compact(inner["end"]) <= last


def logs(store: Store) -> list[str]:
    """Return the folders of all logs there are."""
    return sorted({key.split("/")[1] for key in store.keys(FOLDER)})


def read(store: Store, log: str, *, window: Any = None, columns: list[str] | None = None) -> pyarrow.Table:
    """Return the rows of a log, from batch scoring and from a server's capture.

    :param window: only rows whose ``prediction_time`` is inside; of a batch without times the whole window that
        overlaps it.
    :param columns: only these, where a part of the log has them; default: all that any part has.
    :raises NotFoundError: if there is no such log.
    """
    import pyarrow as pa

    from airflow_mlops.core.data.dataset import read_table

    span = Window.of(window)
    parts = []
    for one in windows(store, log, span):
        ref = DatasetRef.from_dict(one.dataset)
        names = None if columns is None else [name for name in columns if ref.columns is None or name in ref.columns]
        wanted = names if names is None or TIME in names else [*names, TIME]
        # Rows without a time of their own carry when they were scored, which says nothing of the window.
        timed = "time" in ref.roles
        parts.append(_within(read_table(store, ref, wanted), span if timed else None))
    parts += [_within(part, span) for part in _captured(store, log, span)]
    if not parts:
        if log not in logs(store) and safe_name(log) not in logs(store):
            raise NotFoundError(f"there is no prediction log {log!r}{did_you_mean(log, logs(store))}")
        return pa.table({})
    found = pa.concat_tables(_aligned(parts), promote_options="permissive")
    return found if columns is None else found.select([name for name in columns if name in found.column_names])


def _aligned(parts: list[Any]) -> list[Any]:
    """Return tables whose columns of one name have types that can be promoted: numbers, or else text."""
    import pyarrow as pa

    kinds: dict[str, set[Any]] = {}
    for part in parts:
        for one in part.schema:
            kinds.setdefault(one.name, set()).add(one.type)
    mixed = set()
    for name, types in kinds.items():
        known = {one for one in types if not pa.types.is_null(one)}
        numbers = all(pa.types.is_integer(one) or pa.types.is_floating(one) for one in known)
        if len(known) > 1 and not numbers:
            mixed.add(name)
    return [_as_text(part, mixed) for part in parts]


def _as_text(part: Any, names: set[str]) -> Any:
    import pyarrow as pa

    for name in names & {*part.column_names}:
        place = part.column_names.index(name)
        kind = pa.timestamp("us", "UTC") if name == TIME else pa.string()
        part = part.set_column(place, name, part.column(name).cast(kind))
    return part


def _captured(store: Store, log: str, span: Window | None) -> list[Any]:
    """Return what a server has captured, file by file; its days are the days on which it was written."""
    import pyarrow.parquet as pq

    first = f"{parse_instant(span.start).astimezone(dt.timezone.utc):%Y-%m-%d}" if span else ""
    found = []
    for key in store.keys(f"{FOLDER}/{log}"):
        _, dated, rest = key.partition("/date=")
        # A row is written on its own day, or soon after; a container's unfinished files lie beside them.
        if dated and rest[:10] >= first:
            with store.open_input(key) as file:
                found.append(pq.read_table(file))
    return found


def _within(table: Any, span: Window | None) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if span is None or TIME not in table.column_names:
        return table
    times = table.column(TIME).cast(pa.timestamp("us", "UTC"))
    lower, upper = (pa.scalar(parse_instant(one), pa.timestamp("us", "UTC")) for one in (span.start, span.end))
    return table.filter(pc.and_(pc.greater_equal(times, lower), pc.less(times, upper)))


def _overlaps(name: str, span: Window) -> bool:
    start, found, end = name.partition("--")
    return not found or (_compact(span.start) < end and start < _compact(span.end))


def _compact(text: str) -> str:
    return parse_instant(text).astimezone(dt.timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")
