"""Segments: every value of a column compared with itself, because what moves in one may drown in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.data.reading import check_columns
from airflow_mlops.core.drift.columns import Column
from airflow_mlops.core.drift.compare import Side, Verdict, compare
from airflow_mlops.core.drift.scores import Summary
from airflow_mlops.core.drift.summarize import feed, new_summary
from airflow_mlops.core.errors import SpecError

if TYPE_CHECKING:
    from airflow_mlops.core.drift.choice import DriftTest
    from airflow_mlops.core.drift.reading import Opened

#: Segments of a column that are judged, the largest first.
MOST = 50


@dataclass(frozen=True)
class Segment:
    """One value of a column.

    :param value: None where it must not be shown.
    :param verdicts: of the columns in it.
    """

    column: str
    value: Any
    rows: tuple[int, int]
    verdicts: list[Verdict]
    drift_share: float

    @property
    def share(self) -> float | None:
        """Share of the compared columns that have drifted."""
        compared = [one for one in self.verdicts if one.skipped is None]
        return sum(one.drifted for one in compared) / len(compared) if compared else None

    @property
    def drifted(self) -> bool:
        """Whether it has drifted."""
        return self.share is not None and self.share >= self.drift_share

    def to_dict(self) -> dict[str, Any]:
        """Return the segment as it stands in the details."""
        return {
            "column": self.column,
            "value": self.value,
            "rows": {"reference": self.rows[0], "current": self.rows[1]},
            "drift_share": self.share,
            "drifted": self.drifted,
            "drifted_columns": [one.name for one in self.verdicts if one.drifted],
            "columns": [one.to_dict() for one in self.verdicts],
        }


def check_by(by: Any) -> list[str]:
    """Return the columns to look at segments by.

    :raises SpecError: for another form.
    """
    names = [by] if isinstance(by, str) and by else list(by or [])
    if not all(isinstance(name, str) for name in names):
        raise SpecError(f"by is a column or a list of columns, got {by!r}")
    return names


def judge_segments(
    by: list[str],
    reference: Opened,
    current: Opened,
    columns: list[Column],
    *,
    default_test: DriftTest | None,
    min_rows: int,
    drift_share: float,
    hidden: list[str],
) -> list[Segment]:
    """Return the verdicts on each segment, the largest first.

    :param hidden: columns whose values must not be shown.
    :raises MissingColumnError: if a column to segment by is missing on a side.
    """
    found = []
    for name in by:
        check_columns([name], current.schema.names, f"{current.ref.name!r}")
        check_columns([name], reference.schema.names, f"{reference.ref.name!r}")
        compared = [one for one in columns if one.name != name and one.kind is not None]
        kinds = {one.name: str(one.kind) for one in compared}
        theirs, ours = (_by_value(one, name, kinds) for one in (current, reference))
        largest = sorted(theirs, key=lambda value: -_rows(theirs[value]))[:MOST]
        for value in largest:
            if value not in ours or _rows(theirs[value]) < min_rows or _rows(ours[value]) < min_rows:
                continue
            sides = [Side(_rows(one[value]), one[value]) for one in (ours, theirs)]
            verdicts = compare(compared, sides[0], sides[1], default_test=default_test, min_rows=min_rows)
            shown = None if name in hidden else value
            found.append(Segment(name, shown, (sides[0].rows, sides[1].rows), verdicts, drift_share))
    return found


def _rows(summaries: Mapping[str, Summary]) -> int:
    return next((one.rows for one in summaries.values()), 0)


def _by_value(opened: Opened, by: str, kinds: dict[str, str]) -> dict[Any, dict[str, Summary]]:
    """Return summaries by the value of a column; rows without one are in none."""
    import pyarrow.compute as pc

    found: dict[Any, dict[str, Summary]] = {}
    for batch in opened.batches([*kinds, by] if by not in kinds else list(kinds)):
        values = batch.column(by)
        for value in pc.unique(values).drop_null().to_pylist():
            if value not in found:
                if len(found) >= 4 * MOST:
                    raise SpecError(
                        f"by: {by!r} has more than {4 * MOST} values, which are no segments; give a coarser column"
                    )
                types = {name: opened.schema.field(name).type for name in kinds}
                found[value] = {name: new_summary(kind, types[name], opened.rows) for name, kind in kinds.items()}
            import pyarrow as pa

            feed(found[value], [batch.filter(pc.equal(values, pa.scalar(value, values.type)))])
    return found
