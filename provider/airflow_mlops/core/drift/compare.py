"""Two summarised datasets compared column by column: scores, verdicts and what else has changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.drift.bounds import bounded_score
from airflow_mlops.core.drift.categories import MOST_CATEGORIES, CategorySummary
from airflow_mlops.core.drift.choice import DriftTest, evidently_choice
from airflow_mlops.core.drift.columns import Column
from airflow_mlops.core.drift.exact import settle
from airflow_mlops.core.drift.numeric import NumericSummary
from airflow_mlops.core.drift.scores import Score, Summary, aligned, both_exact, exact_score

if TYPE_CHECKING:
    from airflow_mlops.core.drift.reading import Opened


@dataclass(frozen=True)
class Side:
    """One of the two datasets.

    :param rows: all rows, or of a segment those in it.
    :param summaries: of the columns that are compared.
    :param opened: the dataset, where it can be read again; None: what is not exact stays within its bound.
    """

    rows: int
    summaries: Mapping[str, Summary]
    opened: Opened | None = None


@dataclass(frozen=True)
class Verdict:
    """What was found about one column.

    :param score: None where the column was skipped, or the score is not a number.
    :param threshold: what the score was held to.
    :param bound: how far the true score may be away; 0 where it is exact.
    :param settled: whether the verdict is the same over the whole bound.
    :param skipped: why it was not compared.
    :param broken: whether the reason is a fault of the current data.
    :param beyond: how far the score is on the way to its threshold; 1 is at it.
    :param figures: ``{"reference": {...}, "current": {...}}``: rows, share missing, mean, std or categories.
    """

    name: str
    kind: str | None
    test: str | None = None
    score: float | None = None
    threshold: float | None = None
    drifted: bool = False
    bound: float = 0.0
    settled: bool = True
    skipped: str | None = None
    broken: bool = False
    beyond: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as it stands in the details."""
        value = {
            key: getattr(self, key)
            for key in (
                "name",
                "kind",
                "test",
                "score",
                "threshold",
                "drifted",
                "bound",
                "settled",
                "skipped",
                "broken",
            )
        }
        return {**value, **self.figures}


def compare(
    columns: list[Column], reference: Side, current: Side, *, default_test: DriftTest | None = None, min_rows: int = 1
) -> list[Verdict]:
    """Return a verdict on every column, in the order of the columns.

    :param default_test: for columns without a test of their own, where it is defined for them; None: Evidently's
        choice.
    :param min_rows: a column with fewer values on a side is not judged.
    """
    verdicts: dict[str, Verdict] = {}
    unsettled: dict[str, DriftTest] = {}
    for column in columns:
        if column.kind is None:
            verdicts[column.name] = Verdict(column.name, None, skipped=column.skipped, broken=column.broken)
            continue
        ours, theirs = reference.summaries[column.name], current.summaries[column.name]
        figures = {"reference": describe(ours), "current": describe(theirs)}
        if reason := _unfit(column, ours, theirs, min_rows):
            verdicts[column.name] = Verdict(
                column.name, column.kind, skipped=reason[0], broken=reason[1], figures=figures
            )
            continue
        test = column.test or default_test
        if test is None or column.kind not in test.kinds:
            test = evidently_choice(column.kind, ours.count, distinct(ours, theirs))
        threshold = test.threshold if column.threshold is None else column.threshold
        score = score_of(test, ours, theirs)
        verdict = judged(column, test, score, threshold, figures)
        again = not verdict.settled or (score.bound > 0 and test.binned)
        if again and reference.opened is not None and current.opened is not None:
            unsettled[column.name] = test
        verdicts[column.name] = verdict
    if unsettled:
        assert reference.opened is not None
        assert current.opened is not None
        found = settle(unsettled, (reference.opened, reference.summaries), (current.opened, current.summaries))
        for column in columns:
            if column.name in found:
                old = verdicts[column.name]
                assert old.threshold is not None
                score = Score.exact(found[column.name])
                verdicts[column.name] = judged(column, unsettled[column.name], score, old.threshold, old.figures)
    return [verdicts[column.name] for column in columns]


def score_of(test: DriftTest, reference: Summary, current: Summary) -> Score:
    """Return a score: exact if both summaries are, else with its bounds."""
    if both_exact(reference, current):
        return Score.exact(exact_score(test, reference, current))
    assert isinstance(reference, NumericSummary)
    assert isinstance(current, NumericSummary)
    return bounded_score(test, reference, current)


def judged(column: Column, test: DriftTest, score: Score, threshold: float, figures: dict[str, Any]) -> Verdict:
    """Return the verdict that a score means."""
    drifted = test.drifted(score.value, threshold)
    return Verdict(
        column.name,
        column.kind,
        test=test.name,
        score=score.value if math.isfinite(score.value) else None,
        threshold=threshold,
        drifted=drifted,
        bound=score.bound,
        settled=score.bound == 0 or all(test.drifted(one, threshold) == drifted for one in (score.low, score.high)),
        beyond=test.severity(score.value, threshold),
        figures=figures,
    )


def distinct(reference: Summary, current: Summary) -> int | None:
    """Return how many different values both sides have together; None: many."""
    if isinstance(reference, CategorySummary) and isinstance(current, CategorySummary):
        mine, its = reference.known, current.known
        return None if mine is None or its is None else len({**mine, **its})
    assert isinstance(reference, NumericSummary)
    assert isinstance(current, NumericSummary)
    tables = reference.table, current.table
    return None if tables[0] is None or tables[1] is None else len(aligned(tables[0], tables[1])[0])


def _unfit(column: Column, reference: Summary, current: Summary, min_rows: int) -> tuple[str, bool] | None:
    """Return why a column cannot be judged, and whether that is a fault of the current data."""
    for one in (reference, current):
        if isinstance(one, CategorySummary) and one.known is None:
            return f"it has more than {MOST_CATEGORIES:,} categories: free text or a key", False
    if not reference.count:
        return "it has no values in the reference", False
    if not current.count:
        return "it has no values in the current data", True
    for one, where in ((reference, "the reference"), (current, "the current data")):
        if one.count < min_rows:
            return f"{one.count} values in {where} are too few to tell (min_rows={min_rows})", False
    return None


def describe(summary: Summary) -> dict[str, Any]:
    """Return figures of one side that tell no value."""
    found: dict[str, Any] = {
        "rows": summary.rows,
        "missing": summary.absent / summary.rows if summary.rows else None,
    }
    if isinstance(summary, CategorySummary):
        found["categories"] = summary.distinct
    else:
        found["mean"], found["std"] = summary.mean, summary.std
        if summary.infinite:
            found["infinite"] = summary.infinite
    return found
