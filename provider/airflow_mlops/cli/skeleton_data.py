"""What a user's file says of itself, as far as a skeleton needs it."""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, did_you_mean
from airflow_mlops.core.extras import require
from airflow_mlops.core.vocabulary import parse_duration

if TYPE_CHECKING:
    from airflow_mlops.core.data.reading import Source

#: Rows that are looked at to tell what the target is, and whether a column is a key.
SAMPLE = 100_000
#: A target of whole numbers with so many values or fewer is one of classes.
MAX_CLASSES = 20
#: How a column is named that identifies a row.
KEY = re.compile(r"(.*[_ \-.])?(id|key|uuid|guid)|.*[a-z](Id|ID|Key|UUID)")
#: What is written like a day, but not like 2026-01-31.
DAY = re.compile(r"\s*(\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./]\d{1,2}[./]\d{1,2})\b.*")
#: How long a period of the data may be, the longest first.
LENGTHS = ("28d", "7d", "1d", "6h", "1h")
#: The same where rows are so few that a period of the others would not have enough of them.
LONGER = "84d"
#: Rows that a period needs for drift to be told at all.
LEAST_ROWS = 30
#: Periods that the older rows must hold for one to be held against the others, with some to spare.
MIN_PERIODS = 6
#: Days that two models are compared on; one more than it takes, for the last one may be cut short.
MIN_TEST_DAYS = 16
#: The same in rows, where there is no time.
MIN_TEST_ROWS = 110
#: Days that a release is on probation, or two periods if these are longer.
PROBATION = 60
#: Rows that a period needs for thresholds to be learnt.
MIN_ROWS = 200


@dataclass(frozen=True)
class Data:
    """What a file says of itself.

    :param kinds: of each column: ``number``, ``word``, ``time``, or ``other``.
    :param classes: how many values the target has; None for a quantity.
    :param rows: how many there are.
    :param key: the column that identifies a row, or None if none looks like it.
    :param unlike: where there is no key, a column that may be one: its values are all different.
    :param daylike: where there is no time, a column of text that may be one.
    :param time: the column that says when a row is of, or None.
    :param window: how long a period is that monitors look at; None without a time.
    :param per_window: about how many rows a period has; without a time, all.
    :param days: how many days the rows span; None without a time.
    :param first: the day of the earliest row; None without a time.
    """

    path: str
    target: str
    kinds: dict[str, str]
    classes: int | None
    rows: int = 0
    key: str | None = None
    unlike: str | None = None
    daylike: str | None = None
    time: str | None = None
    window: str | None = None
    per_window: int = 0
    days: float | None = None
    first: str | None = None

    @property
    def learns(self) -> bool:
        """Whether there are enough rows for thresholds of drift to be learnt; the oldest four fifths train."""
        if self.window is None:
            return self.rows * 4 // 5 >= MIN_PERIODS * MIN_ROWS
        return self.per_window >= MIN_ROWS

    @property
    def split(self) -> dict[str, Any]:
        """The rows that test: a fifth, or more where a fifth is too little to compare two models on."""
        if self.days is None:
            return {"by": "random", "test": 0.2 if self.rows >= 5 * MIN_TEST_ROWS else 0.3}
        longer = self.compares and self.days < 5 * MIN_TEST_DAYS
        return {"by": "time", "test": f"{MIN_TEST_DAYS}d" if longer else 0.2}

    def _tested(self) -> str:
        by, test = self.split["by"], self.split["test"]
        if by == "random":
            return f"a random {test:.0%} of the rows"
        return f"the latest {test:.0%} of the rows" if isinstance(test, float) else f"the latest {MIN_TEST_DAYS} days"

    @property
    def compares(self) -> bool:
        """Whether there are enough days, or rows, to tell two models apart."""
        if self.days is None:
            return self.rows * 0.3 >= MIN_TEST_ROWS
        return self.days * 0.4 >= MIN_TEST_DAYS

    @property
    def probation(self) -> tuple[int, int]:
        """How many days a release is on probation, and how often labels come meanwhile.

        More often than each day tells nothing new.
        """
        if self.window is None:
            return PROBATION, 1
        period = max(parse_duration(self.window) / dt.timedelta(days=1), 1.0)
        length = max(PROBATION, math.ceil(2 * period))
        return length, math.ceil(length / period)

    def said(self) -> list[str]:
        """Return what was taken for granted, a line each, for the user to contradict."""
        kind = f"one of {self.classes} classes" if self.classes else "a quantity"
        others = [name for name, one in self.kinds.items() if one == "other" and name != self.target]
        times = [name for name, one in self.kinds.items() if one == "time" and name != self.target]
        found = [f"{self.target!r} is to be predicted: {kind}"]
        if self.key:
            found.append(f"{self.key!r} identifies a row")
        else:
            found.append("no column looks like a key: name it in ROLES, and labels may come later than the rows")
            if self.unlike:
                found.append(
                    f"but {self.unlike!r} is different in each row: if it only numbers the rows, it is the key, and "
                    "no feature"
                )
        if self.time:
            found.append(
                f"{self.time!r} says when a row is of: periods of {self.window}, of about {self.per_window} rows"
            )
            if self.per_window < LEAST_ROWS:
                found.append(f"too few for drift to be told, which takes {LEAST_ROWS} in a period (`min_rows`)")
        elif times:
            names = ", ".join(map(repr, times))
            found.append(f"several times ({names}): name the one in ROLES that says when a row is of")
        else:
            found.append("no column of times: a run of level 3 is of the day that it is on")
            if self.daylike:
                found.append(
                    f"but {self.daylike!r} looks like times, and is read as text; 2026-01-31 10:00 would be read as one"
                )
        found.append(f"tested on {self._tested()}")
        if not self.compares:
            found.append("too little to tell two models apart: a challenger passes where nothing can be told (TESTS)")
        if others:
            found.append(f"left out, as neither number nor text: {', '.join(map(repr, others))}")
        return found


def look(data: str, target: str) -> Data:
    """Read what kind each column is, and what it means.

    :raises MissingSourceError: if there is no such file.
    :raises MissingColumnError: if the target is none of its columns.
    :raises EmptyDataError: if it has no rows, or the target no two values.
    """
    require("pyarrow", "init")
    import pyarrow as pa

    from airflow_mlops.core.data.newest import time_span
    from airflow_mlops.core.data.reading import open_source

    path = data if "://" in data else str(Path(data).expanduser().absolute())
    source = open_source(path)
    names = list(source.schema.names)
    if not names:
        raise EmptyDataError(f"{data} is empty: it has no line of column names")
    if target not in names:
        raise MissingColumnError(f"{data} has no column {target!r}{did_you_mean(target, names)}", column=target)
    rows = sum(batch.num_rows for batch in source.batches([target]))
    if not rows:
        raise EmptyDataError(f"{data} has names of columns, but no rows")
    values = {value for value in _sample(source, target) if value is not None}
    if len(values) < 2:
        found = "has no value in any row" if not values else "is the same in all rows that have one"
        raise EmptyDataError(f"the target {target!r} of {data} {found}; a model needs two values or more to tell apart")
    kinds = {field.name: _kind(pa, field.type) for field in source.schema}
    classes = len(values) if _is_class(pa, source.schema.field(target).type, values) else None
    times = [name for name, kind in kinds.items() if kind == "time" and name != target]
    # Two times could mean anything; one says when the row is of.
    time = times[0] if len(times) == 1 else None
    window, per_window, days, since = None, rows, None, None
    if time:
        first, last = time_span(path, time)
        window, per_window = _period(last - first, rows)
        days, since = (last - first) / dt.timedelta(days=1), first.date().isoformat()
    different = _all_different(pa, source, [name for name in names if name != target])
    known = next((name for name in different if KEY.fullmatch(name)), None)
    unlike = None if known else next(iter(different), None)
    words = [name for name, kind in kinds.items() if kind == "word" and name != target]
    daylike = None if times else next((name for name in words if _like_days(source, name)), None)
    return Data(path, target, kinds, classes, rows, known, unlike, daylike, time, window, per_window, days, since)


def _sample(source: Source, column: str) -> list[Any]:
    found: list[Any] = []
    for batch in source.batches([column]):
        found += batch.column(0).to_pylist()
        if len(found) >= SAMPLE:
            break
    return found


def _like_days(source: Source, column: str) -> bool:
    """Return whether the first texts of a column are days in another form than ISO 8601."""
    first = next(source.batches([column], rows=100), None)
    values = [value for value in first.column(0)[:100].to_pylist() if value] if first is not None else []
    return bool(values) and all(DAY.fullmatch(value) for value in values)


def _kind(pa: Any, kind: Any) -> str:
    types = pa.types
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        return "number"
    return "word" if types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind) else "other"


def _is_class(pa: Any, kind: Any, values: set[Any]) -> bool:
    if _kind(pa, kind) == "number" and not pa.types.is_boolean(kind):
        return len(values) <= MAX_CLASSES and all(float(value).is_integer() for value in values)
    return True


def _all_different(pa: Any, source: Source, names: list[str]) -> list[str]:
    """Return the columns of whole numbers and of words in which every row looked at has a value of its own."""
    kinds = {name: source.schema.field(name).type for name in names}
    seen: dict[str, set[Any]] = {n: set() for n, k in kinds.items() if pa.types.is_integer(k) or _kind(pa, k) == "word"}
    rows = 0
    for batch in source.batches(list(seen)) if seen else ():
        rows += batch.num_rows
        for name in list(seen):
            seen[name].update(batch.column(name).to_pylist())
            if None in seen[name] or len(seen[name]) < rows:
                del seen[name]
        if not seen or rows >= SAMPLE:
            break
    return list(seen)


def _period(span: dt.timedelta, rows: int) -> tuple[str, int]:
    """Return how long a period is, and about how many rows are in one."""
    fit = [one for one in (LONGER, *LENGTHS) if span * 4 / 5 >= parse_duration(one) * MIN_PERIODS] or [LENGTHS[-1]]
    # A period of few rows says little: the longest one that leaves enough others.
    found = [(one, int(rows * min(parse_duration(one) / span if span else 1.0, 1.0))) for one in fit]
    if found[0][0] == LONGER and found[1][1] >= 2 * LEAST_ROWS:
        return found[1]
    return found[0]
