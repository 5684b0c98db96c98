"""Thresholds that are learnt from blocks inside the reference.

A textbook threshold knows nothing of a user's data. A column's own blocks do: the score of each block against the rest
is what the score is when nothing has happened. Four things are looked at, each in a score that a sentinel, a tiny
scale or a small sample does not break:

distribution
    The squared Hellinger distance over the reference's quantile bins (values, where there are few). It needs no scale,
    and its expectation when nothing happens is ``(bins - 1) / 8 * (1/n + 1/m)``: what sampling alone gives.
missing
    The difference of the shares of missing values.
novel
    The share of values that the reference never had: a unit or a code that has changed. Of numbers those between
    others that it had; what is beyond its range is a matter of the distribution.
order
    The share of rows in which a column is far on the wrong side of another, where the reference keeps their order: see
    :mod:`.orders`.

The threshold of a distribution is the largest of a floor (what matters to nobody is no alarm), a margin above the worst
block, and the limit that the next block exceeds with probability ``alpha`` when nothing happens: see
:func:`prediction_limit`. ``alpha`` is the rate of false alarms of a whole window divided by the number of columns
(Bonferroni).

A window with fewer rows than a block scores higher by chance alone; its threshold grows with the ratio of the rows,
which is the most that independent rows would do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from airflow_mlops.core.drift.blocks import BINS, Binned, Tally, group_of, sign_of
from airflow_mlops.core.drift.orders import BROKEN
from airflow_mlops.core.errors import SpecError

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

Sensitivity = Literal["low", "normal", "high"]
#: Fewer blocks say nothing of how blocks vary.
MIN_BLOCKS = 4
#: Rows that a column must have in a window to be judged.
MIN_ROWS = 200
#: Categories that have a bin of their own; the rest share one.
CATEGORIES = 50
#: The squared Hellinger distance that is always an alarm: the distributions hardly overlap.
CEILING = 0.85
#: The reference has worst blocks of its own: an outage, say. From so many blocks on, the worst one is no guide.
TRIM_FROM = 6


@dataclass(frozen=True)
class Level:
    """What a sensitivity stands for.

    :param rate: false alarms that are put up with, of one window.
    :param margin: above the worst block of the reference.
    :param floor: squared Hellinger distance below which nothing is an alarm; 0.0125 is about a PSI of 0.1.
    :param missing: difference of shares of missing values below which nothing is an alarm.
    """

    rate: float
    margin: float
    floor: float
    missing: float


LEVELS: dict[Sensitivity, Level] = {
    "low": Level(rate=1 / 2_600, margin=2.0, floor=0.025, missing=0.1),
    "normal": Level(rate=1 / 520, margin=1.5, floor=0.0125, missing=0.05),
    "high": Level(rate=1 / 104, margin=1.2, floor=0.006, missing=0.03),
}
#: Share of values that the reference never had: categories, and numbers inside its range.
NOVEL_CATEGORIES, NOVEL_NUMBERS = 0.05, 0.2


@dataclass(frozen=True)
class Learnt:
    """What was learnt of one column; plain, so that it can be kept as JSON.

    :param bins: the reference's rows by bin.
    :param edges: upper edges of a number's bins: the first bin is below, the last one above all that there was.
    :param categories: what stands for the categories of the bins, without the last bin, which holds the rest.
    :param known: the values that the reference has (of categories what stands for them, not the values, which may be
        personal data); None where they are too many.
    :param rows: rows of a block, the median.
    :param thresholds: ``distribution``, ``missing`` and ``novel``; beyond them is drift.
    :param worst: the same of the reference's own worst block.
    """

    ordered: bool
    bins: list[int]
    edges: list[float] | None
    categories: list[Any] | None
    known: list[Any] | None
    grouped: bool
    missing: float
    rows: float
    thresholds: dict[str, float]
    worst: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Finding:
    """One column of a window, judged.

    :param scores: ``distribution``, ``missing``, ``novel``, and ``order`` where the column keeps one with another; None
        where one does not apply.
    :param thresholds: what they were held against.
    :param ratio: the largest ratio of a score to its threshold; above 1 is drift.
    :param about: which score that is.
    :param skipped: why the column was not judged.
    :param beside: the other column, where there is a score of the order that the two keep.
    """

    scores: dict[str, float | None]
    thresholds: dict[str, float]
    ratio: float | None
    about: str | None
    skipped: str | None = None
    beside: str | None = None

    @property
    def drifted(self) -> bool:
        """Whether a score is beyond its threshold."""
        return self.ratio is not None and self.ratio > 1


@dataclass(frozen=True)
class Counted:
    """One column of the reference in the bins that are compared: rows by block and bin."""

    ordered: bool
    counts: Array
    missing: Array
    rows: Array
    novel: Array | None
    edges: list[float] | None = None
    categories: list[Any] | None = None
    known: list[Any] | None = None
    grouped: bool = False


def edges_of(sample: Array) -> Array:
    """Return the upper edges of :data:`BINS` bins with about as many values each, of both ends, and of one below.

    What is above the last edge is beyond all that the reference has.
    """
    import numpy as np

    shares = np.concatenate([[0.01], np.linspace(0, 1, BINS + 1)[1:-1], [0.99, 1]])
    inner = np.quantile(sample, shares, method="lower")
    return np.unique(np.concatenate([[np.nextafter(sample.min(), -np.inf)], inner]))


def counted(tally: Tally | Binned) -> Counted:
    """Put a column of the reference into the bins that are compared."""
    import numpy as np

    if isinstance(tally, Binned):
        return Counted(True, tally.counts, tally.missing, tally.rows, None, edges=tally.edges.tolist())
    if tally.groups is not None:
        return Counted(False, tally.groups, tally.missing, tally.rows, None, grouped=True)
    blocks = len(tally.rows)
    values = sorted(tally.values) if tally.ordered else list(tally.values)
    table = np.array([tally.values[value] for value in values], dtype=np.int64).reshape(len(values), blocks).T
    total = table.sum(0)
    novel = (table * ((table == total) & (total > 0))).sum(1) / np.maximum(table.sum(1), 1)
    if tally.ordered:
        edges = edges_of(np.repeat(np.array(values, dtype=float), total)) if len(values) else np.array([])
        novel = _novel_inside(np.array(values, dtype=float), table, inner_range(edges))
        where = np.searchsorted(edges, np.array(values, dtype=float), side="left")
        counts = np.zeros((blocks, len(edges) + 1), dtype=np.int64)
        for block in range(blocks):
            np.add.at(counts[block], where, table[block])
        return Counted(True, counts, tally.missing, tally.rows, novel, edges=edges.tolist(), known=values)
    order = np.argsort(-total, kind="stable")
    top, rest = order[:CATEGORIES], order[CATEGORIES:]
    counts = np.concatenate([table[:, top], table[:, rest].sum(1, keepdims=True)], axis=1)
    signs = [sign_of(value) for value in values]
    names = [signs[position] for position in top]
    return Counted(False, counts, tally.missing, tally.rows, novel, categories=names, known=signs)


def learn(columns: dict[str, Counted], sensitivity: Sensitivity = "normal") -> dict[str, Learnt]:
    """Learn the thresholds of all columns.

    :raises SpecError: if the reference has fewer than :data:`MIN_BLOCKS` blocks, or for an unknown sensitivity.
    """
    import numpy as np

    if sensitivity not in LEVELS:
        raise SpecError(f"sensitivity is one of {', '.join(LEVELS)}, not {sensitivity!r}")
    if not columns:
        return {}
    level = LEVELS[sensitivity]
    blocks = len(next(iter(columns.values())).rows)
    if blocks < MIN_BLOCKS:
        raise SpecError(
            f"thresholds are learnt from {MIN_BLOCKS} blocks or more, and the reference has {blocks}: give it a longer "
            "window, or set thresholds yourself"
        )
    scores = {name: _block_scores(column) for name, column in columns.items()}
    alpha = level.rate / len(columns)
    learnt = {}
    for name, column in columns.items():
        worst = float(np.max(scores[name])) if len(scores[name]) else 0.0
        distribution = max(level.floor, level.margin * worst, prediction_limit(scores[name], alpha))
        share, gaps = _missing(column)
        gap = gaps[-2] if len(gaps) >= TRIM_FROM else gaps[-1]
        novel = float(np.max(column.novel)) if column.novel is not None else 0.0
        floor = NOVEL_NUMBERS if column.ordered else NOVEL_CATEGORIES
        learnt[name] = Learnt(
            ordered=column.ordered,
            bins=column.counts.sum(0).tolist(),
            edges=column.edges,
            categories=column.categories,
            known=column.known,
            grouped=column.grouped,
            missing=share,
            rows=float(np.median(column.rows)),
            thresholds={
                "distribution": min(CEILING, distribution),
                "missing": max(level.missing, level.margin * 5 / 3 * gap),
                "novel": min(0.95, max(floor, 2 * level.margin * novel)),
            },
            worst={"distribution": worst, "missing": gaps[-1], "novel": novel},
        )
    return learnt


def judge(learnt: Learnt, tally: Tally | Binned) -> Finding:
    """Hold a window's column against what was learnt.

    :param tally: of the window, in one block; :class:`Binned` by the learnt edges where the values are not known.
    """
    rows, missing = int(tally.rows.sum()), int(tally.missing.sum())
    if rows < MIN_ROWS:
        return Finding({}, {}, None, None, f"{rows} rows, and {MIN_ROWS} are needed")
    counts, novel = _in_bins(learnt, tally)
    thresholds = dict(learnt.thresholds)
    few = max(1.0, learnt.rows / max(rows - missing, 1))
    thresholds["distribution"] = min(CEILING, thresholds["distribution"] * few)
    scores: dict[str, float | None] = {
        "distribution": hellinger_squared(_array(learnt.bins), counts) if rows - missing >= MIN_ROWS else None,
        "missing": abs(missing / rows - learnt.missing),
        "novel": novel if rows - missing >= MIN_ROWS else None,
    }
    ratios = {
        about: (score / thresholds[about] if thresholds[about] else math.inf)
        for about, score in scores.items()
        if score is not None
    }
    about = max(ratios, key=lambda name: ratios[name])
    # A new code or unit, or values that are gone, explain why the distribution is another one.
    for cause in ("missing", "novel"):
        if ratios.get(cause, 0) > 1:
            about = cause
    return Finding(scores, thresholds, max(ratios.values()), about)


def with_order(finding: Finding, share: float | None, beside: str | None) -> Finding:
    """Return a finding with the share of rows in which the column is on the wrong side of another one."""
    if share is None or finding.skipped is not None:
        return finding
    ratio = share / BROKEN
    explained = finding.about in ("missing", "novel") and finding.drifted
    about = "order" if ratio > 1 and not explained else finding.about
    return Finding(
        {**finding.scores, "order": share},
        {**finding.thresholds, "order": BROKEN},
        max(finding.ratio or 0.0, ratio),
        about,
        beside=beside,
    )


def hellinger_squared(first: Array, second: Array) -> float:
    """Return ``1 - sum(sqrt(p * q))`` of two rows of counts: 0 where the shares are equal, 1 where nothing overlaps."""
    import numpy as np

    total = float(first.sum()) * float(second.sum())
    if not total:
        return 0.0 if not first.sum() and not second.sum() else 1.0
    return float(max(0.0, 1.0 - np.sqrt(first.astype(float) * second).sum() / math.sqrt(total)))


def _array(values: Any) -> Array:
    import numpy as np

    return np.asarray(values, dtype=np.int64)


def inner_range(edges: Any) -> tuple[float, float]:
    """Return the numbers between which the reference is dense: its 1% and 99% quantiles, or all where it has few."""
    if len(edges) == 0:
        return 0.0, 0.0
    return (float(edges[1]), float(edges[-2])) if len(edges) > 4 else (float(edges[0]), float(edges[-1]))


def _novel_inside(values: Array, table: Array, inner: tuple[float, float]) -> Array:
    """Return the share of each block's numbers inside the range whose value no other block has."""
    import numpy as np

    inside = (values >= inner[0]) & (values <= inner[1])
    alone = (table == table.sum(0)) & inside
    return np.asarray((table * alone).sum(1) / np.maximum((table * inside).sum(1), 1))


def _block_scores(column: Counted) -> Array:
    """Return the score of each block against the rest."""
    import numpy as np

    total = column.counts.sum(0)
    pairs = [(total - block, block) for block in column.counts]
    return np.array([hellinger_squared(rest, block) for rest, block in pairs if block.sum() and rest.sum()])


def prediction_limit(scores: Array, alpha: float) -> float:
    """Return the score that the next block exceeds with probability ``alpha`` when nothing happens.

    A score is a sum of squares, so it is taken as a scaled chi-square, whose degrees of freedom are those of the same
    mean and variance (Satterthwaite 1946). The next one is to the mean of ``B`` others as F with ``v`` and ``B * v``
    degrees. Few blocks say little of a variance, so only ``B / (B + 10)`` of the degrees are believed.
    """
    from scipy import special  # scipy.stats takes a second longer

    blocks = len(scores)
    if blocks < 2:
        return 0.0
    mean, variance = float(scores.mean()), float(scores.var(ddof=1))
    if mean <= 0:
        return 0.0
    degrees = 2 * mean**2 / variance if variance > 0 else 1e3
    degrees = min(max(1.0, degrees * blocks / (blocks + 10)), 1e3)
    return mean * (1 + 1 / blocks) * float(special.fdtri(degrees, blocks * degrees, 1 - alpha))


def _missing(column: Counted) -> tuple[float, list[float]]:
    """Return the share of missing values, and by how much each block's differs, the worst last."""
    import numpy as np

    share = float(column.missing.sum() / max(int(column.rows.sum()), 1))
    own = column.missing / np.maximum(column.rows, 1)
    return share, sorted(np.abs(own - share)[column.rows > 0].tolist())


def _in_bins(learnt: Learnt, tally: Tally | Binned) -> tuple[Array, float | None]:
    """Return a window's rows by the learnt bins, and the share that has a value which the reference never had."""
    import numpy as np

    if isinstance(tally, Binned):
        return tally.counts.sum(0), None
    if learnt.grouped:
        counts = np.zeros(len(learnt.bins), dtype=np.int64)
        if tally.groups is not None:
            counts += tally.groups.sum(0)
        for value, rows in tally.values.items():
            counts[group_of(value)] += rows.sum()
        return counts, None
    known = set(learnt.known or [])
    counts = np.zeros(len(learnt.bins), dtype=np.int64)
    if learnt.ordered:
        values = np.array(list(tally.values), dtype=float)
        rows = np.array([each.sum() for each in tally.values.values()], dtype=np.int64)
        np.add.at(counts, np.searchsorted(np.array(learnt.edges), values, side="left"), rows)
    else:
        bin_of = {value: position for position, value in enumerate(learnt.categories or [])}
        for value, each in tally.values.items():
            counts[bin_of.get(sign_of(value), len(learnt.bins) - 1)] += each.sum()
    if tally.many:  # the reference had few different values
        return counts, 1.0
    new = {value: each.sum() for value, each in tally.values.items() if _sign(learnt, value) not in known}
    if learnt.ordered:
        # A number beyond the others is a season, or an outlier; one among them that was never seen is another unit.
        low, high = inner_range(learnt.edges or [])
        inside = sum(each.sum() for value, each in tally.values.items() if low <= value <= high)
        enough = max(MIN_ROWS // 4, 0.02 * int(counts.sum()))
        found = sum(rows for value, rows in new.items() if low <= value <= high)
        return counts, float(found / inside) if inside >= enough else 0.0
    return counts, sum(new.values()) / max(int(counts.sum()), 1)


def _sign(learnt: Learnt, value: Any) -> Any:
    return value if learnt.ordered else sign_of(value)
