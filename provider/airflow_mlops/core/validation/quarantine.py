"""Quarantine: the rows that fail are set aside with the reason, and the rest goes on.

Only expectations that judge each row by itself can send rows there: values of a column, of a pair, of several columns,
and uniqueness, where every row of a repeated value goes. What holds within its ``mostly`` sends none. The rest is
judged again, so that what goes on is known to hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.errors import SpecError, UnsupportedError, did_you_mean
from airflow_mlops.core.validation.expectations import TYPE_EXPECTATIONS, Expectation
from airflow_mlops.core.validation.measure import evaluate, unexpected_rows
from airflow_mlops.core.validation.outcome import Exposure, Outcome

if TYPE_CHECKING:
    import numpy
    import pandas
    import pyarrow

#: Share of the rows beyond which nothing goes on, where the user says nothing else.
MAX_SHARE = 0.05
#: Name of the column that says why a row is in quarantine.
REASONS = "quarantine_reasons"
_OPTIONS = ("max_share", "max_rows", "severity")
#: These judge a row by other rows: without those that fail, others would.
_RELATIVE = {
    "expect_column_value_z_scores_to_be_less_than",
    "expect_column_values_to_be_increasing",
    "expect_column_values_to_be_decreasing",
}


@dataclass(frozen=True)
class Limits:
    """What may go to quarantine.

    :param max_share: of the rows, at most.
    :param max_rows: at most.
    :param severity: from which severity of an expectation on: ``error`` or ``warning``.
    """

    max_share: float = MAX_SHARE
    max_rows: int | None = None
    severity: str = "error"

    @classmethod
    def of(cls, value: Any) -> Limits | None:
        """Read ``True``, or a dict of options; None and False are none.

        :raises SpecError: for anything else.
        """
        if value is None or value is False:
            return None
        if value is True:
            return cls()
        if not isinstance(value, dict):
            raise SpecError(f"quarantine is True or an object with {', '.join(_OPTIONS)}, got {value!r}")
        for name in value:
            if name not in _OPTIONS:
                raise SpecError(f"quarantine has no option {name!r}{did_you_mean(str(name), _OPTIONS)}")
        # Templates give text.
        limits = cls(**{name: _number(one) if name != "severity" else one for name, one in value.items()})
        share, rows = limits.max_share, limits.max_rows
        if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 < share <= 1:
            raise SpecError(f"quarantine: max_share must be above 0 and at most 1, got {share!r}")
        if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 1):
            raise SpecError(f"quarantine: max_rows must be a whole number above 0, got {rows!r}")
        if limits.severity not in ("error", "warning"):
            raise SpecError(f"quarantine: severity must be 'error' or 'warning', got {limits.severity!r}")
        return limits

    def takes(self, outcome: Outcome) -> bool:
        """Return whether rows that fail this go to quarantine."""
        grades = ("error",) if self.severity == "error" else ("error", "warning")
        return (
            outcome.passed is False
            and outcome.skew == "value"
            and outcome.grade in grades
            and judges_rows(outcome.expectation)
        )

    def exceeded(self, quarantined: int, rows: int) -> str | None:
        """Return which limit so many of the rows are beyond, in words."""
        if quarantined == rows:
            return "that is all of them"
        if quarantined > self.max_share * rows:
            return f"max_share is {self.max_share:.4g}"
        if self.max_rows is not None and quarantined > self.max_rows:
            return f"max_rows is {self.max_rows:,}"
        return None


def _number(value: Any) -> Any:
    for kind in (int, float):
        try:
            return kind(value) if isinstance(value, str) else value
        except ValueError:
            continue
    return value


@dataclass
class Quarantine:
    """What a quarantine has come to.

    :param outcomes: of all expectations, for the verdict.
    :param mask: for each row, whether it is in quarantine.
    :param counts: rows by the expectation that sent them; one row may count for several.
    :param refused: why nothing was set aside, although rows failed.
    """

    outcomes: list[Outcome]
    mask: numpy.ndarray[Any, Any]
    counts: dict[int, int] = field(default_factory=dict)
    reasons: dict[int, numpy.ndarray[Any, Any]] = field(default_factory=dict)
    refused: str | None = None

    @property
    def rows(self) -> int:
        """How many rows are in quarantine, or would be."""
        return int(self.mask.sum())

    @property
    def share(self) -> float:
        """Their share."""
        return self.rows / len(self.mask) if len(self.mask) else 0.0

    @property
    def splits(self) -> bool:
        """Whether the rows are to be written apart."""
        return self.rows > 0 and self.refused is None

    def split(self, table: pyarrow.Table) -> tuple[pyarrow.Table, pyarrow.Table]:
        """Return the rows that go on, and those that do not with the reasons of each."""
        import pyarrow as pa

        aside = table.filter(pa.array(self.mask))
        texts = [reason_of(self.outcomes[number].expectation) for number in self.reasons]
        flags = [rows[self.mask] for rows in self.reasons.values()]
        reasons = [[text for text, there in zip(texts, row, strict=True) if there] for row in zip(*flags, strict=True)]
        name = REASONS
        while name in table.schema.names:
            name = f"_{name}"
        return table.filter(pa.array(~self.mask)), aside.append_column(name, pa.array(reasons, pa.list_(pa.string())))

    def to_dict(self, limits: Limits) -> dict[str, Any]:
        """Return what details and page say of it."""
        return {
            "rows": self.rows,
            "share": self.share,
            "max_share": limits.max_share,
            "max_rows": limits.max_rows,
            "refused": self.refused,
            "expectations": [
                {
                    "type": self.outcomes[number].expectation.type,
                    "column": self.outcomes[number].expectation.subject,
                    "rows": count,
                }
                for number, count in self.counts.items()
            ],
        }

    @property
    def metrics(self) -> dict[str, Any]:
        """Return the figures for the report."""
        by: dict[str, int] = {}
        for number, count in self.counts.items():
            text = reason_of(self.outcomes[number].expectation)
            by[text] = by.get(text, 0) + count
        rows = self.rows if self.splits else 0
        return {"quarantined_rows": rows, "quarantined_share": self.share if rows else 0.0, "quarantined": by}


def reason_of(expectation: Expectation) -> str:
    """Return an expectation as a row's reason: its name and its column, no argument."""
    return f"{expectation.type}({expectation.subject or ''})"


def judges_rows(expectation: Expectation) -> bool:
    """Return whether an expectation judges each row, so that the rows that fail can go."""
    from great_expectations.expectations.expectation import (
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    if expectation.type in TYPE_EXPECTATIONS or expectation.type in _RELATIVE:
        return False
    return isinstance(expectation.built(), (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation))


def set_aside(
    frame: pandas.DataFrame,
    expectations: Sequence[Expectation],
    limits: Limits,
    *,
    types: dict[str, str] | None,
    exposure: Exposure,
) -> Quarantine:
    """Judge a frame, then what is left of it without the rows that failed, until what is left holds.

    A row-level expectation whose rows went is a warning. Every other one must hold on all rows and on those left.

    :param frame: with a fresh index.
    """
    import numpy as np

    first = evaluate(frame, expectations, types=types, exposure=exposure)
    found = Quarantine(list(first), np.zeros(len(frame), dtype=bool))
    latest = first
    # Each round empties at least one expectation; what no longer fits its ``mostly`` comes up in the next.
    for _ in range(len(expectations) + 1):
        failing = [n for n, outcome in enumerate(latest[: len(expectations)]) if limits.takes(outcome)]
        if not failing:
            break
        left = np.flatnonzero(~found.mask)
        part = frame.iloc[left].reset_index(drop=True)
        for number in failing:
            rows = left[_rows_of(part, expectations[number], latest[number], types)]
            flags = found.reasons.setdefault(number, np.zeros(len(frame), dtype=bool))
            flags[rows] = True
        for number in failing:
            found.mask |= found.reasons[number]
            found.counts[number] = int(found.reasons[number].sum())
        found.refused = limits.exceeded(found.rows, len(frame))
        if found.refused:
            found.outcomes = [_refused(outcome) if n in found.counts else outcome for n, outcome in enumerate(first)]
            return found
        rest = frame[~found.mask].reset_index(drop=True)
        latest = evaluate(rest, expectations, types=types, exposure=exposure)
    found.outcomes = [_final(n, first[n], latest[n], found) for n in range(len(first))]
    return found


def _rows_of(
    part: pandas.DataFrame, expectation: Expectation, outcome: Outcome, types: dict[str, str] | None
) -> numpy.ndarray[Any, Any]:
    import numpy as np

    rows = unexpected_rows(part, expectation, types)
    if rows is None or (outcome.unexpected is not None and len(set(rows)) != outcome.unexpected):
        raise UnsupportedError(
            f"Great Expectations does not say which rows fail {reason_of(expectation)}; give it the severity "
            "'warning', or leave quarantine out",
            expectation=expectation.type,
        )
    return np.array(sorted(set(rows)), dtype=np.int64)


def _refused(outcome: Outcome) -> Outcome:
    """Return the outcome of an expectation whose rows are too many: it stops the run, whatever its severity."""
    return dataclasses.replace(outcome, grade="error") if outcome.passed is False else outcome


def _final(number: int, first: Outcome, last: Outcome, found: Quarantine) -> Outcome:
    """Return the outcome that counts: of a quarantined expectation a warning, of others the worse one."""
    if number not in found.counts:
        return first if first.passed is False else last
    if last.passed is False:
        return last
    count = found.counts[number]
    base = first if first.passed is False else last
    return dataclasses.replace(
        base,
        passed=False,
        grade="warning",
        skew="value",
        message=f"{base.message}; {count:,} row{'s are' if count != 1 else ' is'} in quarantine",
    )
