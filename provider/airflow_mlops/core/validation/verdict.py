"""From the outcomes of all expectations to one verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.validation.expectations import Expectation
from airflow_mlops.core.validation.measure import evaluate
from airflow_mlops.core.validation.outcome import Exposure, Outcome
from airflow_mlops.core.vocabulary import Severity

if TYPE_CHECKING:
    import pandas

_ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Validation:
    """A frame, held to expectations.

    :param rows: how many rows the frame has.
    :param columns: its columns' names, in their order.
    :param outcomes: what each expectation has come to, in the order they were given.
    """

    rows: int
    columns: list[str]
    outcomes: list[Outcome]

    @property
    def failed(self) -> list[Outcome]:
        """The outcomes that failed, the worst first: by severity, schema before values, by the share of values."""
        failed = [outcome for outcome in self.outcomes if outcome.passed is False]
        return sorted(failed, key=lambda o: (_ORDER[o.grade], o.skew != "schema", -(o.share or 0.0)))

    @property
    def severity(self) -> Severity:
        """The worst severity of a failure; one of grade ``info`` is recorded and leaves it ``ok``."""
        grades = {outcome.grade for outcome in self.failed}
        return "error" if "error" in grades else "warning" if "warning" in grades else "ok"

    @property
    def passed(self) -> bool:
        """Whether no expectation of severity ``critical`` failed."""
        return self.severity != "error"

    @property
    def metrics(self) -> dict[str, int]:
        """Counts: what was judged, and failures by what has moved."""
        skews = [outcome.skew for outcome in self.failed]
        return {
            "schema_skew": skews.count("schema"),
            "value_skew": skews.count("value"),
            "rows": self.rows,
            "columns": len(self.columns),
            "expectations": len(self.outcomes),
        }

    def summary(self, name: str) -> str:
        """Return one line that a person can act on.

        :param name: what the data is called.
        """
        total, size = len(self.outcomes), f"{self.rows:,} row{'s' if self.rows != 1 else ''}"
        if not self.failed:
            hold = "its only expectation holds" if total == 1 else f"all {total} expectations hold"
            return f"{name}: {hold} on {size}."
        counts = [f"{words} in {n}" for words, n in _skews(self.metrics) if n]
        first = self.failed[0]
        subject = first.expectation.subject
        worst = first.message if not subject or repr(subject) in first.message else f"{subject}: {first.message}"
        return f"{name}: {' and '.join(counts)} of {total} expectations on {size}. Worst: {worst.rstrip('?')}."

    def to_dict(self) -> dict[str, Any]:
        """Return everything behind the verdict, as the details have it."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "expectations": [outcome.to_dict() for outcome in self.outcomes],
        }


def _skews(metrics: dict[str, int]) -> list[tuple[str, int]]:
    return [("schema skew", metrics["schema_skew"]), ("value skew", metrics["value_skew"])]


def validate_frame(
    frame: pandas.DataFrame,
    expectations: list[Expectation],
    *,
    types: dict[str, str] | None = None,
    private: list[str] | None = None,
    show_values: bool = False,
) -> Validation:
    """Hold a frame to expectations.

    :param types: Arrow's types of the columns, where they are known: with nulls pandas shows integers as floats.
    :param private: columns whose values are never shown.
    :param show_values: whether failing values may be shown, up to 20 for each expectation.
    """
    exposure = Exposure(values=show_values, private=frozenset(private or ()))
    outcomes = evaluate(frame, expectations, types=types, exposure=exposure)
    return Validation(rows=len(frame), columns=[str(name) for name in frame.columns], outcomes=outcomes)
