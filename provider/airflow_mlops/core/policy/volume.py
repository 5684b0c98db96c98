"""How many rows of a dataset are new: its snapshots overlap, come late, and come again with more."""

from __future__ import annotations

import datetime as dt
from typing import Any

#: Periods that are remembered of a dataset; the oldest are taken together.
MAX_PERIODS = 64


def new_rows(
    known: list[dict[str, Any]], start: dt.datetime, end: dt.datetime, rows: int
) -> tuple[int, list[dict[str, Any]]]:
    """Return how many rows of a snapshot were not counted before, and the periods that are counted then.

    Where it reaches into a period that was counted with another, rows are taken to lie evenly in time. A snapshot
    without a window is the whole of its dataset, which brings what it grew by.

    :param known: ``{"start", "end", "rows"}`` of periods that do not overlap; of the whole, both are None.
    """
    if start == end:
        before = sum(one["rows"] for one in known if one["start"] is None)
        whole = {"start": None, "end": None, "rows": max(rows, before)}
        return max(0, rows - before), [*(one for one in known if one["start"] is not None), whole]
    kept, counted = [], 0.0
    for one in known:
        if one["start"] is None:
            kept.append(one)
            continue
        first, last = dt.datetime.fromisoformat(one["start"]), dt.datetime.fromisoformat(one["end"])
        for begin, until in ((first, min(last, start)), (max(first, end), last)):
            if begin < until:
                kept.append(_period(begin, until, one["rows"] * ((until - begin) / (last - first))))
        inside = max(dt.timedelta(0), min(last, end) - max(first, start))
        counted += one["rows"] * (inside / (last - first)) if first < last else 0
    kept.append(_period(start, end, max(float(rows), counted)))
    return round(max(0.0, rows - counted)), _bounded(kept)


def _period(start: dt.datetime, end: dt.datetime, rows: float) -> dict[str, Any]:
    return {"start": start.isoformat(), "end": end.isoformat(), "rows": round(rows, 3)}


def _bounded(periods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = sorted(periods, key=lambda one: (one["start"] or "", one["end"] or ""))
    while len(found) > MAX_PERIODS:
        at = 0 if found[0]["start"] else 1
        first, second = found[at : at + 2]
        found[at : at + 2] = [{"start": first["start"], "end": second["end"], "rows": first["rows"] + second["rows"]}]
    return found
