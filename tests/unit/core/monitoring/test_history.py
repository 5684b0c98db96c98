"""The history of figures: what is read is what was recorded last, whatever happened meanwhile."""

from __future__ import annotations

import math
import os
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.faults import CRASH_POINTS, VARIABLE
from airflow_mlops.core.monitoring import history
from airflow_mlops.core.store import LocalStore

MARCH = {"start": "2013-03-01", "end": "2013-04-01"}


def day(number: int) -> dict[str, str]:
    return {"end": f"2013-{1 + number // 28:02d}-{1 + number % 28:02d}", "length": "1d"}


def test_a_point_comes_back_as_it_was_recorded(store: LocalStore) -> None:
    run = {"dag_id": "d", "run_id": "r", "task_id": "t", "try_number": 3, "map_index": -1}
    figures = {"roc_auc": 0.71, "log_loss": math.nan, "rows": 100}
    history.record(
        store, "churn:7", MARCH, figures, "performance", severity="warning", summary="fell", facts={"low": 0.7}, run=run
    )
    (point,) = history.read(store, "churn")
    assert (point.subject, point.version, point.series, point.severity) == ("churn", "7", "performance", "warning")
    assert point.window == {"start": "2013-03-01T00:00:00+00:00", "end": "2013-04-01T00:00:00+00:00"}
    assert point.figures == {"roc_auc": 0.71, "log_loss": None, "rows": 100}
    assert point.facts == {"low": 0.7}
    assert point.run == {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}


def test_a_window_recorded_again_is_one_point_and_the_latest_figures_count(store: LocalStore) -> None:
    for value in (0.5, 0.6, 0.6, 0.5):
        history.record(store, "churn", MARCH, {"roc_auc": value}, "performance")
    # The same period, written in another zone.
    other = {"start": "2013-03-01T02:00:00+02:00", "end": "2013-04-01T02:00:00+02:00"}
    history.record(store, "churn", other, {"roc_auc": 0.7}, "performance")
    assert [point.figures for point in history.read(store, "churn")] == [{"roc_auc": 0.7}]
    before = list(store.keys("history"))
    history.record(store, "churn", MARCH, {"roc_auc": 0.7}, "performance")
    assert list(store.keys("history")) == before


def test_versions_and_series_are_points_of_their_own(store: LocalStore) -> None:
    history.record(store, "churn:7", MARCH, {"roc_auc": 0.5}, "performance")
    history.record(store, "churn:8", MARCH, {"roc_auc": 0.6}, "performance")
    history.record(store, "churn", MARCH, {"drift_share": 0.1}, "drift")
    history.record(store, "other", MARCH, {"drift_share": 0.1}, "drift")
    assert len(history.read(store, "churn")) == 3
    assert [point.version for point in history.read(store, "churn", metric="roc_auc")] == ["7", "8"]
    assert [point.version for point in history.read(store, "churn:8")] == ["8"]
    assert [point.version for point in history.read(store, "churn", kind="drift")] == [None]
    assert history.subjects(store) == ["churn", "other"]


def test_windows_come_in_the_order_of_their_end_and_can_be_narrowed(store: LocalStore) -> None:
    for month in (5, 3, 4, 12):
        end = {"end": f"2013-{month:02d}-01", "length": "28d"}
        history.record(store, "churn", end, {"n": month}, "drift")
    history.record(store, "churn", {"start": "2013-12-01", "end": "2014-01-01"}, {"n": 13}, "drift")

    def months(**narrowed: Any) -> list[float | None]:
        return [point.figures["n"] for point in history.read(store, "churn", **narrowed)]

    assert months() == [3, 4, 5, 12, 13]
    assert months(since="2013-05-01") == [12, 13]
    assert months(since="2013-12-15") == [13]
    assert months(until="2013-04-10") == [3, 4, 5]
    assert history.latest(store, "churn")["drift"].figures == {"n": 13}


def test_a_long_history_stays_a_few_objects_and_loses_nothing(store: LocalStore) -> None:
    for number in range(200):
        history.record(store, "churn", day(number), {"n": number}, "drift")
        history.record(store, "churn", day(number), {"n": number}, "drift")
    keys = list(store.keys("history"))
    assert len(keys) <= history.LOOSE + 2
    assert [point.figures["n"] for point in history.read(store, "churn")] == list(range(200))
    history.record(store, "churn", day(3), {"n": -3}, "drift")
    assert history.read(store, "churn")[3].figures == {"n": -3}


def test_many_at_once_lose_nothing(store: LocalStore) -> None:
    """Writers merge while others write and read."""
    errors: list[BaseException] = []

    def write(part: int) -> None:
        try:
            for number in range(40):
                history.record(store, "churn", day(number), {"n": number}, f"s{part}")
                history.read(store, "churn", kind=f"s{part}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for part in range(4):
        assert [point.figures["n"] for point in history.read(store, "churn", kind=f"s{part}")] == list(range(40))


@pytest.mark.parametrize("point", CRASH_POINTS["record_history"])
def test_killed_at_any_point_and_tried_again_there_is_one_point(store: LocalStore, point: str) -> None:
    for number in range(history.LOOSE - 1):
        history.record(store, "churn", day(number), {"n": number}, "drift")
    program = (
        "from airflow_mlops.core.monitoring import history\n"
        "from airflow_mlops.core.store import LocalStore\n"
        f"history.record(LocalStore({str(store.root)!r}), 'churn', {day(99)!r}, {{'n': 99}}, 'drift')"
    )
    killed = subprocess.run([sys.executable, "-c", program], env={**os.environ, VARIABLE: point}, check=False)
    assert killed.returncode == -signal.SIGKILL
    for _ in range(2):
        history.record(store, "churn", day(99), {"n": 99}, "drift")
        found = [point.figures["n"] for point in history.read(store, "churn")]
        assert found == [*range(history.LOOSE - 1), 99]


def test_health_is_the_worst_of_the_last_windows(store: LocalStore) -> None:
    assert history.health(store, "churn") is None
    history.record(store, "churn:1", day(1), {"n": 1}, "drift", severity="error")
    history.record(store, "churn:1", day(2), {"n": 2}, "drift", severity="warning")
    history.record(store, "churn", day(1), {"p": 2}, "performance", severity="ok", summary="holds")
    history.record(store, "churn:2", day(3), {"n": 3}, "drift")
    found = history.health(store, "churn", 1)
    assert found is not None
    assert found["severity"] == "warning"
    assert found["window"]["end"].startswith("2013-01-03")
    assert found["series"]["performance"]["summary"] == "holds"
    assert found["series"]["drift"]["figures"] == {"n": 2}


@pytest.mark.parametrize(
    ("subject", "name", "version"),
    [("churn:7", "churn", "7"), ("churn/7", "churn", "7"), ("models:/churn/7", "churn", "7"), ("a:b", "a:b", None)],
)
def test_a_subject_may_name_a_version(subject: str, name: str, version: str | None) -> None:
    assert history.split_subject(subject) == (name, version)


@pytest.mark.parametrize(
    ("subject", "window", "figures", "kind", "text"),
    [
        ("", MARCH, {}, "drift", "needs a subject"),
        ("churn", None, {}, "drift", "needs a window"),
        ("churn", MARCH, {}, "", "name of its series"),
        ("churn", MARCH, {"a": "b"}, "drift", "'a' must be a number"),
    ],
)
def test_what_is_no_point_is_refused(
    store: LocalStore, subject: str, window: Any, figures: dict[str, Any], kind: str, text: str
) -> None:
    with pytest.raises(SpecError, match=text):
        history.record(store, subject, window, figures, kind)
    assert not list(store.keys())


def test_the_example_of_the_docs(store: LocalStore) -> None:
    path = Path(__file__).resolve().parents[3] / "examples" / "history.py"
    example = runpy.run_path(str(path))["keep_the_return_rate"]
    assert example(store) == [("2026-03-09T00:00:00+00:00", 0.031), ("2026-03-16T00:00:00+00:00", 0.058)]
