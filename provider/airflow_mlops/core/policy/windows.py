"""Which period to train on, and which hyperparameters to try: pure functions for a DAG.

A row's label is known ``label_delay`` after the row's own time, so no period reaches nearer to the present than that:
what is nearer has no label yet, or only the labels that come early, which are not like the others.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_mlops.core.errors import EmptyDataError, SpecError
from airflow_mlops.core.vocabulary import Window, parse_duration, parse_instant

KINDS = ("expanding", "sliding", "since_drift")
#: Most settings that one search may try: each is a task.
MAX_TRIALS = 100


def training_window(
    now: str | dt.datetime,
    *,
    kind: str = "expanding",
    start: str | None = None,
    length: str | None = None,
    label_delay: str | None = None,
    drifted_at: str | None = None,
    at_least: str | None = None,
) -> dict[str, str]:
    """Return the period ``{"start", "end"}`` whose rows a retraining at ``now`` may train and test on.

    :param now: the present, ISO 8601, such as a decision's ``clock``.
    :param kind: ``"expanding"``: from ``start`` on; ``"sliding"``: the last ``length``; ``"since_drift"``: from
        ``drifted_at`` on, such as the start of the first drifted window of a decision, but no less than ``at_least``.
    :param start: the first instant that there is data of; no period begins before it.
    :param label_delay: how long after a row its label is known, such as ``"30d"``.
    :raises SpecError: for a kind that does not exist, or one that lacks what it is made from.
    :raises EmptyDataError: if nothing of the period is labelled yet.
    """
    if kind not in KINDS:
        raise SpecError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    for name, value in {"sliding": ("length", length), "since_drift": ("drifted_at", drifted_at)}.items():
        if kind == name and not value[1]:
            raise SpecError(f"kind={name!r} needs {value[0]}")
    if kind == "expanding" and not start:
        raise SpecError("kind='expanding' needs start, the first instant that there is data of")
    end = _before(_utc(now), label_delay)
    if kind == "sliding":
        begin = _before(end, length)
    elif kind == "since_drift":
        begin = _utc(drifted_at)
        if at_least:
            begin = min(begin, _before(end, at_least))
    else:
        begin = _utc(start)
    if start:
        begin = max(begin, _utc(start))
    if begin >= end:
        raise EmptyDataError(
            f"no row from {begin.isoformat()} on is labelled at {_utc(now).isoformat()}"
            + (f" with a label_delay of {label_delay}" if label_delay else "")
            + (": train later" if kind == "since_drift" else ": train later, or on an earlier period")
            + (", or give at_least, such as '90d'" if kind == "since_drift" and not at_least else "")
        )
    return {"start": begin.isoformat(), "end": end.isoformat()}


def snapshots_in(window: Mapping[str, Any], snapshots: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the dataset refs whose whole window lies in a period, the oldest first, each window once.

    Of two snapshots of one window the one that was made later holds: labels that came late are in it.

    :raises EmptyDataError: if there are none.
    """
    period = Window.of(dict(window))
    found: dict[tuple[dt.datetime, dt.datetime], dict[str, Any]] = {}
    for one in snapshots:
        own = Window.of(one.get("window"))
        if own is None or period is None:
            continue
        place = _utc(own.start), _utc(own.end)
        if place[0] < _utc(period.start) or place[1] > _utc(period.end):
            continue
        before = found.get(place)
        if before is None or str(one.get("created_at") or "") >= str(before.get("created_at") or ""):
            found[place] = dict(one)
    if not found:
        raise EmptyDataError(f"no snapshot lies between {window.get('start')} and {window.get('end')}")
    return [found[place] for place in sorted(found, key=lambda place: (place[1], place[0]))]


def trials(
    space: Mapping[str, Any], *, champion: Mapping[str, Any] | None = None, count: int | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Return the settings that a search tries, for ``TrainModelOperator.partial(...).expand(hyperparameters=...)``.

    :param space: ``{"max_depth": [3, 5], "learning_rate": {"low": 0.01, "high": 0.3, "log": True}}``: a list to choose
        from, or a range; whole numbers where both ends are.
    :param champion: the champion's own settings, tried first, so that a search never ends below them by bad luck.
    :param count: so many at random, the same for the same seed; None: the whole grid, which takes lists alone.
    :raises SpecError: for an empty space, a grid of a range, or more than 100 trials.
    """
    if not isinstance(space, Mapping) or not space:
        raise SpecError("a search space is a dict of lists and ranges, such as {'max_depth': [3, 5]}")
    if empty := [name for name, values in space.items() if isinstance(values, (list, tuple)) and not values]:
        raise SpecError(f"the search space has no value for {', '.join(empty)}")
    first = [dict(champion)] if champion else []
    if count is None:
        ranges = [name for name, values in space.items() if not isinstance(values, (list, tuple))]
        if ranges:
            raise SpecError(f"{', '.join(ranges)} cannot stand in a grid: give a list of values, or a count to draw")
        combinations = 1
        for values in space.values():
            combinations *= len(values)
        _check_number(combinations + len(first))
        made = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    else:
        _check_number(count + len(first))
        draw = random.Random(seed)  # noqa: S311 - no secret is drawn
        made = [{name: _drawn(draw, name, values) for name, values in space.items()} for _ in range(count)]
    base = dict(champion or {})
    wanted = [*first, *({**base, **one} for one in made)]
    return [one for number, one in enumerate(wanted) if one not in wanted[:number]]


def _check_number(number: int) -> None:
    if not 1 <= number <= MAX_TRIALS:
        raise SpecError(f"a search has from 1 to {MAX_TRIALS} trials, each of which is a task; this one has {number}")


def _drawn(draw: random.Random, name: str, values: Any) -> Any:
    if isinstance(values, (list, tuple)) and values:
        return draw.choice(list(values))
    if not isinstance(values, Mapping) or "low" not in values or "high" not in values:
        raise SpecError(f"{name!r} must be a list of values or {{'low', 'high'}} with 'log' if wanted, got {values!r}")
    low, high = values["low"], values["high"]
    if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in (low, high)):
        raise SpecError(f"the range of {name!r} must have numbers as low and high, got {low!r} and {high!r}")
    if not low < high or (values.get("log") and low <= 0):
        raise SpecError(f"the range of {name!r} must have low below high, and low above 0 with 'log'")
    if isinstance(low, int) and isinstance(high, int) and not values.get("log"):
        return draw.randint(low, high)
    if values.get("log"):
        found = float(low) * (float(high) / float(low)) ** draw.random()
        return round(found) if isinstance(low, int) and isinstance(high, int) else found
    return draw.uniform(float(low), float(high))


def search_window(window: Mapping[str, Any], test: str, gap: str | None = None) -> dict[str, str]:
    """Return the part of a period that a search may see: what lies before the test rows of the final training.

    :param window: the period of the final training.
    :param test: the length of its test rows, as in ``split={"by": "time", "test": "28d"}``.
    :param gap: as in the split.
    :raises SpecError: if nothing is left.
    """
    period = Window.of(dict(window))
    if period is None:
        raise SpecError("a search needs a window: {'start', 'end'}")
    end = _before(_before(_utc(period.end), test), gap)
    if end <= _utc(period.start):
        raise SpecError(f"test rows of {test} leave nothing of {period.start} to {period.end} to search in")
    return {"start": _utc(period.start).isoformat(), "end": end.isoformat()}


def best(models: Sequence[Mapping[str, Any]], metric: str, *, before: str) -> dict[str, Any]:
    """Return the model of a search whose metric is best; of equals the first, which is the champion's settings.

    :param models: model refs, as the mapped training tasks return them; a trial that failed has none.
    :param metric: a name of theirs, measured on the rows that the search held out.
    :param before: the end of the search's window. A model that was measured on later rows is refused: the best of many
        on the test rows looks better there than it is.
    :raises SpecError: if none has the metric, or one saw later rows.
    """
    from airflow_mlops.core.training.metrics import metric as metric_of

    known = metric_of(metric)
    found: dict[str, Any] | None = None
    made = [one for one in models if one]
    if not made:
        raise SpecError("the search made no model: each of its trials failed; their logs say why")
    for one in made:
        seen = [((one.get(part) or {}).get("window") or {}).get("end") for part in ("training", "test_dataset")]
        late = [end for end in seen if end and _utc(end) > _utc(before)]
        if late:
            raise SpecError(f"{one.get('uri')} of the search saw rows up to {late[0]}, after the search's end {before}")
        value = (one.get("metrics") or {}).get(metric)
        if value is not None and (found is None or known.better(value, found["metrics"][metric])):
            found = dict(one)
    if found is None:
        raise SpecError(f"none of the {len(made)} models has the metric {metric!r}")
    return found


def _before(instant: dt.datetime, length: Any) -> dt.datetime:
    """Return the instant so long before; one before the year 1 is that year's first: all that there is."""
    try:
        return instant - (parse_duration(length) if length else dt.timedelta(0))
    except OverflowError:
        return dt.datetime.min.replace(tzinfo=dt.timezone.utc)


def _utc(value: Any) -> dt.datetime:
    return parse_instant(value).astimezone(dt.timezone.utc)
