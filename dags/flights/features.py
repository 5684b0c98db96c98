"""One transform, logged inside the model: the same in training, testing and serving."""

from __future__ import annotations

import pandas as pd

CATEGORIES = ["carrier", "origin", "dest"]


def features(raw: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that the model sees, from the raw ones.

    Clock times such as 1345 become minutes of the day, text becomes categories.
    """
    frame = raw.copy()
    for name in ("sched_dep_time", "sched_arr_time"):
        frame[name] = frame[name] // 100 * 60 + frame[name] % 100
    frame["duration"] = (frame["sched_arr_time"] - frame["sched_dep_time"]) % 1440
    frame[CATEGORIES] = frame[CATEGORIES].astype("object")
    return frame
