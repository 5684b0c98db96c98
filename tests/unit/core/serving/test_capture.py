"""The prediction log and the figures: what is written, what is left out, and that an answer never waits."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.core.errors import CannotReachError
from airflow_mlops.core.serving import capture, measure
from airflow_mlops.core.serving.capture import Capture, Recorder
from airflow_mlops.core.serving.measure import Figures
from airflow_mlops.core.store import LocalStore

IDENTITY = {"server": "flights", "model": "flights", "version": 3, "digest": "sha256:a", "deployment": 7}
FRAME = pd.DataFrame({"id": [11, 12], "delay": [1.5, None], "carrier": ["AA", "UA"]})


def record(store: LocalStore, *requests: Any, **settings: Any) -> Figures:
    """Take some requests and stop."""
    figures = Figures(IDENTITY)
    recorder = Recorder(store, Capture.of(settings), IDENTITY, figures)
    for data, predictions in requests:
        recorder.take(data, predictions)
    recorder.close()
    return figures


def test_a_row_has_what_was_asked_and_what_was_answered(store: LocalStore) -> None:
    figures = record(store, (FRAME, np.array([0, 1])), (FRAME, np.array([1, 1])), key="id")
    rows = capture.read(store, "flights")
    assert rows["carrier"].tolist() == ["AA", "UA"] * 2
    assert rows["prediction"].tolist() == [0, 1, 1, 1]
    assert rows["prediction_key"].tolist() == ["11", "12"] * 2
    assert rows["prediction_row"].tolist() == [0, 1] * 2
    assert rows["prediction_request"].nunique() == 2
    assert set(rows["prediction_version"]) == {"3"}
    assert set(rows["prediction_deployment"]) == {"7"}
    assert figures.counters["captured_rows"] == 4
    (key,) = store.keys("predictions")
    assert "/version=3/" in key
    assert "/date=20" in key


def test_what_is_personal_stays_out(store: LocalStore) -> None:
    record(store, (FRAME, [0, 1]), columns=[])
    rows = capture.read(store, "flights")
    assert set(rows.columns) == set(capture.COLUMNS)
    assert rows["prediction_key"].str.endswith(("/0", "/1")).all()


@pytest.mark.parametrize(
    ("data", "predictions", "expected"),
    [
        (np.array([[1.0, 2.0], [3.0, 4.0]]), pd.Series([0.5, 0.7]), [0.5, 0.7]),
        (FRAME, pd.DataFrame({"p": [0.25, 0.75]}), [0.25, 0.75]),
        (FRAME, np.array([[0.25, 0.75], [0.5, 0.5]]), ["[0.25, 0.75]", "[0.5, 0.5]"]),
        (FRAME, [1, "two"], ["1", "two"]),
        ({"x": np.array([1, 2])}, ["a", "b"], ["a", "b"]),
    ],
)
def test_every_form_of_input_and_output(store: LocalStore, data: Any, predictions: Any, expected: list[Any]) -> None:
    record(store, (data, predictions))
    assert capture.read(store, "flights")["prediction"].tolist() == expected


def test_what_does_not_fit_together_is_counted_and_disturbs_nobody(store: LocalStore) -> None:
    figures = record(store, (FRAME, [1]), (FRAME, [0, 1]))
    assert figures.counters["capture_dropped_rows"] == 2
    assert len(capture.read(store, "flights")) == 2


def test_a_store_that_is_away_costs_rows_and_no_answer(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> bool:
        raise CannotReachError("the store is away")

    monkeypatch.setattr(LocalStore, "put_file", away)
    began = time.perf_counter()
    figures = record(store, (FRAME, [0, 1]))
    assert time.perf_counter() - began < 20
    assert figures.counters["capture_dropped_rows"] == 2


def test_a_sample_takes_whole_requests(store: LocalStore) -> None:
    record(store, *[(FRAME, [0, 1])] * 400, sample=0.25)
    rows = capture.read(store, "flights")
    assert 100 < len(rows) < 320
    assert rows.groupby("prediction_request").size().eq(2).all()


def test_figures_are_read_as_they_were_written() -> None:
    figures = Figures({**IDENTITY, "model": 'a "b"\\'})
    for status, seconds in ((200, 0.004), (200, 0.04), (500, 3.0), (200, 100.0)):
        figures.answered(status, seconds)
    text = figures.text()
    assert 'model="a \\"b\\"\\\\"' in text
    assert 'mlops_request_seconds_bucket{le="+Inf"} 4' in text
    found = measure.parse(text)
    assert (found["requests"], found["errors"], sum(found["buckets"])) == (4, 1, 4)
    assert measure.quantile(found["buckets"], 0.5) == 0.05
    assert measure.quantile(found["buckets"], 0.75) == 5.0
    assert measure.quantile([0] * len(found["buckets"]), 0.5) is None
