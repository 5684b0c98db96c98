"""The verdict on a dataset, from those on its columns and what else has changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from airflow_mlops.core.drift.choice import TESTS
from airflow_mlops.core.drift.compare import Verdict
from airflow_mlops.core.drift.findings import Finding
from airflow_mlops.core.drift.segments import Segment
from airflow_mlops.core.reports import figure
from airflow_mlops.core.vocabulary import Report


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A dataset held to a reference.

    :param against: what the reference is called.
    :param drift_share: share of the compared columns from which on the dataset has drifted.
    :param rows: of the reference and of the current data.
    :param target: column of the target, which is no feature.
    :param predictions: columns of what the model said: their drift is an error by itself.
    :param learnt: whether thresholds are the reference's own, which allow for the number of columns: then one column
        that drifts is worth a word.
    :param learning: why there is nothing to compare with yet: then the data passes.
    :param importance: how much each column matters to the model; what matters most is told first.
    :param model: whose importance that is, or None.
    """

    name: str
    against: str
    verdicts: list[Verdict]
    findings: list[Finding]
    drift_share: float
    rows: tuple[int, int]
    target: str | None = None
    predictions: tuple[str, ...] = ()
    learnt: bool = False
    segments: list[Segment] = field(default_factory=list)
    learning: str | None = None
    importance: dict[str, float] = field(default_factory=dict)
    model: str | None = None

    @cached_property
    def compared(self) -> list[Verdict]:
        """The columns that have a score."""
        return [one for one in self.verdicts if one.skipped is None]

    @cached_property
    def drifted(self) -> list[Verdict]:
        """The columns that have drifted: what matters most to the model first, else the worst."""
        drifted = (one for one in self.compared if one.drifted)
        return sorted(drifted, key=lambda one: (-self.importance.get(one.name, 0.0), -one.beyond))

    @property
    def share(self) -> float | None:
        """Share of the compared columns that have drifted; None if none was compared."""
        return len(self.drifted) / len(self.compared) if self.compared else None

    @property
    def drifted_importance(self) -> float | None:
        """How much of what matters to the model has drifted, as a share; None where that is not known."""
        compared = sum(self.importance.get(one.name, 0.0) for one in self.compared)
        return sum(self.importance.get(one.name, 0.0) for one in self.drifted) / compared if compared else None

    @property
    def dataset_drifted(self) -> bool:
        """Whether the dataset has drifted."""
        return self.share is not None and self.share >= self.drift_share

    @property
    def severity(self) -> Literal["ok", "warning", "error"]:
        """``error`` for broken data or drifted predictions, ``warning`` for drift, else ``ok``."""
        if not self.rows[1] or any(one.severity == "error" for one in self.findings):
            return "error"
        if any(one.name in self.predictions for one in self.drifted):
            return "error"
        if self.learning is not None:
            return "ok"
        if any(one.drifted for one in self.segments):
            return "warning"
        if self.dataset_drifted or not self.compared or any(one.severity == "warning" for one in self.findings):
            return "warning"
        if self.learnt and self.drifted:
            return "warning"
        return "ok"

    @property
    def passed(self) -> bool:
        """Whether the data is whole and has not drifted."""
        return not self.dataset_drifted and self.severity != "error"

    def summary(self) -> str:
        """Return one line that a person can act on."""
        if not self.rows[1]:
            return f"{self.name} has no rows: nothing can be compared with {self.against}."
        if self.learning is not None:
            return f"{self.name} is kept to learn from: {self.learning}."
        if self.share is None:
            why = Counter(one.skipped for one in self.verdicts if one.skipped is not None and not one.broken)
            told = f"None of the columns of {self.name} could be compared with {self.against}"
            told += f": {why.most_common(1)[0][0]}" if why else ""
        elif not self.drifted:
            told = f"{self.name} is like {self.against}: none of {len(self.compared)} columns has drifted"
        else:
            top = _worst(self.drifted[0])
            known = self.importance.get(self.drifted[0].name, 0.0) > 0
            worst = f"of which {top} matters most to the model" if known else f"most {top}"
            many = f"{len(self.drifted)} of {len(self.compared)} columns have drifted"
            verb = "has drifted from" if self.dataset_drifted else "is like"
            limit = f"{self.share:.2f}, drift from {self.drift_share:g} on"
            told = f"{self.name} {verb} {self.against}: {many} ({limit}), {worst}"
        parts = [one for one in self.segments if one.drifted]
        if parts:
            named = ", ".join(sorted({one.column for one in parts}))
            told += f"; {len(parts)} of {len(self.segments)} segments by {named} have drifted"
        serious = [one for one in self.findings if one.severity != "info"]
        if serious:
            first = next((one for one in serious if one.severity == "error"), serious[0])
            others = f" And {len(serious) - 1} more." if len(serious) > 1 else ""
            return f"{told}. {first.message}{others}"
        return f"{told}."

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures of the whole."""
        kinds = [one.kind for one in self.findings if one.severity != "info"]
        return {
            "drift_share": self.share,
            "drifted_columns": len(self.drifted),
            "compared_columns": len(self.compared),
            "skipped_columns": len(self.verdicts) - len(self.compared),
            "broken_columns": kinds.count("column"),
            "missing_shifts": kinds.count("missing"),
            "category_changes": kinds.count("new_categories") + kinds.count("vanished_categories"),
            "drifted_importance": self.drifted_importance,
            "drifted_segments": sum(one.drifted for one in self.segments),
            "reference_rows": self.rows[0],
            "current_rows": self.rows[1],
        }

    def report(self, *, subject: str, window: dict[str, Any] | None) -> Report:
        """Return the report."""
        serious = [one for one in self.findings if one.severity != "info"]
        order = {"error": 0, "warning": 1}
        matters = self.importance
        serious = sorted(serious, key=lambda one: (order[one.severity], -matters.get(one.column, 0.0)))
        failures = [one.to_dict() for one in serious]
        for failure in failures:
            failure.pop("examples", None)
        failures += [
            {
                "kind": "drift",
                "column": one.name,
                "severity": "error" if one.name in self.predictions else "warning",
                "test": one.test,
                "value": one.score,
                "threshold": one.threshold,
                "importance": matters.get(one.name),
                "message": f"{_worst(one)}.",
            }
            for one in self.drifted
        ]
        return Report(
            report="drift",
            passed=self.passed,
            severity=self.severity,
            summary=self.summary(),
            metrics=self.metrics,
            checks={"total": len(self.compared) + len(serious), "failed": len(self.drifted) + len(serious)},
            failures=failures,
            window=window,
            subject=subject,
        )

    @property
    def _ordered(self) -> list[Verdict]:
        """All columns: by importance where it is known, else as they stand in the data."""
        return sorted(self.verdicts, key=lambda one: -self.importance.get(one.name, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Return the details."""
        return {
            "columns": [{**one.to_dict(), "importance": self.importance.get(one.name)} for one in self._ordered],
            "drift_share": self.share,
            "drift_share_threshold": self.drift_share,
            "dataset_drift": self.dataset_drifted,
            "findings": [one.to_dict() for one in self.findings],
            "rows": {"reference": self.rows[0], "current": self.rows[1]},
            "target": self.target,
            "predictions": list(self.predictions),
            "segments": [one.to_dict() for one in self.segments],
            "learning": self.learning,
            "ordered_by": f"what matters to {self.model}" if self.model else None,
        }


def _worst(one: Verdict) -> str:
    assert one.test is not None
    sign = {"from": "≥", "to": "≤", "below": "<"}[TESTS[one.test].drifts] if one.test in TESTS else ">"
    return f"{one.name} ({one.test} {figure(one.score)} {sign} {figure(one.threshold)})"
