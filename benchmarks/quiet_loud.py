"""How often do learnt thresholds alarm when nothing changes, and what do they catch? On the flights of 2013.

Quiet: the weeks of the year in a random order; half of them are the reference, the others are judged one by one. Loud:
in windows of 5,000 rows something breaks. Beside them stand Evidently's defaults on the same windows, by
``method="evidently"``, which the tests hold to Evidently itself: its verdict on the dataset (half of the columns), and
an alarm for any column.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dags"))

from airflow_mlops.core.drift.columns import Column
from airflow_mlops.core.drift.compare import Side, compare
from airflow_mlops.core.drift.learning import Learned, judge_window, learn_reference
from airflow_mlops.core.drift.summarize import feed, new_summary

WEEKS = 52
ROWS = 5_000
ROLES = ("flight_id", "scheduled_departure", "late")


def flights() -> pd.DataFrame:
    """Return the flights of the year, by time, with the number of their week."""
    from flights.source import land

    with tempfile.TemporaryDirectory() as folder:
        frame = pd.concat([pd.read_parquet(path) for path in land("2013-01-01", "2014-01-01", folder)])
    frame = frame.sort_values("scheduled_departure").reset_index(drop=True)
    day = (frame["scheduled_departure"] - frame["scheduled_departure"].min()).dt.days
    frame["week"] = (day // 7).clip(upper=WEEKS - 1)
    return frame


def shuffled(weeks: list[pd.DataFrame], order: Any) -> pd.DataFrame:
    """Return weeks one after another in this order, each moved to its new place in time."""
    start = pd.Timestamp("2013-01-01", tz="UTC")
    parts = []
    for place, week in enumerate(order):
        part = weeks[week].copy()
        begin = part["scheduled_departure"].min().normalize()
        part["scheduled_departure"] += start + pd.Timedelta(days=7 * place) - begin
        part["place"] = place
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def batches_of(frame: pd.DataFrame) -> Any:
    """Return what opens the frame's columns as record batches."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return lambda names: table.select(names).to_batches(max_chunksize=65_536)


def learnt(frame: pd.DataFrame, columns: list[str]) -> Learned:
    """Learn from a reference by weeks."""
    ordered = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in columns}
    return learn_reference(
        batches_of(frame),
        ordered,
        time="scheduled_departure",
        length=dt.timedelta(days=7),
        rows=len(frame),
    )


def summarized(frame: pd.DataFrame, columns: list[str]) -> Side:
    """Return the summaries of columns that a comparison takes."""
    batches = batches_of(frame)(columns)
    kinds = {name: kind_of(frame[name]) for name in columns}
    summaries = {
        name: new_summary(kind, batches[0].schema.field(name).type, len(frame)) for name, kind in kinds.items()
    }
    feed(summaries, batches)
    return Side(len(frame), summaries)


def kind_of(column: pd.Series) -> str:
    """Return what a column is compared as."""
    return "numeric" if pd.api.types.is_numeric_dtype(column) else "categorical"


def by_evidently(reference: Side, window: pd.DataFrame, columns: list[str]) -> list[str]:
    """Return the columns that have drifted by Evidently's defaults."""
    asked = [Column(name, reference.summaries[name].kind) for name in columns]
    return [one.name for one in compare(asked, reference, summarized(window, columns)) if one.drifted]


class Quiet:
    """Alarms in windows one after another, which are one incident.

    :param title: whose they are.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.windows = self.alarms = self.incidents = 0
        self.before = False
        self.why: dict[str, int] = {}
        self.weeks: dict[int, int] = {}

    def begin(self) -> None:
        """Begin a year."""
        self.before = False

    def judge(self, week: int, columns: list[str], alarm: bool) -> None:
        """Count a window."""
        self.windows += 1
        self.alarms += alarm
        self.incidents += alarm and not self.before
        self.before = alarm
        for name in columns if alarm else []:
            self.why[name] = self.why.get(name, 0) + 1
        if alarm:
            self.weeks[week] = self.weeks.get(week, 0) + 1

    def tell(self) -> None:
        """Print what came of it."""
        year = WEEKS / self.windows
        print(f"  {self.title}: {self.incidents * year:.2f} incidents a year, {self.alarms * year:.2f} alarms")
        worst = sorted(self.weeks.items(), key=lambda one: -one[1])[:5]
        print("    by week of the year:", ", ".join(f"{week} {n}" for week, n in worst) or "none")
        print("    by column:", ", ".join(f"{name} {n}" for name, n in sorted(self.why.items(), key=lambda i: -i[1])))


def breakages(frame: pd.DataFrame, columns: list[str], rng: Any) -> dict[str, tuple[pd.DataFrame, list[str]]]:
    """Return broken copies of a window by what is broken, each with the columns that it is in."""
    broken: dict[str, tuple[pd.DataFrame, list[str]]] = {}

    def change(title: str, **new: Any) -> None:
        broken[title] = (frame.assign(**new), list(new))

    for name, factor in (("distance", 1.609), ("wind_speed", 1.609), ("visib", 1.609), ("pressure", 0.0295)):
        change(f"unit: {name}", **{name: frame[name] * factor})
    change("unit: temp", temp=(frame["temp"] - 32) / 1.8)
    for name in columns:
        values = frame[name].astype(object if frame[name].dtype.kind not in "fi" else float)
        change(f"nulls: {name}", **{name: values.mask(rng.random(len(frame)) < 0.2)})
    for name in ("carrier", "origin", "dest"):
        most = frame[name].mode()[0]
        change(f"category renamed: {name}", **{name: frame[name].where(frame[name] != most, "?" + most)})
        second = frame[name].value_counts().index[1]
        change(f"categories merged: {name}", **{name: frame[name].where(frame[name] != second, most)})
    pairs = [("sched_dep_time", "sched_arr_time"), ("carrier", "dest"), ("distance", "sched_dep_time")]
    for one, other in [*pairs, ("wind_dir", "pressure"), ("humid", "temp"), ("temp", "dewp")]:
        change(f"swapped: {one}, {other}", **{one: frame[other], other: frame[one]})
    return broken


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shuffles", type=int, default=10)
    parser.add_argument("--windows", type=int, default=10, help="windows a shuffle that are broken")
    parser.add_argument("--reference", type=int, default=26, help="weeks")
    options = parser.parse_args()
    frame = flights()
    columns = [name for name in frame if name not in (*ROLES, "week")]
    weeks = [part for _, part in frame.drop(columns="week").groupby(frame["week"])]
    rng = np.random.default_rng(0)
    quiet = [Quiet("learnt"), Quiet("Evidently, half of the columns"), Quiet("Evidently, any column")]
    caught: dict[str, list[list[bool]]] = {}
    for _ in range(options.shuffles):
        order = rng.permutation(WEEKS)
        ordered = shuffled(weeks, order)
        reference = ordered[ordered["place"] < options.reference]
        learned, summaries = learnt(reference, columns), summarized(reference, columns)
        for one in quiet:
            one.begin()
        for place in range(options.reference, WEEKS):
            window = ordered[ordered["place"] == place]
            drifted = [n for n, f in judge_window(learned, batches_of(window)).items() if f.drifted]
            theirs = by_evidently(summaries, window, columns)
            week = int(order[place])
            quiet[0].judge(week, drifted, bool(drifted))
            quiet[1].judge(week, theirs, len(theirs) >= len(columns) / 2)
            quiet[2].judge(week, theirs, bool(theirs))
        for place in range(options.reference, options.reference + options.windows):
            window = ordered[ordered["place"] == place]
            begin = int(rng.integers(0, max(1, len(window) - ROWS)))
            window = window.iloc[begin : begin + ROWS]
            usual = by_evidently(summaries, window, columns)
            for title, (broken, where) in breakages(window, columns, rng).items():
                findings = judge_window(learned, batches_of(broken))
                theirs = by_evidently(summaries, broken, where)
                new = len(theirs) > len([name for name in usual if name in where])
                found = caught.setdefault(title, [])
                found.append([any(findings[name].drifted for name in where), bool(theirs), new])
    print(f"quiet: {quiet[0].windows} shuffled weeks, reference of {options.reference} weeks")
    for one in quiet:
        one.tell()
    print(
        f"loud: share of {options.shuffles * options.windows} windows of {ROWS:,} rows in which it is caught: by learnt"
    )
    print("  thresholds, by Evidently's defaults, and by these where they do not say it of the whole window too")
    for title, found in caught.items():
        print(f"  {title:<40}" + "".join(f"{share:8.1%}" for share in np.mean(found, axis=0)))


if __name__ == "__main__":
    main()
