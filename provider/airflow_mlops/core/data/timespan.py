"""The time that rows speak of: keeping those inside a window, and finding the window that they span."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.vocabulary import Window

if TYPE_CHECKING:
    import pyarrow


class Span:
    """The window of a stream of batches.

    :param schema: the stream's schema in normal form.
    :param column: the time role's column, or None.
    :param asked: the window that was asked for, or None.
    :raises SpecError: if the column is no time.
    """

    def __init__(self, schema: pyarrow.Schema, column: str | None, asked: Window | None) -> None:
        import pyarrow as pa

        self.column = column
        self.asked = asked
        self.timeless = 0
        self._first: Any = None
        self._last: Any = None
        if column is None:
            return
        if not isinstance(column, str):
            raise SpecError(f"the role 'time' names one column, got {column!r}")
        self.type = schema.field(column).type
        if not (pa.types.is_timestamp(self.type) or pa.types.is_date32(self.type) or pa.types.is_null(self.type)):
            cure = "turn it into one in the source, such as by pandas.to_datetime(..., unit='s')"
            if pa.types.is_string(self.type) or pa.types.is_large_string(self.type):
                cure = (
                    f"give schema={{{column!r}: 'timestamp'}} if its text is like '2026-01-31 10:00:00', else turn it "
                    "into that in the source, such as by pandas.to_datetime(..., format='%d.%m.%Y %H:%M')"
                )
            raise SpecError(
                f"the role 'time' names the column {column!r}, which is {self.type}; it must be a timestamp or a date: "
                f"{cure}",
                column=column,
                type=str(self.type),
            )

    def keep(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches with only the rows inside the window asked for; note the time that they span."""
        import pyarrow.compute as pc

        if self.column is None:
            yield from batches
            return
        lower, upper = self._scalars() if self.asked else (None, None)
        for batch in batches:
            times = batch.column(self.column)
            self._note(times)
            if self.asked is None:
                yield batch
                continue
            inside = pc.and_(pc.greater_equal(times, lower), pc.less(times, upper))
            yield batch if pc.all(inside, skip_nulls=False).as_py() else batch.filter(inside)

    def bounds(self) -> tuple[Any, Any]:
        """Return the window asked for as two of Python's dates or datetimes that the column compares with."""
        lower, upper = self._scalars()
        return lower.as_py(), upper.as_py()

    def _scalars(self) -> tuple[Any, Any]:
        window = self.asked
        return (self._scalar(window.start), self._scalar(window.end)) if window else (None, None)

    def _scalar(self, text: str) -> Any:
        """Return an instant as a scalar that the column compares with.

        A date is its midnight in UTC; so a window that begins or ends within a day begins or ends with the next.
        """
        import pyarrow as pa

        instant = dt.datetime.fromisoformat(text).astimezone(dt.timezone.utc)
        if pa.types.is_null(self.type):
            return pa.scalar(None)
        if pa.types.is_date32(self.type):
            midnight = instant.replace(hour=0, minute=0, second=0, microsecond=0)
            return pa.scalar((instant if instant == midnight else midnight + dt.timedelta(days=1)).date(), self.type)
        return pa.scalar(instant if self.type.tz else instant.replace(tzinfo=None), self.type)

    def _note(self, times: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self.timeless += times.null_count
        if pa.types.is_null(self.type) or times.null_count == len(times):
            return
        found = pc.min_max(times)
        first, last = self._instant(found["min"]), self._instant(found["max"])
        self._first = first if self._first is None else min(self._first, first)
        self._last = last if self._last is None else max(self._last, last)

    def _instant(self, scalar: Any) -> dt.datetime:
        import pyarrow as pa

        if pa.types.is_date32(self.type):
            day = scalar.as_py()
            return dt.datetime(day.year, day.month, day.day, tzinfo=dt.timezone.utc)
        micros = scalar.value // 1000 if self.type.unit == "ns" else scalar.value
        return dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(microseconds=micros)

    @property
    def found(self) -> Window | None:
        """The half-open window of all rows read: the end is just after the latest."""
        import pyarrow as pa

        if self._first is None:
            return None
        step = dt.timedelta(days=1) if pa.types.is_date32(self.type) else dt.timedelta(microseconds=1)
        return Window(start=self._first.isoformat(), end=(self._last + step).isoformat())

    def window(self) -> dict[str, Any] | None:
        """Return the window to record: the one asked for, else the one found."""
        window = self.asked or self.found
        return {"start": window.start, "end": window.end} if window else None

    def described(self) -> str:
        """Return what the time column does have, for the message that nothing is inside the window."""
        if self.found is None:
            return f"column {self.column!r} has no times at all"
        return f"column {self.column!r} goes from {self.found.start} to {self.found.end}"
