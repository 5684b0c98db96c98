"""How often do learnt thresholds alarm when nothing changes, and what do they catch? On the flights of 2013.

Quiet: the weeks of the year in a random order; half of them are the reference, the others are judged one by one. Loud:
in windows of 5,000 rows something breaks.
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

from airflow_mlops.core.drift.learning import Learned, judge_window, learn_reference

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
    alarms, incidents, judged, why, caught = 0, 0, 0, {}, {}
    for _ in range(options.shuffles):
        ordered = shuffled(weeks, rng.permutation(WEEKS))
        reference = ordered[ordered["place"] < options.reference]
        learned = learnt(reference, columns)
        before = False
        for place in range(options.reference, WEEKS):
            window = ordered[ordered["place"] == place]
            drifted = [n for n, f in judge_window(learned, batches_of(window)).items() if f.drifted]
            judged += 1
            alarms += bool(drifted)
            incidents += bool(drifted) and not before
            before = bool(drifted)
            for name in drifted:
                why[name] = why.get(name, 0) + 1
        for place in range(options.reference, options.reference + options.windows):
            window = ordered[ordered["place"] == place]
            begin = int(rng.integers(0, max(1, len(window) - ROWS)))
            window = window.iloc[begin : begin + ROWS]
            for title, (broken, where) in breakages(window, columns, rng).items():
                findings = judge_window(learned, batches_of(broken))
                caught.setdefault(title, []).append(any(findings[name].drifted for name in where))
    print(f"quiet: {judged} shuffled weeks, reference of {options.reference} weeks")
    print(f"  {alarms / judged * 52:.2f} windows with an alarm a year, {incidents / judged * 52:.2f} incidents a year")
    print("  by column:", ", ".join(f"{name} {n}" for name, n in sorted(why.items(), key=lambda i: -i[1])) or "none")
    print(f"loud: share of {options.shuffles * options.windows} windows of {ROWS:,} rows in which it is caught")
    for title, found in caught.items():
        print(f"  {title:<40} {np.mean(found):6.1%}")


if __name__ == "__main__":
    main()
