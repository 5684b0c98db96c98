"""What data is held against: another dataset, a champion's profile, the same season before, or its own past."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.dataset import resolve
from airflow_mlops.core.drift import past
from airflow_mlops.core.drift.binding import champion_profile
from airflow_mlops.core.drift.compare import Side
from airflow_mlops.core.drift.profile import Profile, vars_of
from airflow_mlops.core.drift.reading import Opened, open_dataset
from airflow_mlops.core.drift.summarize import summarize
from airflow_mlops.core.errors import MlopsError, SpecError
from airflow_mlops.core.vocabulary import DatasetRef, parse_duration, parse_instant

if TYPE_CHECKING:
    import pyarrow

    from airflow_mlops.core.steps import StepContext


@dataclass
class Reference:
    """One thing to compare with.

    :param label: what it is called in messages.
    :param opened: the dataset, where it is read.
    :param profile: its profile, where that is used in its place.
    :param learning: why there is nothing to compare with yet, or None.
    :param importance: how much each column matters to the model, where that is known.
    """

    label: str
    opened: Opened | None = None
    profile: Profile | None = None
    learning: str | None = None
    importance: dict[str, float] | None = None

    @property
    def schema(self) -> pyarrow.Schema:
        """Its Arrow schema in normal form."""
        schema = self.opened.schema if self.opened is not None else self._profile.schema
        if self.opened is None:
            import pyarrow as pa

            kept = [field for field in schema if field.name in self._profile.columns]
            return pa.schema(kept)
        return schema

    @property
    def _profile(self) -> Profile:
        assert self.profile is not None
        return self.profile

    @property
    def roles(self) -> dict[str, Any]:
        """What its columns mean."""
        return self.opened.ref.roles if self.opened is not None else self._profile.roles

    @property
    def window(self) -> dict[str, Any] | None:
        """The period that it speaks of."""
        return vars_of(self.opened) if self.opened is not None else self._profile.window

    def side(self, kinds: dict[str, str]) -> Side:
        """Return its summaries; a profile has them already."""
        if self.opened is not None:
            summaries = summarize(self.opened, kinds)
            self.opened.check_unchanged()
            rows = next((one.rows for one in summaries.values()), self.opened.rows)
            return Side(rows, summaries, self.opened)
        profile = self._profile
        return Side(profile.rows, {name: profile.columns[name] for name in kinds})

    def to_dict(self) -> dict[str, Any]:
        """Return what the details say of it."""
        dataset = (
            self.opened.ref.to_dict() if self.opened is not None else (self.profile and self.profile.dataset) or {}
        )
        return {
            "name": self.label,
            "digest": dataset.get("digest"),
            "window": None if self.learning else self.window,
            "profile": self.profile is not None,
            "learning": self.learning,
        }


def is_champion(value: Any) -> bool:
    """Return whether a reference is written as ``name@alias``."""
    return isinstance(value, str) and re.fullmatch(r"(models:/)?[^/:@]+@[^/@]+", value.strip()) is not None


def check_needs(reference: Any, thresholds: Any, by: Any) -> None:
    """Make sure that what is asked for can be had of the reference: of a subject's past only profiles are kept.

    :raises SpecError: for learnt thresholds or segments against ``{"history": n}``.
    """
    several = reference if isinstance(reference, (list, tuple)) else [reference]
    if not any(isinstance(one, dict) and "history" in one for one in several):
        return
    for asked, what in ((thresholds == "learn", "thresholds='learn'"), (by not in (None, "", []), "by")):
        if asked:
            raise SpecError(
                f"{what} needs the rows of the reference, and {{'history': ...}} keeps only a profile of each window: "
                "give a dataset, {'offset': ...} or 'name@alias' as the reference, or leave it out"
            )


def references_of(
    context: StepContext,
    value: Any,
    now: Opened,
    *,
    subject: str | None,
    window: dict[str, Any] | None = None,
    reference_window: dict[str, Any] | None = None,
    roles: dict[str, Any] | None = None,
    target: str | None = None,
) -> list[Reference]:
    """Return what the current data is to be compared with.

    :param now: the current data.
    :raises SpecError: for a form that none is, or one that lacks a window or subject.
    """
    if value in (None, "", [], {}):
        raise SpecError(
            "detect_drift needs a 'reference': a dataset, 'name@alias', {'offset': '-52w'}, {'history': 8}, or a list"
        )
    several = value if isinstance(value, (list, tuple)) else [value]
    found = []
    for one in several:
        if is_champion(one):
            found.append(_champion(context, one))
        elif isinstance(one, dict) and "offset" in one:
            found.append(_earlier(context, one, now, window))
        elif isinstance(one, dict) and "history" in one:
            found.append(_history(context, one, subject, window or now.ref.window))
        else:
            ref = resolve(context.store, one, roles=roles, target=target)
            found.append(Reference(ref.name, open_dataset(context.store, ref, reference_window)))
    return found


def _champion(context: StepContext, value: str) -> Reference:
    name, _, alias = value.strip().removeprefix("models:/").rpartition("@")
    version, profile, importance = champion_profile(context, name, alias)
    return Reference(f"{name} {version} ({alias})", profile=profile, importance=importance)


def settling(context: StepContext, reference: Reference) -> Opened | None:
    """Return the dataset behind a profile, to settle what its bounds cannot; None if it is gone or has changed."""
    profile = reference.profile
    if profile is None or not profile.dataset:
        return None
    try:
        return open_dataset(context.store, DatasetRef.from_dict(profile.dataset), profile.dataset.get("read_window"))
    except MlopsError as error:
        context.log.info("%s: its data cannot be read again: %s", reference.label, error.message)
        return None


def _earlier(context: StepContext, value: dict[str, Any], now: Opened, window: dict[str, Any] | None) -> Reference:
    if window is None:
        raise SpecError(
            "reference={'offset': ...} needs the window of the current data, and its time role: the rows so much "
            "earlier are taken from the same data"
        )
    offset = parse_duration(str(value["offset"]).strip().lstrip("-"))
    if offset <= dt.timedelta(0):
        raise SpecError(f"reference: the offset is a time back, such as '-52w', got {value['offset']!r}")
    start, end = (parse_instant(window[name]) - offset for name in ("start", "end"))
    earlier = {"start": start.isoformat(), "end": end.isoformat()}
    ref = now.ref if value.get("dataset") is None else resolve(context.store, value["dataset"], roles=now.ref.roles)
    label = f"{ref.name} of {start.date()} to {end.date()}"
    return Reference(label, open_dataset(context.store, ref, earlier))


def _history(
    context: StepContext, value: dict[str, Any], subject: str | None, window: dict[str, Any] | None
) -> Reference:
    if not subject or not window:
        raise SpecError("reference={'history': ...} needs a subject and a window: it is the subject's own past windows")
    wanted = value["history"]
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise SpecError(f"reference: history is a number of windows from 1 on, got {wanted!r}")
    profiles = past.accepted(context.store, subject, before=window["start"], last=wanted)
    least = (wanted + 1) // 2
    label = f"the last {len(profiles)} accepted windows of {subject}"
    if len(profiles) < least:
        return Reference(label, learning=f"{subject} has {len(profiles)} accepted windows yet, and {least} are needed")
    merged = profiles[0]
    for one in profiles[1:]:
        merged = merged.merge(one)
    return Reference(label, profile=merged)
