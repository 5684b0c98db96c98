"""A dataset measured against its references: summaries, scores, verdicts and findings, by each and together."""

from __future__ import annotations

import dataclasses
from typing import Any

from airflow_mlops.core.drift import learnt
from airflow_mlops.core.drift.choice import DriftTest
from airflow_mlops.core.drift.columns import Column, check_threshold, plan, with_threshold
from airflow_mlops.core.drift.combine import combined, combined_findings
from airflow_mlops.core.drift.compare import Side, Verdict, compare
from airflow_mlops.core.drift.findings import Finding, find
from airflow_mlops.core.drift.profile import comparable, fingerprinted
from airflow_mlops.core.drift.reading import Opened
from airflow_mlops.core.drift.references import Reference, settling
from airflow_mlops.core.drift.segments import Segment, judge_segments
from airflow_mlops.core.drift.summarize import summarize
from airflow_mlops.core.errors import EmptyDataError, SpecError
from airflow_mlops.core.steps import StepContext
from airflow_mlops.core.vocabulary import role_columns


@dataclasses.dataclass(frozen=True)
class Learning:
    """How thresholds are learnt."""

    sensitivity: Any
    block: str | None
    window: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Options:
    """How columns are compared."""

    asked: dict[str, dict[str, Any]] | None
    default: DriftTest | None
    thresholds: Any
    min_rows: int
    show_values: bool
    combine: str
    learning: Learning | None


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was found of all references together.

    :param judged: the references that there was something of to compare with.
    :param plans: the columns, for each of these.
    :param learnt: what thresholds were learnt from, for each.
    """

    verdicts: list[Verdict]
    findings: list[Finding]
    rows: tuple[int, int]
    judged: list[Reference]
    plans: list[list[Column]]
    current: Side
    learnt: list[dict[str, Any]]


def measure(context: StepContext, now: Opened, references: list[Reference], options: Options) -> Measured:
    """Return what each reference says of a dataset, and what they say together."""
    judged = [one for one in references if one.learning is None]
    plans = []
    for one in judged:
        wanted = check_thresholds(options.thresholds, one.schema.names)
        planned = plan(
            one.schema,
            now.schema,
            asked=options.asked,
            roles={**one.roles, **now.ref.roles},
            test=options.default,
            where=one.label,
        )
        plans.append([with_threshold(column, wanted) for column in planned])
    kinds = {column.name: column.kind for planned in plans for column in planned if column.kind is not None}
    if not judged:
        kinds = comparable(now)
    context.log.info(
        "%s: %d columns against %s", now.ref.name, len(kinds), " and ".join(one.label for one in references)
    )
    summaries = summarize(now, kinds)
    now.check_unchanged()
    current = Side(next((one.rows for one in summaries.values()), now.rows), summaries, now)
    verdicts, findings, lessons, rows = [], [], [], 0
    private = role_columns({**(judged[0].roles if judged else {}), **now.ref.roles}, "private")
    for one, planned in zip(judged, plans, strict=True):
        mine = {column.name: column.kind for column in planned if column.kind is not None}
        was = one.side(mine)
        if not was.rows:
            raise EmptyDataError(f"the reference {one.label!r} has no rows{' in its window' if one.window else ''}")
        side = current
        if one.profile is not None:
            hashed = {name: fingerprinted(summaries[name]) for name in one.profile.hashed if name in summaries}
            side = dataclasses.replace(current, summaries={**summaries, **hashed})
        judgement = compare(planned, was, side, default_test=options.default, min_rows=options.min_rows)
        if one.profile is not None and any(not verdict.settled for verdict in judgement):
            behind = settling(context, one)
            if behind is not None:
                again = dataclasses.replace(was, opened=behind)
                judgement = compare(planned, again, side, default_test=options.default, min_rows=options.min_rows)
        changes = find(judgement, was.summaries, side.summaries, show_values=options.show_values, private=private)
        if options.learning is not None:
            judgement, changes, lesson = _by_learnt(context, one, now, planned, was.rows, (judgement, changes), options)
            lessons.append(lesson)
        verdicts.append(judgement)
        findings.append(changes)
        rows = rows or was.rows
    return Measured(
        combined(verdicts, [one.label for one in judged], options.combine) if verdicts else [],
        combined_findings(findings, options.combine) if findings else [],
        (rows, current.rows),
        judged,
        plans,
        current,
        lessons,
    )


def _by_learnt(
    context: StepContext,
    reference: Reference,
    now: Opened,
    planned: list[Column],
    rows: int,
    found: tuple[list[Verdict], list[Finding]],
    options: Options,
) -> tuple[list[Verdict], list[Finding], dict[str, Any]]:
    """Return verdicts and findings by thresholds that are learnt from the reference, and what from."""
    learning = options.learning
    assert learning is not None
    opened = reference.opened or settling(context, reference)
    if opened is None:
        raise SpecError(
            f"thresholds='learn' needs the rows of the reference, and of {reference.label} there is only a profile; "
            "give a dataset as the reference"
        )
    learned = learnt.learn_from(
        opened,
        planned,
        rows=rows,
        block=learning.block,
        window=learning.window,
        sensitivity=learning.sensitivity,
    )
    verdicts, broken, _ = learnt.judge(learned, now, found[0])
    named = {one.column for one in broken}
    # What the reference itself shows is no finding; what is beyond it is one already.
    findings = [*broken, *(one for one in found[1] if one.kind == "column" and one.column not in named)]
    return verdicts, findings, {"blocks": learned.blocks, "unit": learned.unit}


def segments(
    context: StepContext,
    now: Opened,
    references: list[Reference],
    found: Measured,
    by: list[str],
    options: Options,
    drift_share: float,
) -> list[Segment]:
    """Return the verdicts on segments, against the first reference that there is something of."""
    if not by or not found.judged:
        return []
    one = found.judged[0]
    opened = one.opened or settling(context, one)
    if opened is None:
        raise SpecError(
            f"by needs the rows of the reference, and of {one.label} there is only a profile; give a dataset as the "
            "reference"
        )
    return judge_segments(
        by,
        opened,
        now,
        found.plans[0],
        default_test=options.default,
        min_rows=max(options.min_rows, 30),
        drift_share=drift_share,
        hidden=[] if options.show_values else role_columns({**one.roles, **now.ref.roles}, "private"),
    )


def check_thresholds(thresholds: Any, names: list[str]) -> dict[str, float] | float | None:
    """Return thresholds by column, one for all, or None for those of the tests.

    :raises SpecError: for another form, or a column that is not there.
    """
    from airflow_mlops.core.data.reading import check_columns as check_names

    if thresholds in (None, "", "evidently"):
        return None
    if isinstance(thresholds, dict):
        check_names(list(thresholds), names, "the reference")
        for name, value in thresholds.items():
            check_threshold(value, f"thresholds: that of {name!r}")
        return thresholds
    if isinstance(thresholds, str):
        raise SpecError(f"thresholds is 'evidently', 'learn', a number, or {{column: number}}, got {thresholds!r}")
    check_threshold(thresholds, "thresholds")
    return float(thresholds)
