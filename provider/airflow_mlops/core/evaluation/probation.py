"""A version on probation: since when it serves, which rows speak of it, and what served before. Read from the ledger.

The time is that of the data. A promotion says by its ``clock`` when it took place, an evaluation by its own what is
known by now: months that are replayed have their own present, and what the wall clock says means nothing there.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core import models
from airflow_mlops.core.errors import NotFoundError, SpecError
from airflow_mlops.core.evaluation.evidence import Champion
from airflow_mlops.core.evaluation.rows import Rows, times_of
from airflow_mlops.core.registry.ledger import Ledger, last_done
from airflow_mlops.core.registry.releases import releases
from airflow_mlops.core.registry.versions import RegisteredModel
from airflow_mlops.core.vocabulary import optional_instant, parse_duration, parse_instant, utc_now

if TYPE_CHECKING:
    import pandas

    from airflow_mlops.core.steps import StepContext
    from airflow_mlops.core.vocabulary import ModelRef


def split_alias(value: Any, what: str = "champion") -> tuple[str, str]:
    """Return name and alias of ``name@alias``.

    :raises SpecError: for another form.
    """
    name, at, alias = str(value).removeprefix("models:/").rpartition("@")
    if not isinstance(value, str) or not at or not name or not alias:
        raise SpecError(f"{what} must be 'name@alias', like 'churn@champion', got {value!r}")
    return name, alias


@dataclass(frozen=True)
class Release:
    """A version that serves, and since when.

    :param entry: the ledger's entry of its promotion; None if it was not promoted.
    :param since: when it was promoted, by the clock of that promotion.
    :param known: what is before this has its labels.
    :param until: when its probation ends, for what is before ``known``.
    :param previous: the version that served before it.
    :param settled: why there is nothing to compare: one sentence; None: there is.
    """

    alias: str
    version: int | None
    clock: dt.datetime
    entry: int | None = None
    since: dt.datetime | None = None
    known: dt.datetime | None = None
    until: dt.datetime | None = None
    previous: int | None = None
    settled: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as it stands in a report's details."""
        instants = {key: getattr(self, key) for key in ("clock", "since", "known", "until")}
        return {
            **{key: getattr(self, key) for key in ("alias", "version", "entry", "previous", "settled")},
            **{key: None if one is None else one.isoformat() for key, one in instants.items()},
        }


def release(
    context: StepContext,
    ref: ModelRef,
    alias: str,
    *,
    clock: dt.datetime,
    probation: dt.timedelta | None = None,
    delay: dt.timedelta = dt.timedelta(0),
) -> Release:
    """Return the release of ``name@alias`` that a model is, as far as it is on probation at an instant.

    :param ref: the model that is judged.
    :param probation: how long after its promotion it is on probation; what happens then is known ``delay`` later.
    :param delay: how long after a row its label is known.
    :raises ConflictError: if the ledger is of another registry.
    """
    name, short = split_alias(alias)
    registered, ledger = RegisteredModel(context, name), Ledger(context.store, name)
    ledger.bind(registered, begin=False)
    entries = ledger.entries()
    tail, present = last_done(entries, short), registered.alias(short)
    alias = f"{name}@{short}"
    found: dict[str, Any] = {"alias": alias, "version": ref.version, "clock": clock, "known": clock - delay}
    if present is None or present != ref.version or ref.name != name:
        now = "no version" if present is None else f"version {present}"
        return Release(**found, settled=f"{alias} is {now} now, so nothing is judged of {ref.uri}")
    if tail is None or tail.version != present or tail.intent["action"] != "promote":
        how = "came back by a rollback" if tail and tail.intent["action"] == "rollback" else "was not promoted here"
        return Release(**found, settled=f"Version {present} {how}: it is not on probation")
    since = parse_instant(tail.intent.get("clock") or tail.intent["at"])
    found |= {"entry": tail.seq, "since": since, "until": since + probation if probation else None}
    before = [one for one in releases(entries, short)[:-1] if one not in (None, present)]
    previous = next((one for one in reversed(before) if registered.version(int(one or 0)) is not None), None)
    if previous is None:
        return Release(**found, settled=f"No version that is still there served before version {present}")
    found["previous"] = previous
    if probation and clock - delay > since + probation:
        over = f"The probation of version {present}, promoted on {_day(since)}, ended on {_day(since + probation)}"
        return Release(
            **found, settled=over + (f", and its labels came by {_day(since + probation + delay)}" * bool(delay))
        )
    return Release(**found)


def previous(context: StepContext, standing: Release) -> Champion:
    """Return the version that served before a release."""
    rival = Champion(alias=standing.alias, role="previous", settled=standing.settled)
    if standing.settled is None:
        name, _ = split_alias(standing.alias)
        try:
            rival.ref = models.resolve(context, f"models:/{name}/{standing.previous}")
        except NotFoundError as error:
            rival.settled = error.message
    return rival


@dataclass(frozen=True)
class Times:
    """Which rows count by their time.

    :param clock: only those whose labels are known by then; None: all.
    :param release: only those since it, unless nothing of it has to be compared.
    :param only: whether nothing else is asked: that nothing is known yet is then an answer.
    """

    clock: dt.datetime | None = None
    release: Release | None = None
    only: bool = False

    @property
    def settled(self) -> bool:
        """Whether nothing has to be predicted."""
        return self.only and self.release is not None and self.release.settled is not None

    def leave_out(self, rows: Rows, frame: pandas.DataFrame, roles: dict[str, Any]) -> None:
        """Leave the others out.

        :raises SpecError: if the dataset has no time role.
        """
        if self.clock is None:
            return
        moments = times_of(frame, roles)
        if moments is None:
            raise SpecError("clock, and tests of the kind 'previous', need a dataset with a time role")
        known = moments < self.clock - delay_of(roles)
        rows.leave_out(~known.to_numpy(), f"label not known yet at {self.clock.isoformat()}, or without a time")
        if self.release and self.release.since and not self.release.settled:
            since = self.release.since
            before = f"before version {self.release.version} was promoted, {since.isoformat()}"
            rows.leave_out((moments < since).to_numpy(), before)


def times(
    context: StepContext,
    ref: ModelRef,
    specs: list[dict[str, Any]],
    alias: str,
    clock: Any,
    roles: dict[str, Any],
) -> Times:
    """Return which rows count, given the tests and the clock.

    :param alias: ``name@alias`` that tests of the kind ``previous`` are about.
    """
    lengths = [parse_duration(spec["probation"]) for spec in specs if spec["kind"] == "previous"]
    if not lengths:
        return Times(present_of(clock) if clock not in (None, "", "None") else None)
    present = present_of(clock)
    found = release(context, ref, alias, clock=present, probation=max(lengths), delay=delay_of(roles))
    return Times(present, found, only=len(lengths) == len(specs))


def present_of(clock: Any) -> dt.datetime:
    """Return the present: an argument, else that of this machine.

    :raises SpecError: if it is no instant.
    """
    return optional_instant(clock, "clock") or parse_instant(utc_now())


def delay_of(roles: dict[str, Any]) -> dt.timedelta:
    """Return how long after a row its label is known, as a dataset's roles say."""
    given = roles.get("label_delay")
    return parse_duration(given) if given else dt.timedelta(0)


def _day(value: dt.datetime) -> str:
    return value.date().isoformat()
