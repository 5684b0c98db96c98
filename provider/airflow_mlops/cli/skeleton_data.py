"""What a user's file says of itself, as far as a skeleton needs it."""

from __future__ import annotations

import datetime as dt
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
#: How long a period of the data may be, the longest first.
LENGTHS = ("28d", "7d", "1d", "6h", "1h")
#: Periods that the older rows must hold for one to be held against the others, with some to spare.
MIN_PERIODS = 6
#: Days that two models are compared on; one more than it takes, for the last one may be cut short.
MIN_TEST_DAYS = 16
#: The same in rows, where there is no time.
MIN_TEST_ROWS = 110
#: Rows that a period needs for thresholds to be learnt.
MIN_ROWS = 200


@dataclass(frozen=True)
class Data:
    """What a file says of itself.

    :param kinds: of each column: ``number``, ``word``, ``time``, or ``other``.
    :param classes: how many values the target has; None for a quantity.
    :param rows: how many there are.
    :param key: the column that identifies a row, or None if none looks like it.
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
        if self.time:
            found.append(f"{self.time!r} says when a row is of: periods of {self.window}")
        elif times:
            names = ", ".join(map(repr, times))
            found.append(f"several times ({names}): name the one in ROLES that says when a row is of")
        else:
            found.append("no column of times: a run of level 3 is of the day that it is on")
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
    if target not in names:
        raise MissingColumnError(f"{data} has no column {target!r}{did_you_mean(target, names)}", column=target)
    values = {value for value in _sample(source, target) if value is not None}
    if len(values) < 2:
        raise EmptyDataError(f"the target {target!r} of {data} has {len(values)} value(s); a model needs two or more")
    kinds = {field.name: _kind(pa, field.type) for field in source.schema}
    classes = len(values) if _is_class(pa, source.schema.field(target).type, values) else None
    rows = sum(batch.num_rows for batch in source.batches([target]))
    times = [name for name, kind in kinds.items() if kind == "time" and name != target]
    # Two times could mean anything; one says when the row is of.
    time = times[0] if len(times) == 1 else None
    window, per_window, days, since = None, rows, None, None
    if time:
        first, last = time_span(path, time)
        window, per_window = _period(last - first, rows)
        days, since = (last - first) / dt.timedelta(days=1), first.date().isoformat()
    known = next((n for n in names if n != target and KEY.fullmatch(n) and _identifies(pa, source, n)), None)
    return Data(path, target, kinds, classes, rows, known, time, window, per_window, days, since)


def _sample(source: Source, column: str) -> list[Any]:
    found: list[Any] = []
    for batch in source.batches([column]):
        found += batch.column(0).to_pylist()
        if len(found) >= SAMPLE:
            break
    return found


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


def _identifies(pa: Any, source: Source, column: str) -> bool:
    kind = source.schema.field(column).type
    if not (pa.types.is_integer(kind) or _kind(pa, kind) == "word"):
        return False
    values = _sample(source, column)
    return None not in values and len(set(values)) == len(values)


def _period(span: dt.timedelta, rows: int) -> tuple[str, int]:
    """Return how long a period is, and about how many rows are in one."""
    fit = [one for one in LENGTHS if span * 4 / 5 >= parse_duration(one) * MIN_PERIODS] or [LENGTHS[-1]]
    # A period of few rows says little: the longest one that leaves enough others.
    share = parse_duration(fit[0]) / span if span else 1.0
    return fit[0], int(rows * min(share, 1.0))
