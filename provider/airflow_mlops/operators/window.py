"""The window of a run, for the operators that are given none."""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import Window, optional_instant, parse_duration, parse_instant, utc_now

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger("airflow_mlops.task")

#: What users write to take the run's data interval as the window.
DATA_INTERVAL = "data_interval"

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_HOUR = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}")
_MONTH = re.compile(r"(\d{4})-(\d{2})")


def window_of(context: Context, value: Any) -> dict[str, Any] | None:
    """Return the window that an operator speaks of, or None if nothing says one.

    In this order: the argument; the ``window`` in the extra of the events that triggered the run (of several, the
    period that holds them all); a partition key that is a month, day or hour (``2013-03``, ``2013-03-01``,
    ``2013-03-01T06``) or an interval (``2013-03-01/2013-04-01``). The data interval only counts where the argument is
    ``"data_interval"``: a cron schedule makes it empty by default, and an asset-triggered run has none.

    :raises SpecError: if the argument is no window, or is ``"data_interval"`` and the run has none.
    """
    if value == DATA_INTERVAL:
        return _of_interval(context)
    window = Window.of(value) or _of_events(context) or _of_partition(context.get("partition_key"))
    return {"start": window.start, "end": window.end} if window else None


def clock_of(context: Context, given: Any = None) -> str:
    """Return the present of a run, ISO 8601 in UTC: what windows, cooldowns and label delays are measured from.

    In this order: the argument; the latest instant that the events which triggered the run speak of (``as_of``, else
    the end of their window); the end of the data interval, or the logical date; the worker's clock. Where months are
    replayed, an event's own present is theirs, while an asset-triggered run has no date but that of today. An event
    that speaks of the future, because its window is not over or its sender's clock is wrong, says nothing of it.

    :param given: an instant that somebody asked for; None or empty: none.
    :raises SpecError: if that is none.
    """
    found = optional_instant(given, "clock")
    if found is None:
        told = [instant for extra in _extras(context) if (instant := _told_at(extra))]
        scheduled = context.get("data_interval_end") or context.get("logical_date")
        now = parse_instant(utc_now())
        for one in told:
            if one > now:
                log.warning("an event of this run speaks of %s, which lies ahead: it says nothing of the present", one)
        found = max((one for one in told if one <= now), default=parse_instant(scheduled or now))
    return found.astimezone(dt.timezone.utc).isoformat()


def triggering_events(context: Context) -> Iterator[Any]:
    """Yield the asset events that triggered a run."""
    # No dict is made of it: on Airflow 3.1 its keys, assets, cannot be hashed.
    events: Any = context.get("triggering_asset_events") or {}
    for several in events.values():
        yield from several


def _extras(context: Context) -> Iterator[dict[str, Any]]:
    """Yield what each of the events that triggered the run tells; of a watcher's event its payload."""
    for event in triggering_events(context):
        extra = getattr(event, "extra", None) or {}
        payload = extra.get("payload")
        yield payload if isinstance(payload, dict) and not extra.get("window") else extra


def _told_at(extra: dict[str, Any]) -> dt.datetime | None:
    window = _window_in(extra)
    try:
        return optional_instant(extra.get("as_of") or (window.end if window else None), "as_of")
    except SpecError as error:
        log.warning("an event of this run has a present that cannot be read: %s", error.message)
        return None


def _window_in(extra: dict[str, Any]) -> Window | None:
    """Return the window that an event tells of; one that cannot be read is nobody's: the run would fail for ever."""
    try:
        return Window.of(extra.get("window"))
    except SpecError as error:
        log.warning("an event of this run has a window that cannot be read: %s", error.message)
        return None


def _of_interval(context: Context) -> dict[str, Any]:
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or end is None or start >= end:
        raise SpecError(
            "window='data_interval', but this run has no data interval of any length: use a timetable that makes one "
            "(CronDataIntervalTimetable), or give the window as {'start', 'end'}"
        )
    return {"start": start.isoformat(), "end": end.isoformat()}


def _of_events(context: Context) -> Window | None:
    windows = [window for extra in _extras(context) if (window := _window_in(extra))]
    if not windows:
        return None
    return Window.of(
        {
            "start": min(parse_instant(w.start) for w in windows),
            "end": max(parse_instant(w.end) for w in windows),
        }
    )


def _of_partition(key: Any) -> Window | None:
    """Return the period that a partition key names; a key that is no period names none."""
    text = str(key or "")
    start, slash, end = text.partition("/")
    try:
        if slash:
            return Window.of({"start": start, "end": end})
        if month := _MONTH.fullmatch(text):
            year, number = int(month[1]), int(month[2])
            after = f"{year + number // 12:04d}-{number % 12 + 1:02d}-01"
            return Window.of({"start": f"{text}-01", "end": after})
        for pattern, length in ((_DAY, "1d"), (_HOUR, "1h")):
            if pattern.fullmatch(text):
                begin = parse_instant(text)
                return Window.of({"start": begin, "end": begin + parse_duration(length)})
    except SpecError:
        return None
    return None
