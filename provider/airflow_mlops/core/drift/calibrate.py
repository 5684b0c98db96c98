"""What a sensitivity would have cost: the past, window by window, judged by thresholds learnt from its beginning."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.drift.columns import check_columns, plan
from airflow_mlops.core.drift.learn import LEVELS
from airflow_mlops.core.drift.learning import judge_window, learn_reference
from airflow_mlops.core.drift.reading import Opened
from airflow_mlops.core.errors import SpecError

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.core.drift.learn import Finding, Sensitivity

YEAR = dt.timedelta(days=365.25)


@dataclass(frozen=True)
class Cost:
    """What one sensitivity would have cost.

    :param windows: that were judged.
    :param alarms: windows in which a column was beyond its threshold.
    :param incidents: runs of such windows one after another: what somebody is told of once.
    :param retrainings: times that ``k`` of the last ``n`` windows were such, with the cooldown after each.
    :param years: that the windows span; ``..._a_year`` are ratios to it.
    :param worst: the columns that alarmed most often, ``{name: windows}``.
    """

    sensitivity: Sensitivity
    windows: int
    alarms: int
    incidents: int
    retrainings: int
    years: float
    worst: dict[str, int] = field(default_factory=dict)

    def a_year(self, count: int) -> float:
        """Return a count as a rate a year."""
        return count / self.years


def calibrate(
    data: Opened,
    *,
    length: dt.timedelta,
    reference: int,
    columns: Any = None,
    k: int = 3,
    n: int = 3,
    cooldown: dt.timedelta = dt.timedelta(days=14),
) -> list[Cost]:
    """Return what each sensitivity would have cost.

    :param data: the past, with a time role.
    :param length: of a window.
    :param reference: how many windows at its beginning are learnt from; the others are judged one by one.
    :param k: windows of the last ``n`` that drift before a model would be trained again.
    :raises SpecError: if there is no time role, or nothing left to judge.
    """
    time = data.ref.roles.get("time")
    if not time:
        raise SpecError("calibration needs the time of each row: name its column")
    planned = plan(
        data.schema,
        data.schema,
        asked=check_columns(columns),
        roles=data.ref.roles,
        test=None,
        where=data.ref.name,
    )
    ordered = {one.name: one.kind != "categorical" for one in planned if one.kind is not None}
    start, end, rows = _span(data, time)
    windows = int((end - start) / length.total_seconds() + 0.05)  # the last one may lack its last rows
    if windows <= reference:
        raise SpecError(
            f"there are {windows} whole windows of {length.days} days, and {reference} of them are the reference: "
            "nothing is left to judge. Give more data, or a shorter reference"
        )
    first = _Part(data, time, start, start + reference * length.total_seconds())
    costs = []
    for sensitivity in LEVELS:
        learned = learn_reference(
            first.batches, ordered, time=time, length=length, rows=max(rows, 1), sensitivity=sensitivity
        )
        judged = []
        for window in range(reference, windows):
            begin = start + window * length.total_seconds()
            judged.append(judge_window(learned, _Part(data, time, begin, begin + length.total_seconds()).batches))
        _check_judged(judged, length)
        costs.append(_cost(sensitivity, judged, length, k, n, cooldown))
    return costs


def _check_judged(judged: list[dict[str, Finding]], length: dt.timedelta) -> None:
    """Refuse to call quiet what could not be judged.

    :raises SpecError: if no column of any window could be.
    """
    why = [finding.skipped for window in judged for finding in window.values()]
    if any(reason is None for reason in why):
        return
    most = Counter(why).most_common(1)
    reason = f" ({most[0][0]})" if most else ""
    raise SpecError(
        f"no column of any of {len(judged)} windows of {length.days} days could be judged{reason}: take longer windows"
    )


@dataclass(frozen=True)
class _Part:
    """The rows of a dataset between two instants, in seconds since 1970."""

    data: Opened
    time: str
    start: float
    end: float

    def batches(self, names: list[str]) -> Iterable[pyarrow.RecordBatch]:
        import pyarrow as pa

        from airflow_mlops.core.drift.blocks import plain_values

        for batch in self.data.batches(list(dict.fromkeys([*names, self.time]))):
            values, there = plain_values(batch.column(self.time), ordered=True)
            inside = there.copy()
            inside[there] = (values >= self.start) & (values < self.end)
            if inside.any():
                yield batch.filter(pa.array(inside))


def _span(data: Opened, time: str) -> tuple[float, float, int]:
    from airflow_mlops.core.drift.blocks import plain_values

    low, high, rows = float("inf"), float("-inf"), 0
    for batch in data.batches([time]):
        values, _ = plain_values(batch.column(time), ordered=True)
        rows += len(values)
        if len(values):
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not rows:
        raise SpecError(f"the time column {time!r} has no values")
    return low, high + 1, rows


def _cost(
    sensitivity: Sensitivity,
    judged: list[dict[str, Finding]],
    length: dt.timedelta,
    k: int,
    n: int,
    cooldown: dt.timedelta,
) -> Cost:
    flags = [any(finding.drifted for finding in window.values()) for window in judged]
    worst: dict[str, int] = {}
    for window in judged:
        for name, finding in window.items():
            if finding.drifted:
                worst[name] = worst.get(name, 0) + 1
    incidents = sum(flag and not before for flag, before in zip(flags, [False, *flags], strict=False))
    retrainings, last = 0, None
    for position in range(len(flags)):
        recent = flags[max(0, position - n + 1, 0 if last is None else last + 1) : position + 1]
        rested = last is None or (position - last) * length >= cooldown
        if sum(recent) >= k and rested:
            retrainings, last = retrainings + 1, position
    return Cost(
        sensitivity,
        len(flags),
        sum(flags),
        incidents,
        retrainings,
        len(flags) * length / YEAR,
        dict(sorted(worst.items(), key=lambda item: -item[1])[:5]),
    )
