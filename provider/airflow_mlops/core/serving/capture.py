"""Capture: a sample of what a model was asked and what it answered, as a prediction log in the store.

The log of a server is Parquet below ``predictions/<server>/date=YYYY-MM-DD/version=<version>/``, one file for each
flush of each process; a file is whole or not there. Beside the request's own columns a row has those of
:data:`COLUMNS`. Answers wait for nothing: rows go to a queue, and are dropped, and counted, when it is full.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError, did_you_mean
from airflow_mlops.core.predictions import layout
from airflow_mlops.core.store import Store, safe_name

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.serving.measure import Figures

log = logging.getLogger("airflow_mlops.serving")

#: What a row of the log has beside the columns of the request: those of every log, but for the probability, which a
#: regressor has none of, and those that a server adds.
COLUMNS = (
    *(name for name in layout.COLUMNS if name != layout.PROBABILITY),
    "prediction_request",
    "prediction_row",
    "prediction_deployment",
)
#: Rows that may wait to be written.
MAX_WAITING = 100_000


@dataclass(frozen=True)
class Capture:
    """What is captured.

    :param sample: share of the requests, 0 to 1. A request is captured with all its rows, or not at all.
    :param key: column of the request that identifies a row; without one it is ``<request>/<number of the row>``.
    :param columns: columns of the request that are written; None: all. ``[]``: none, so that no value of a person is.
    :param flush_seconds: how long rows may wait to be written.
    :param probability: whether a classifier that answers with labels is asked for its probabilities too, after the
        answer has gone out.
    """

    sample: float = 1.0
    key: str | None = None
    columns: list[str] | None = None
    flush_seconds: float = 30.0
    probability: bool = True

    @classmethod
    def of(cls, value: Any) -> Capture:
        """Read what a user wrote: None (all), False (nothing), a share, or a dict of the fields.

        :raises SpecError: for anything else.
        """
        if value is None or value is True:
            return cls()
        if value is False:
            return cls(sample=0.0)
        if isinstance(value, (int, float)):
            value = {"sample": value}
        if not isinstance(value, Mapping):
            raise SpecError(f"capture must be a share from 0 to 1, False, or a dict, got {value!r}")
        names = [one.name for one in fields(cls)]
        for key in value:
            if key not in names:
                raise SpecError(f"capture has no {key!r}{did_you_mean(key, names) or '.'} It has {', '.join(names)}")
        found = cls(**value)
        if not isinstance(found.sample, (int, float)) or not 0 <= found.sample <= 1:
            raise SpecError(f"capture's sample must be a share from 0 to 1, got {found.sample!r}")
        if not isinstance(found.probability, bool):
            raise SpecError(f"capture's probability must be true or false, got {found.probability!r}")
        if not isinstance(found.flush_seconds, (int, float)) or found.flush_seconds <= 0:
            raise SpecError(f"capture's flush_seconds must be more than 0, got {found.flush_seconds!r}")
        return found


class Recorder:
    """Takes rows from the model's threads and writes them from one of its own.

    :param identity: ``server``, ``model``, ``version``, ``digest``, ``deployment``.
    :param prefix: what the keys of the log begin with; default: :func:`folder_of` the server.
    :param model: the model, where its probabilities are wanted; it is asked by the writing thread.
    """

    def __init__(
        self,
        store: Store,
        capture: Capture,
        identity: Mapping[str, Any],
        figures: Figures,
        prefix: str | None = None,
        model: Any = None,
    ) -> None:
        self._model = model if capture.probability else None
        self.store, self.capture, self.identity, self.figures = store, capture, dict(identity), figures
        self.prefix = folder_of(str(identity["server"])) if prefix is None else prefix
        self._waiting: deque[tuple[Any, Any, float]] = deque()
        self._rows = 0
        self._lock = threading.Lock()
        self._closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        if capture.sample > 0:
            import pyarrow.parquet  # noqa: F401 - now, not while requests are answered

            self._thread.start()

    def take(self, data: Any, predictions: Any) -> None:
        """Take one request; it is looked at later, by the writing thread."""
        if self.capture.sample <= 0 or random.random() >= self.capture.sample:  # noqa: S311 - samples, guards nothing
            return
        rows = len(predictions) if hasattr(predictions, "__len__") else 1
        with self._lock:
            if self._rows + rows <= MAX_WAITING:
                self._waiting.append((data, predictions, time.time()))
                self._rows += rows
                rows = 0
            if self._rows > MAX_WAITING // 2:
                self._wake.set()
        if rows:
            self.figures.add("capture_dropped_rows", rows)

    def close(self) -> None:
        """Write what waits, and stop."""
        self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self.capture.flush_seconds)
            self._wake.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            waiting, self._waiting, self._rows = self._waiting, deque(), 0
        taken = []
        for data, predictions, at in waiting:
            frame: Any = ()
            try:
                frame, values = as_frame(data), as_list(predictions)
                if len(frame) != len(values):
                    raise ValueError("so many rows, and so many predictions")
                taken.append((frame, values, at))
            except Exception as error:
                self.figures.add("capture_dropped_rows", max(len(frame), 1))
                log.warning("A request was not captured: %s", type(error).__name__)
        if not taken:
            return
        rows = sum(len(frame) for frame, *_ in taken)
        try:
            self._write(self._table(taken))
            self.figures.add("captured_rows", rows)
        except Exception as error:
            # What serves goes on; the counter says what is missing.
            self.figures.add("capture_dropped_rows", rows)
            log.warning("%s rows were not captured: %s: %s", rows, type(error).__name__, str(error)[:300])

    def _write(self, frame: pandas.DataFrame) -> None:
        now = dt.datetime.now(dt.timezone.utc)
        version = self.identity.get("version")
        partition = f"date={now:%Y-%m-%d}/version={safe_name(str(version)) if version else 'none'}"
        key = f"{self.prefix}/{partition}/{now:%H%M%S%f}-{uuid.uuid4().hex}.parquet".lstrip("/")
        with self.store.staging() as folder:
            # Text and numbers in one column are what a client may send; Arrow has no such type.
            for name in frame.select_dtypes("object").columns:
                if frame[name].map(type).nunique() > 1:
                    frame[name] = frame[name].map(lambda value: None if value is None else str(value))
            frame.to_parquet(folder / "rows.parquet", index=False)
            self.store.put_file(key, folder / "rows.parquet", if_absent=True)

    def _table(self, taken: list[tuple[pandas.DataFrame, list[Any], float]]) -> pandas.DataFrame:
        """Return the rows of some requests, column by column: answers wait while this computes."""
        import pandas as pd

        sizes = [len(frame) for frame, *_ in taken]
        requests = [uuid.uuid4().hex for _ in taken]
        made: pandas.DataFrame = pd.concat([frame for frame, *_ in taken], ignore_index=True)
        of_request = [request for request, size in zip(requests, sizes, strict=True) for _ in range(size)]
        numbers = [number for size in sizes for number in range(size)]
        own = self.capture.key
        keys: list[str] = []
        for request, (frame, _, _) in zip(requests, taken, strict=True):
            named = own in frame.columns
            keys += map(str, frame[own].tolist()) if named else (f"{request}/{n}" for n in range(len(frame)))
        probabilities = self._probabilities(made)
        if self.capture.columns is not None:
            made = made[[name for name in self.capture.columns if name in made.columns]].copy()
        made.columns = [str(name) for name in made.columns]
        times = [at for _, answers, at in taken for _ in answers]
        made["prediction"] = [value for _, answers, _ in taken for value in answers]
        for name, values in probabilities.items():
            made[name] = values
        made["prediction_key"] = keys
        made["prediction_time"] = pd.to_datetime(times, unit="s", utc=True).as_unit("us")
        made["prediction_request"] = of_request
        made["prediction_row"] = numbers
        for name in ("model", "version", "digest", "deployment"):
            made[f"prediction_{name}"] = str(self.identity.get(name) or "")
        return made

    def _probabilities(self, frame: pandas.DataFrame) -> dict[str, Any]:
        if self._model is None:
            return {}
        from airflow_mlops.core.training.predictions import predict

        try:
            found = predict(self._model, frame)
        except Exception as error:
            # What cannot be asked once cannot be asked again: the log goes on without.
            log.warning("The model's probabilities are not captured: %s", type(error).__name__)
            self._model = None
            return {}
        if found.probabilities is None:
            self._model = None
        return layout.probability_columns(found)


class RecordedModel:
    """A pyfunc model whose predictions are taken by a recorder; what the scoring server needs of a model.

    :param model: the model.
    """

    def __init__(self, model: Any, recorder: Recorder, figures: Figures) -> None:
        self.metadata = model.metadata
        self._model, self._recorder, self._figures = model, recorder, figures

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """Return the model's predictions."""
        found = self._model.predict(data, params=params)
        self._figures.add("predicted_rows", len(data) if hasattr(data, "__len__") else 1)
        self._recorder.take(data, found)
        return found


def folder_of(server: str) -> str:
    """Return what the keys of a server's log begin with."""
    return f"{layout.FOLDER}/{server}"


def as_frame(data: Any) -> pandas.DataFrame:
    """Return a request's input as rows."""
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, dict):
        made: pandas.DataFrame = pd.DataFrame({key: list(value) for key, value in data.items()})
    else:
        rows = getattr(data, "tolist", lambda: data)()
        made = pd.DataFrame([row if isinstance(row, list) else [row] for row in rows])
    return made


def as_list(predictions: Any) -> list[Any]:
    """Return one plain value for each row; what is no scalar as JSON."""
    import pandas as pd

    from airflow_mlops.core.plain import clean

    rows = predictions.to_dict("records") if isinstance(predictions, pd.DataFrame) else clean(predictions)
    if rows and isinstance(rows[0], dict) and len(rows[0]) == 1:
        rows = [next(iter(row.values())) for row in rows]
    return [json.dumps(clean(row)) if isinstance(row, (dict, list)) else clean(row) for row in rows]


def read(store: Store, server: str, *, since: dt.datetime | None = None, deployment: int | None = None) -> Any:
    """Return a server's log as a data frame, or None if it is empty.

    :param since: only what was asked from then on.
    :param deployment: only what this deployment answered.
    """
    import pandas as pd

    frames = []
    for key in store.keys(folder_of(server)):
        _, dated, rest = key.partition("/date=")
        # A container's unfinished files lie beside them.
        if dated and (since is None or rest[:10] >= f"{since:%Y-%m-%d}"):
            with store.open_input(key) as file:
                frames.append(pd.read_parquet(file))
    if not frames:
        return None
    found = pd.concat(frames, ignore_index=True)
    if since is not None:
        found = found[found["prediction_time"] >= since]
    if deployment is not None:
        found = found[found["prediction_deployment"] == str(deployment)]
    return found.reset_index(drop=True)
