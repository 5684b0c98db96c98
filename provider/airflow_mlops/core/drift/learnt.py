"""``thresholds="learn"``: verdicts on columns by what their own past says, in place of the tests' thresholds."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.core.drift.compare import Verdict
from airflow_mlops.core.drift.findings import Finding
from airflow_mlops.core.drift.learn import LEVELS, Sensitivity
from airflow_mlops.core.drift.learn import Finding as Judged
from airflow_mlops.core.drift.learning import Learned, judge_window, learn_reference
from airflow_mlops.core.errors import SpecError, UnsupportedError
from airflow_mlops.core.vocabulary import Window, parse_duration, parse_instant

if TYPE_CHECKING:
    from airflow_mlops.core.drift.columns import Column
    from airflow_mlops.core.drift.reading import Opened

#: What a learnt score is called in a report, by what it is about.
TESTS = {
    "distribution": "hellinger_squared",
    "missing": "missing_share",
    "novel": "novel_share",
    "order": "order_share",
}


def check_sensitivity(sensitivity: Any) -> Sensitivity:
    """Return a sensitivity.

    :raises SpecError: for another one than ``low``, ``normal`` and ``high``.
    """
    for known in LEVELS:
        if sensitivity == known:
            return known
    raise SpecError(f"sensitivity is one of {', '.join(map(repr, LEVELS))}, got {sensitivity!r}")


def learn_from(
    reference: Opened | None,
    columns: Sequence[Column],
    *,
    rows: int,
    block: str | None,
    window: Any,
    sensitivity: Sensitivity = "normal",
) -> Learned:
    """Learn the thresholds of columns from a reference.

    :param rows: of the reference, inside its window.
    :param block: how long a block is, such as ``"7d"``; default: as long as the window that will be judged.
    :param window: that will be judged.
    :raises UnsupportedError: if the reference is a profile, which has no blocks any more.
    """
    if reference is None:
        raise UnsupportedError(
            "thresholds='learn' needs the rows of the reference, not its profile: give the dataset as reference"
        )
    ordered = {one.name: one.kind != "categorical" for one in columns if one.kind is not None}
    time = reference.ref.roles.get("time")
    length = None
    if time:
        length = parse_duration(block) if block else _length(window)
    return learn_reference(
        reference.batches, ordered, time=time, length=length, rows=rows, sensitivity=check_sensitivity(sensitivity)
    )


def judge(
    learned: Learned, current: Opened, verdicts: Sequence[Verdict]
) -> tuple[list[Verdict], list[Finding], dict[str, Judged]]:
    """Return the verdicts by what was learnt, what is broken, and all scores by column.

    A distribution that has moved is drift. Values that are missing or new beyond what was ever seen are broken data.
    """
    found = judge_window(learned, current.batches)
    verdicts = [_verdict(verdict, found.get(verdict.name)) for verdict in verdicts]
    broken = [finding for name, judged in found.items() for finding in _broken(name, judged)]
    return verdicts, broken, found


def _verdict(verdict: Verdict, judged: Judged | None) -> Verdict:
    if judged is None or verdict.broken:
        return verdict
    if judged.skipped is not None:
        return dataclasses.replace(verdict, skipped=judged.skipped, drifted=False, score=None, threshold=None)
    assert judged.about is not None
    assert judged.ratio is not None
    return dataclasses.replace(
        verdict,
        test=TESTS[judged.about],
        score=judged.scores[judged.about],
        threshold=judged.thresholds[judged.about],
        drifted=judged.drifted,
        bound=0.0,
        settled=True,
        skipped=None,
        beyond=judged.ratio,
        figures={**verdict.figures, "learnt": {"scores": judged.scores, "thresholds": judged.thresholds}},
    )


def _broken(name: str, judged: Judged) -> list[Finding]:
    words: Mapping[str, tuple[str, str]] = {
        "missing": ("missing", "the share of missing values is {score:.1%} away from the reference's"),
        "novel": ("new_values", "{score:.1%} of the values are none of the reference's: another unit or code?"),
        "order": ("order", "it is on the wrong side of {beside} in {score:.1%} of the rows: were the two swapped?"),
    }
    found = []
    for about, (kind, message) in words.items():
        score, threshold = judged.scores.get(about), judged.thresholds.get(about)
        if score is not None and threshold is not None and score > threshold:
            told = f"{name}: {message.format(score=score, beside=judged.beside)} (up to {threshold:.1%} is usual)."
            found.append(Finding(kind, name, "error", told, score, threshold))
    return found


def _length(window: Any) -> dt.timedelta | None:
    asked = Window.of(window)
    return None if asked is None else parse_instant(asked.end) - parse_instant(asked.start)
