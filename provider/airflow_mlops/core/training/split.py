"""Splitting rows into those that train and those that test.

By time the test rows are the latest ones, and no instant stands on both sides; by group no group does. Every split is
a function of the rows and its arguments alone.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import EmptyDataError, MissingColumnError, SpecError, did_you_mean
from airflow_mlops.core.extras import require
from airflow_mlops.core.vocabulary import parse_duration, parse_instant, role_columns

if TYPE_CHECKING:
    import numpy as np
    import pandas

#: Ways to split, and the keys that each takes beside ``by``.
WAYS: dict[str, tuple[str, ...]] = {
    "time": ("test", "gap", "validation"),
    "group": ("test", "seed", "validation"),
    "random": ("test", "seed", "validation"),
}
DEFAULT_TEST = 0.2
DEFAULT_VALIDATION = 0.2


@dataclass(frozen=True)
class Split:
    """Positions of the rows on both sides.

    :param train: sorted positions of the training rows.
    :param test: sorted positions of the test rows.
    :param left_out: rows on neither side: in the gap, without a time, or with a label that came too late.
    :param cutoff: ISO 8601 of the first test instant, by time only.
    :param spec: the arguments, completed: what makes the same split again.
    :param text: one line for a person.
    """

    train: np.ndarray[Any, Any]
    test: np.ndarray[Any, Any]
    left_out: int
    cutoff: str | None
    spec: dict[str, Any]
    text: str


def resolve_split(split: dict[str, Any] | None, roles: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Return the split's arguments, completed: by time if there is a time role, else by group, else at random.

    :param split: ``{"by": "time", "test": "28d" or 0.2, "gap": "90d"}``, ``{"by": "group", "test": 0.2}`` or
        ``{"by": "random", "test": 0.2, "seed": 0}``; all may take ``validation``, the part of the training rows that
        a trainer is given as ``X_val`` and ``y_val``.
    :param roles: the dataset's; by time the default gap is its ``label_delay``.
    :raises SpecError: for an unknown key or value, or a role that is missing.
    """
    given = dict(split or {})
    by = given.pop("by", None) or ("time" if roles.get("time") else "group" if roles.get("group") else "random")
    if by not in WAYS:
        raise SpecError(f"split by {by!r}: it must be one of {', '.join(WAYS)}{did_you_mean(str(by), WAYS)}")
    for key in given:
        if key not in WAYS[by]:
            raise SpecError(f"a split by {by} has no {key!r}{did_you_mean(key, WAYS[by])} It takes {WAYS[by]}")
    if by in ("time", "group") and not roles.get(by):
        raise SpecError(
            f"a split by {by} needs the dataset's {by} role; pass roles={{{by!r}: '<column>'}} or split by random"
        )
    done: dict[str, Any] = {"by": by, "test": _share(given.get("test"), DEFAULT_TEST, "test", by)}
    done["validation"] = _share(given.get("validation"), DEFAULT_VALIDATION, "validation", by)
    if by == "time":
        gap = given.get("gap", roles.get("label_delay"))
        if gap not in (None, "", 0, "0"):
            parse_duration(gap)
            done["gap"] = str(gap).strip()
    else:
        try:
            done["seed"] = int(given.get("seed", seed))
        except (TypeError, ValueError) as error:
            raise SpecError(f"the split's seed must be a whole number, got {given.get('seed')!r}") from error
    return done


def _share(value: Any, default: float, name: str, by: str) -> float | str:
    if value is None or value == "":
        return default
    try:
        share = float(value)
    except (TypeError, ValueError):
        if by != "time":
            raise SpecError(
                f"the split's {name!r} must be a share of the rows like 0.2, got {value!r}; a duration needs by='time'"
            ) from None
        parse_duration(value)
        return str(value).strip()
    if not 0 < share < 1:
        raise SpecError(f"the split's {name!r} must be between 0 and 1, or a duration by time, got {value!r}")
    return share


def split_rows(
    frame: pandas.DataFrame, spec: dict[str, Any], roles: dict[str, Any], window: dict[str, Any] | None = None
) -> Split:
    """Split rows into training and test.

    :param spec: what :func:`resolve_split` returned.
    :param window: the dataset's; by time, a test duration counts back from its end.
    :raises EmptyDataError: if one side would have no rows.
    :raises MissingColumnError: if the column of a role is not there.
    """
    if len(frame) < 2:
        raise EmptyDataError(f"{len(frame)} row(s) cannot be split into training and test rows; at least 2 are needed")
    if spec["by"] == "time":
        found = _by_time(frame, spec, roles, window)
    elif spec["by"] == "group":
        found = _by_group(frame, spec, roles)
    else:
        found = _at_random(frame, spec)
    for side, name in ((found.train, "training"), (found.test, "test")):
        if len(side) == 0:
            raise EmptyDataError(
                f"the split ({found.text}) leaves no {name} rows of {len(frame)}; change 'test' or 'gap'"
            )
    return found


def validation_split(
    frame: pandas.DataFrame, spec: dict[str, Any], roles: dict[str, Any], positions: np.ndarray[Any, Any]
) -> Split:
    """Split the training rows once more, in the same way and without a gap, for a trainer that asks for ``X_val``.

    :param positions: the training rows in ``frame``.
    """
    part = frame.iloc[positions]
    roles = {name: value for name, value in roles.items() if name not in ("available_at", "label_delay")}
    return split_rows(part, {**spec, "test": spec["validation"], "gap": None}, roles)


def instants(frame: pandas.DataFrame, column: str) -> pandas.Series:
    """Return a column as instants in UTC; what has no zone is taken as UTC.

    :raises MissingColumnError: if it is not there.
    :raises SpecError: if it does not hold instants.
    """
    pandas = require("pandas", "splitting by time")
    if column not in frame.columns:
        near = did_you_mean(column, map(str, frame.columns))
        raise MissingColumnError(f"the time column {column!r} is not in the data{near}", column=column)
    values = frame[column]
    if pandas.api.types.is_numeric_dtype(values):
        raise SpecError(
            f"the time column {column!r} holds numbers ({values.dtype}); store timestamps, or split by group or random"
        )
    text = pandas.api.types.infer_dtype(values, skipna=True) == "string"
    try:
        return pandas.to_datetime(values, utc=True, format="ISO8601" if text else None)  # type: ignore[no-any-return]
    except (ValueError, TypeError, OverflowError) as error:
        raise SpecError(f"the time column {column!r} does not hold instants ({type(error).__name__})") from None


def _by_time(
    frame: pandas.DataFrame, spec: dict[str, Any], roles: dict[str, Any], window: dict[str, Any] | None
) -> Split:
    import numpy as np

    column = role_columns(roles, "time")[0]
    times = instants(frame, column)
    dated = times.notna().to_numpy()
    if not dated.any():
        raise EmptyDataError(f"no row has a value in the time column {column!r}")
    cutoff = _cutoff(times[dated], spec["test"], window)
    gap = parse_duration(spec["gap"]) if spec.get("gap") else dt.timedelta(0)
    test = dated & (times >= cutoff).to_numpy()
    train = dated & ((times < cutoff - gap) if gap else (times < cutoff)).to_numpy()
    late = 0
    if roles.get("available_at"):
        known = instants(frame, role_columns(roles, "available_at")[0])
        # A label that is not known at the cut-off could not have trained a model then.
        too_late = train & ~(known <= cutoff).to_numpy()
        late, train = int(too_late.sum()), train & ~too_late
    text = f"by time: tests from {cutoff.isoformat()} on" + (f", gap {spec['gap']}" if gap else "")
    text += f", {late} rows whose label came after that left out" if late else ""
    return _made(train, test, spec, text, np, cutoff=cutoff.isoformat())


def _cutoff(times: pandas.Series, test: float | str, window: dict[str, Any] | None) -> Any:
    pandas = require("pandas", "splitting by time")
    if isinstance(test, str):
        end = times.max()
        declared = pandas.Timestamp(parse_instant(window["end"])) if window and window.get("end") else None
        if declared is not None and end < declared <= end + parse_duration(test):
            end = declared
        return end - parse_duration(test)
    # The nearest instant at which a new one begins, so that rows of one instant stay together.
    ordered = times.sort_values(ignore_index=True)
    position = min(max(round(len(ordered) * (1 - test)), 1), len(ordered) - 1)
    cutoff = ordered.iloc[position]
    if cutoff == ordered.iloc[0]:
        later = ordered[ordered > cutoff]
        if later.empty:
            raise EmptyDataError("all rows have the same time: they cannot be split by time")
        cutoff = later.iloc[0]
    return cutoff


def _by_group(frame: pandas.DataFrame, spec: dict[str, Any], roles: dict[str, Any]) -> Split:
    import numpy as np

    from airflow_mlops.core.training.rowkeys import hash_rows

    columns = role_columns(roles, "group")
    keys = hash_rows(frame, {}, columns) ^ np.uint64(spec["seed"] % 2**64)
    groups, members, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    if len(groups) < 2:
        raise EmptyDataError(f"all rows are of one group ({', '.join(columns)}): they cannot be split by group")
    # A seeded order of the groups that does not depend on that of the rows.
    order = np.random.default_rng(spec["seed"]).permutation(len(groups))
    taken = np.cumsum(sizes[order]) <= max(len(frame) * spec["test"], sizes[order][0])
    chosen = np.zeros(len(groups), dtype=bool)
    chosen[order[taken]] = True
    if chosen.all():
        chosen[order[-1]] = False
    test = chosen[members]
    return _made(~test, test, spec, f"by group {', '.join(columns)}: {int(chosen.sum())} of {len(groups)} test", np)


def _at_random(frame: pandas.DataFrame, spec: dict[str, Any]) -> Split:
    import numpy as np

    rows = min(max(round(len(frame) * spec["test"]), 1), len(frame) - 1)
    test = np.zeros(len(frame), dtype=bool)
    test[np.random.default_rng(spec["seed"]).permutation(len(frame))[:rows]] = True
    return _made(~test, test, spec, f"at random, seed {spec['seed']}", np)


def _made(train: Any, test: Any, spec: dict[str, Any], text: str, np: Any, cutoff: str | None = None) -> Split:
    return Split(
        train=np.flatnonzero(train),
        test=np.flatnonzero(test),
        left_out=int(len(train) - train.sum() - test.sum()),
        cutoff=cutoff,
        spec=spec,
        text=text,
    )
