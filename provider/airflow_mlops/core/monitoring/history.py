"""History: every figure of every window as a point in a time series in the store.

A *subject* is what is watched: a registered model, or any name that a user gives it. A *series* is what was looked at:
``drift``, ``performance``, ``estimate``, ``service``, ``predictions``, ``quality``... A point is one window of one
series, of one version of the subject, with its figures and the verdict on them::

    history.record(store, "churn:7", {"start": "2013-03-01", "end": "2013-04-01"}, {"roc_auc": 0.71}, "performance")
    history.read(store, "churn", kind="performance", metric="roc_auc")

Points are only ever added, as ``history/<subject>/<year of the window's end>/<when>-<window>-<content>.json``. A window
that is recorded again has another revision, and the latest one counts; the same figures again are no new one. When a
year has :data:`LOOSE` loose points, whoever adds one merges them into a bundle. Bundles are sets that only grow, and a
reader takes the union of all there are, so a merge that is killed, or that two do at once, loses and doubles nothing,
and a reader opens a few objects however long the history is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from airflow_mlops.core import digests
from airflow_mlops.core.errors import CannotReachError, NotFoundError, SpecError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.plain import clean
from airflow_mlops.core.store import Store, safe_name
from airflow_mlops.core.vocabulary import Severity, Thing, Window, parse_instant, utc_now

FOLDER = "history"
#: Loose points of one year that are merged into a bundle.
LOOSE = 32
#: Verdicts from the best to the worst.
SEVERITIES = ("ok", "warning", "error")
#: How often a listing is taken anew because a merge took away what it named.
ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True)
class Point(Thing):
    """One window of one series.

    :param subject: what is watched, without its version.
    :param version: the version that the figures are of; None where nobody said one.
    :param series: what was looked at.
    :param window: ``{"start", "end"}``.
    :param figures: ``{name: number, or None where it has no value}``.
    :param severity: the verdict, or None where nobody judged.
    :param facts: what else stands with the figures: intervals, counts, thresholds.
    :param run: who recorded it: DAG, run and task.
    :param at: when.
    """

    kind: ClassVar[str] = "point"
    subject: str
    series: str
    window: dict[str, str]
    figures: dict[str, float | None]
    version: str | None = None
    severity: Severity | None = None
    summary: str | None = None
    report_uri: str | None = None
    details_uri: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    at: str = field(default_factory=utc_now)

    @property
    def identity(self) -> str:
        """What it is a point of: points with one identity are revisions of each other."""
        return _hex([self.series, self.version, self.window["start"], self.window["end"]], 12)

    @property
    def content(self) -> str:
        """Digest of all that it says, whenever and by whomever it was recorded."""
        return _hex({name: value for name, value in self.to_dict().items() if name not in ("at", "run")}, 16)


def split_subject(subject: str) -> tuple[str, str | None]:
    """Return name and version of ``churn:7``, ``churn/7`` or ``models:/churn/7``; the version of ``churn`` is None.

    :raises SpecError: if there is no name.
    """
    text = str(subject or "").strip().removeprefix("models:/")
    for mark in (":", "/"):
        name, found, version = text.rpartition(mark)
        if found and name and version.isdigit():
            return name, version
    if not text:
        raise SpecError("a history needs a subject: the name of a registered model, or any name such as 'churn:7'")
    return text, None


def record(
    store: Store,
    subject: str,
    window: Any,
    figures: Mapping[str, Any],
    kind: str,
    *,
    version: str | int | None = None,
    severity: Severity | None = None,
    summary: str | None = None,
    report_uri: str | None = None,
    details_uri: str | None = None,
    facts: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> Point:
    """Record one window of one series, and return the point that stands.

    :param subject: name, or name and version as :func:`split_subject` reads them.
    :param window: ``{"start", "end"}``.
    :param figures: ``{name: number or None}``; NaN and infinity become None.
    :param kind: the series: ``drift``, ``performance``, ``estimate``, ``service``, ``predictions``...
    :param version: default: that of the subject.
    :param run: DAG, run and task, as :attr:`~airflow_mlops.core.steps.StepContext.run` has them.
    :raises SpecError: without a subject, series or window, or for a figure that is no number.
    """
    name, own = split_subject(subject)
    span = Window.of(window)
    if span is None:
        raise SpecError("a point of a history needs a window: {'start', 'end'}")
    if not kind:
        raise SpecError("a point of a history needs the name of its series, such as 'performance'")
    point = Point(
        subject=name,
        version=str(version) if version is not None else own,
        series=str(kind),
        window={"start": _utc(span.start), "end": _utc(span.end)},
        figures=_numbers(figures),
        severity=severity,
        summary=summary,
        report_uri=report_uri,
        details_uri=details_uri,
        facts=clean(dict(facts or {})),
        run={key: (run or {}).get(key) for key in ("dag_id", "run_id", "task_id", "map_index") if (run or {}).get(key)},
    )
    folder = f"{FOLDER}/{safe_name(name)}"
    year = f"{folder}/{parse_instant(point.window['end']).year:04d}"
    store.put_json(f"{folder}/subject.json", {"subject": name}, if_absent=True)
    loose = [key for key in store.keys(year) if "/bundle-" not in key]
    mine = [key for key in loose if f"-{point.identity}-" in key]
    if mine and mine[-1].endswith(f"-{point.content}.json"):
        return Point.from_dict(store.get_json(mine[-1]))
    key = f"{year}/{_compact(point.at)}-{point.identity}-{point.content}.json"
    store.put_json(key, point.to_dict(), if_absent=True)
    crash_point("history.recorded")
    if len(loose) + 1 >= LOOSE:
        _merge(store, year)
    return point


def read(
    store: Store,
    subject: str,
    *,
    kind: str | None = None,
    metric: str | None = None,
    since: Any = None,
    until: Any = None,
    version: str | int | None = None,
) -> list[Point]:
    """Return the points of a subject by the end of their window, each in its latest revision.

    :param kind: only of this series.
    :param metric: only those that have this figure, even if it is None.
    :param since: only windows that end after this instant.
    :param until: only windows that begin before this instant.
    :param version: only of this version; default: that of the subject, else of all.
    """
    name, own = split_subject(subject)
    wanted = str(version) if version is not None else own
    first, last = (parse_instant(one) if one is not None else None for one in (since, until))
    found = []
    for point in _current(_all(store, f"{FOLDER}/{safe_name(name)}", first)):
        start, end = parse_instant(point.window["start"]), parse_instant(point.window["end"])
        if (
            (kind is None or point.series == kind)
            and (metric is None or metric in point.figures)
            and (wanted is None or point.version == wanted)
            and (first is None or end > first)
            and (last is None or start < last)
        ):
            found.append((end, start, point.series, point.version or "", point))
    return [one[-1] for one in sorted(found, key=lambda one: one[:-1])]


def latest(store: Store, subject: str) -> dict[str, Point]:
    """Return the last point of each series of a subject: ``{series: point}``."""
    return {point.series: point for point in read(store, subject)}


def health(store: Store, subject: str, version: str | int | None = None) -> dict[str, Any] | None:
    """Return how a subject is by its last points: ``{"severity", "window", "series"}``, or None without any.

    :param version: only points of this version, and such that name none.
    :return: the worst of the verdicts on the last window of each series, the newest of these windows, and
        ``{series: {"window", "severity", "summary", "figures"}}``.
    """
    found: dict[str, Point] = {}
    for point in read(store, subject):
        if version is None or point.version in (None, str(version)):
            found[point.series] = point
    if not found:
        return None
    verdicts = [point.severity for point in found.values() if point.severity]
    return {
        "severity": max(verdicts, key=SEVERITIES.index) if verdicts else None,
        "window": max((point.window for point in found.values()), key=lambda one: (one["end"], one["start"])),
        "series": {
            name: {key: getattr(point, key) for key in ("window", "severity", "summary", "figures")}
            for name, point in sorted(found.items())
        },
    }


def subjects(store: Store) -> list[str]:
    """Return the names of all subjects that have a history."""
    keys = [key for key in store.keys(FOLDER) if key.endswith("/subject.json")]
    return sorted(str(store.get_json(key)["subject"]) for key in keys)


def _all(store: Store, folder: str, since: dt.datetime | None = None) -> list[Point]:
    """Return every revision that is there, in bundles and loose."""
    for _ in range(ATTEMPTS):
        keys = [key for key in store.keys(folder) if not key.endswith("/subject.json")]
        if since is not None:
            keys = [key for key in keys if int(key.split("/")[-2]) >= since.year]
        try:
            return [point for key in keys for point in _points(store.get_json(key))]
        except NotFoundError:
            continue  # Merged meanwhile: what it held stands in a bundle now.
    raise CannotReachError(f"the history in {store.uri_of(folder)} changes faster than it can be read; try again")


def _points(value: dict[str, Any]) -> list[Point]:
    return [Point.from_dict(one) for one in (value.get("points", [value]))]


def _current(points: Iterable[Point]) -> list[Point]:
    """Return the latest revision of each point."""
    found: dict[str, Point] = {}
    for point in points:
        before = found.get(point.identity)
        if before is None or (point.at, point.content) > (before.at, before.content):
            found[point.identity] = point
    return list(found.values())


def _merge(store: Store, year: str) -> None:
    """Make one bundle of all that a year has, and delete what it holds now."""
    keys = list(store.keys(year))
    try:
        points = [point for key in keys for point in _points(store.get_json(key))]
    except NotFoundError:
        return  # Another one is at it.
    # All revisions stay; one that was recorded twice stands once, as it was last.
    kept = {(point.identity, point.content): point for point in sorted(points, key=lambda one: one.at)}
    value = {"schema": 1, "kind": "points", "points": [point.to_dict() for point in kept.values()]}
    bundle = f"{year}/bundle-{_hex(value, 24)}.json"
    store.put_json(bundle, value)
    crash_point("history.bundled")
    for key in keys:
        if key != bundle:
            store.delete(key)


def _numbers(figures: Mapping[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, value in clean(dict(figures)).items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise SpecError(f"the figure {name!r} must be a number or None, got {value!r}")
        found[name] = value
    return found


def _utc(text: str) -> str:
    return parse_instant(text).astimezone(dt.timezone.utc).isoformat()


def _compact(at: str) -> str:
    return parse_instant(at).astimezone(dt.timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")


def _hex(value: Any, digits: int) -> str:
    return digests.hex_of(digests.of_json(value))[:digits]
