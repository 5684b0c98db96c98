"""The window of a run, for the operators that are given none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import Window, parse_duration, parse_instant

if TYPE_CHECKING:
    from airflow.sdk import Context

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


def _of_interval(context: Context) -> dict[str, Any]:
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is None or end is None or start >= end:
        raise SpecError(
            "window='data_interval', but this run has no data interval of any length: use a timetable that makes one "
            "(CronDataIntervalTimetable), or give the window as {'start', 'end'}"
        )
    return {"start": start.isoformat(), "end": end.isoformat()}


def _of_events(context: Context) -> Window | None:
    windows = []
    for events in dict(context.get("triggering_asset_events") or {}).values():
        for event in events:
            extra = getattr(event, "extra", None) or {}
            payload = extra.get("payload")
            inner = payload.get("window") if isinstance(payload, dict) else None
            window = Window.of(extra.get("window") or inner)
            if window:
                windows.append(window)
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
