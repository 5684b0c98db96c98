"""The present of a run: what somebody asked for, what its events speak of, or its schedule."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_mlops.core.errors import SpecError
from airflow_mlops.operators.retraining import triggering
from airflow_mlops.operators.window import clock_of, window_of
from versions import ByAsset

MARCH = {"start": "2013-03-01", "end": "2013-04-01"}
APRIL = {"start": "2013-04-01", "end": "2013-05-01"}
JULY = dt.datetime(2013, 7, 1, tzinfo=dt.timezone.utc)


def triggered(*extras: dict[str, Any], **context: Any) -> Any:
    events = {f"asset {place}": [SimpleNamespace(extra=extra)] for place, extra in enumerate(extras)}
    return {"triggering_asset_events": events, **context}


@pytest.mark.parametrize(
    ("context", "given", "clock"),
    [
        # Drift of April, and the performance of March, whose labels have come by the first of May.
        (triggered({"window": APRIL}, {"window": MARCH, "as_of": "2013-05-01T00:00:00+00:00"}), None, "2013-05-01"),
        (triggered({"window": MARCH, "as_of": "2013-05-01"}), "", "2013-05-01"),
        (triggered({"from_trigger": True, "payload": {"window": MARCH}}), None, "2013-04-01"),
        (triggered({"window": APRIL}, logical_date=JULY), "2013-08-01", "2013-08-01"),
        (triggered({}, logical_date=JULY), None, "2013-07-01"),
        ({"data_interval_end": JULY, "logical_date": JULY - dt.timedelta(days=30)}, None, "2013-07-01"),
    ],
    ids=["two events", "label delay", "watcher", "asked for", "events say nothing", "schedule"],
)
def test_the_clock_of_a_run(context: Any, given: Any, clock: str) -> None:
    assert clock_of(context, given) == f"{clock}T00:00:00+00:00"


def test_an_event_that_cannot_be_read_says_nothing_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    bad = [{"window": "last week"}, {"window": {"end": "2013-05-01"}}, {"as_of": "soon"}, {"window": {}, "as_of": 7}]
    context = triggered(*bad, {"window": MARCH})
    assert clock_of(context) == "2013-04-01T00:00:00+00:00"
    assert window_of(context, None) == window_of(triggered({"window": MARCH}), None)
    assert caplog.text.count("cannot be read") == 6


def test_an_event_that_speaks_of_the_future_says_nothing_of_the_present() -> None:
    ahead = {"window": {"start": "2099-01-01", "end": "2099-02-01"}}
    assert clock_of(triggered({"window": MARCH}, ahead)) == "2013-04-01T00:00:00+00:00"
    assert clock_of(triggered(ahead)) < "2099"


def test_without_any_of_these_it_is_now_and_what_is_no_instant_is_refused() -> None:
    before = dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=1)
    assert dt.datetime.fromisoformat(clock_of({})) >= before  # type: ignore[typeddict-item]
    with pytest.raises(SpecError):
        clock_of({}, "soon")  # type: ignore[typeddict-item]


def test_the_events_of_assets_that_cannot_be_hashed_are_read() -> None:
    event = SimpleNamespace(extra={"kind": "drift", "id": "1", "window": MARCH})
    context: Any = {"triggering_asset_events": ByAsset(({"uri": "a"}, [event]), ({"uri": "b"}, []))}
    assert window_of(context, None) == {name: f"{day}T00:00:00+00:00" for name, day in MARCH.items()}
    assert list(triggering(context)) == [event.extra]
