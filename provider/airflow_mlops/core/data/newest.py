"""The newest period that data are whole for."""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow_mlops.core.data.reading import open_source
from airflow_mlops.core.data.timespan import Span
from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.vocabulary import parse_duration, parse_instant

#: Periods are counted from a Monday, so that weeks begin on one.
ANCHOR = dt.datetime(1970, 1, 5, tzinfo=dt.timezone.utc)


def newest_window(source: str | list[str], time: str, length: str) -> dict[str, str]:
    """Return the newest period of a length that is over, as ``{"start", "end"}``.

    A period is over once there is a row of a later one. Periods begin at multiples of the length, weeks on Mondays, so
    that the same rows give the same period whenever they are looked at. If no period is over, it is the first one.

    :param source: path, folder, glob or URI, or a list of these.
    :param time: the column that says when a row is of: a timestamp, or a date.
    :param length: such as ``"7d"``, ``"1d"``, ``"6h"``.
    :raises MissingColumnError: if there is no such column.
    :raises EmptyDataError: if no row has a time.
    """
    step = parse_duration(length)
    if not step:
        raise SpecError(f"a period has a length above 0, got {length!r}")
    first, last = time_span(source, time)
    end = ANCHOR + (last - ANCHOR) // step * step
    start = end - step
    if end <= first:
        start, end = end, end + step
    return {"start": start.isoformat(), "end": end.isoformat()}


def time_span(source: str | list[str], time: str) -> tuple[dt.datetime, dt.datetime]:
    """Return the earliest and the latest time of the rows.

    :raises MissingColumnError: if there is no such column.
    :raises EmptyDataError: if no row has a time.
    """
    opened = open_source(source)
    names: list[Any] = list(opened.schema.names)
    if time not in names:
        raise MissingColumnError(f"{source} has no column {time!r}{did_you_mean(time, names)}", column=time)
    span = Span(opened.schema, time, None)
    for _ in span.keep(opened.batches([time])):
        pass
    found = span.window()
    if found is None:
        raise EmptyDataError(f"no row of {source} has a time in the column {time!r}")
    first, after = parse_instant(found["start"]), parse_instant(found["end"])
    # A window ends just after its last row.
    return first, after - dt.timedelta(microseconds=1)
